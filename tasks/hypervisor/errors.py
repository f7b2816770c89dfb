"""libvirt's errors in vmferry's words: one table, by libvirt's error code.

The class says what an error means for a migration (look again, somebody must act, unknown), the code is stable, the
message carries libvirt's own text. The numbers are libvirt's public virErrorNumber.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import libvirt

from tasks.model.errors import HostUnreachable, HypervisorError, OperatorMustFix, OutcomeUnknown, RetryLater

PASSWORD_IN_URI = re.compile(r"(\w+://[^\s/:@]*):[^\s/@]+@")
CONNECTION_DOMAINS = frozenset({libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE})


@dataclass(frozen=True, slots=True)
class Row:
    """What one of libvirt's error codes becomes."""

    kind: type[HypervisorError]
    code: str
    hint: str


LOOK = "look at both hosts: virsh -c URI domstate VM --reason"
PERMIT = "give the URI's user the right to manage domains on this host"

TABLE: dict[int, Row] = {
    libvirt.VIR_ERR_NO_DOMAIN: Row(OperatorMustFix, "NO_DOMAIN", "vmferry vms shows where the VM is"),
    libvirt.VIR_ERR_DOM_EXIST: Row(OperatorMustFix, "DOMAIN_EXISTS", "rename or remove the other VM"),
    libvirt.VIR_ERR_OPERATION_TIMEOUT: Row(
        RetryLater, "JOB_LOCK_TIMEOUT", "another operation holds the VM; it is tried again"
    ),
    libvirt.VIR_ERR_RESOURCE_BUSY: Row(RetryLater, "RESOURCE_BUSY", "something on the host is in use; tried again"),
    libvirt.VIR_ERR_OPERATION_ABORTED: Row(OperatorMustFix, "ABORTED", "somebody aborted the job; retry when ready"),
    libvirt.VIR_ERR_MIGRATE_UNSAFE: Row(
        OperatorMustFix, "MIGRATION_UNSAFE", "a disk is not on storage that libvirt knows to be shared"
    ),
    libvirt.VIR_ERR_CPU_INCOMPATIBLE: Row(
        OperatorMustFix, "CPU_INCOMPATIBLE", "give the VM a CPU model that both hosts offer"
    ),
    libvirt.VIR_ERR_NO_NETWORK: Row(OperatorMustFix, "NO_NETWORK", "define and start the network on this host"),
    libvirt.VIR_ERR_NO_NWFILTER: Row(OperatorMustFix, "NO_NWFILTER", "define the network filter on this host"),
    libvirt.VIR_ERR_NO_SECRET: Row(OperatorMustFix, "NO_SECRET", "define the secret, with its value, on this host"),
    libvirt.VIR_ERR_NO_STORAGE_POOL: Row(OperatorMustFix, "NO_STORAGE_POOL", "define and start the storage pool"),
    libvirt.VIR_ERR_NO_STORAGE_VOL: Row(OperatorMustFix, "NO_STORAGE_VOL", "the volume is not in its pool"),
    libvirt.VIR_ERR_OPERATION_INVALID: Row(
        OperatorMustFix, "OPERATION_INVALID", "the VM is not in a state in which libvirt does this"
    ),
    libvirt.VIR_ERR_OPERATION_FAILED: Row(OperatorMustFix, "OPERATION_FAILED", "libvirt's log on the host says more"),
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED: Row(OperatorMustFix, "NOT_SUPPORTED", "the host cannot do this"),
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: Row(
        OperatorMustFix, "CONFIG_UNSUPPORTED", "the host cannot run this definition: change it, or take another host"
    ),
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED: Row(OperatorMustFix, "NOT_SUPPORTED", "the host's libvirt is too old"),
    libvirt.VIR_ERR_NO_SUPPORT: Row(OperatorMustFix, "NOT_SUPPORTED", "the host's libvirt cannot do this"),
    libvirt.VIR_ERR_XML_ERROR: Row(OperatorMustFix, "XML_INVALID", "libvirt does not accept the definition"),
    libvirt.VIR_ERR_XML_DETAIL: Row(OperatorMustFix, "XML_INVALID", "libvirt does not accept the definition"),
    libvirt.VIR_ERR_OPERATION_DENIED: Row(OperatorMustFix, "ACCESS_DENIED", PERMIT),
    libvirt.VIR_ERR_ACCESS_DENIED: Row(OperatorMustFix, "ACCESS_DENIED", PERMIT),
    libvirt.VIR_ERR_AUTH_FAILED: Row(OperatorMustFix, "AUTH_FAILED", PERMIT),
    libvirt.VIR_ERR_AUTH_CANCELLED: Row(OperatorMustFix, "AUTH_FAILED", PERMIT),
    libvirt.VIR_ERR_AUTH_UNAVAILABLE: Row(OperatorMustFix, "AUTH_FAILED", PERMIT),
    libvirt.VIR_ERR_HOOK_SCRIPT_FAILED: Row(OperatorMustFix, "HOOK_FAILED", "see /etc/libvirt/hooks on the host"),
    libvirt.VIR_ERR_MIGRATE_PERSIST_FAILED: Row(OutcomeUnknown, "PERSIST_FAILED", LOOK),
    libvirt.VIR_ERR_MIGRATE_FINISH_OK: Row(OutcomeUnknown, "OUTCOME_UNKNOWN", LOOK),
}
FALLBACK = Row(OperatorMustFix, "LIBVIRT_ERROR", "libvirt's log on the host says more")

OPEN_HINTS: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (
        re.compile(r"permission denied|authentication failed|no agent callback|access denied", re.IGNORECASE),
        "AUTH_FAILED",
        "let the worker's user in: its ssh key, its TLS certificate or its libvirt rights",
    ),
    (
        re.compile(r"host key verification failed|certificate", re.IGNORECASE),
        "HOST_NOT_TRUSTED",
        "add the host's key to the worker's known_hosts, or its authority to the worker's certificates",
    ),
)
"""ssh's and GnuTLS's refusals reach us only as text, so that these are told apart by it; never anything else."""


def translate_open(error: libvirt.libvirtError, host: str, uri: str) -> HostUnreachable:
    """No connection could be opened.

    Always ``HostUnreachable``, refused credentials too: a host that does not let us in can be observed as little as
    one that is down, and what runs on it must be treated alike.
    """
    text = message_of(error)
    auth = error.get_error_code() in AUTH_CODES
    code, hint = next(
        ((code, hint) for pattern, code, hint in OPEN_HINTS if pattern.search(text)),
        ("HOST_UNREACHABLE", f"try: virsh -c '{uri}' version"),
    )
    if auth:
        code, hint = OPEN_HINTS[0][1:]
    return HostUnreachable(code, f"{host} ({uri}) cannot be reached: {text}", hint)


def translate(error: libvirt.libvirtError, host: str, *, lost: bool, effect: bool) -> HypervisorError:
    """A call failed.

    ``lost`` says that our own connection is dead, ``effect`` that the call would have changed something: both
    together mean that nobody knows whether it did.
    """
    text = message_of(error)
    if lost and effect:
        return OutcomeUnknown("CONNECTION_LOST", f"{host}: the connection broke during the call: {text}", LOOK)
    if lost:
        return HostUnreachable("CONNECTION_LOST", f"{host}: the connection broke: {text}", "it is tried again")
    row = TABLE.get(error.get_error_code(), FALLBACK)
    return row.kind(row.code, f"{host}: {text}", row.hint)


def translate_transfer(error: libvirt.libvirtError, source: str, destination: str, *, lost: bool) -> HypervisorError:
    """A transfer's call failed. Errors of the source's own connections to the destination arrive through ours."""
    text = message_of(error)
    if lost:
        message = f"the connection to {source} broke during the transfer: {text}"
        return OutcomeUnknown("CONNECTION_LOST", message, LOOK)
    if error.get_error_code() in AUTH_CODES:
        message = f"{destination} does not let {source}'s libvirt in: {text}"
        return OperatorMustFix("AUTH_FAILED", message, f"on {source}, as root, try: virsh -c PEER_URI version")
    if error.get_error_domain() in CONNECTION_DOMAINS and error.get_error_code() not in TABLE:
        message = f"{source} lost or did not reach {destination}: {text}"
        return OutcomeUnknown("PEER_UNREACHABLE", message, f"on {source}, try: virsh -c PEER_URI version")
    return translate(error, source, lost=False, effect=True)


def message_of(error: libvirt.libvirtError) -> str:
    """libvirt's text on one line, passwords in URIs blanked."""
    text = " ".join(str(error.get_error_message() or error).split())
    return PASSWORD_IN_URI.sub(r"\1:***@", text)


AUTH_CODES = frozenset({libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_AUTH_CANCELLED, libvirt.VIR_ERR_AUTH_UNAVAILABLE})
