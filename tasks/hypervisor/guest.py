"""Calls on one domain: looking at it, its mark, its definition."""

from __future__ import annotations

import uuid as uuid_module
from typing import Any

import libvirt
import libvirt_qemu
from lxml import etree

from tasks.hypervisor.connection import Connection
from tasks.hypervisor.job import read_job
from tasks.model.domain import NO_JOB, DomainState, DomainView, Mark
from tasks.model.errors import OperatorMustFix, RetryLater
from tasks.model.mark_xml import MARK_PREFIX, MARK_URI, mark_element, parse_mark

LOOKS = 5
KEEP_TPM_SINCE = 8_009_000
NO_AGENT = frozenset(
    {
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
        libvirt.VIR_ERR_AGENT_UNSYNCED,
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,  # no agent is configured
        libvirt.VIR_ERR_OPERATION_INVALID,  # not running
        libvirt.VIR_ERR_INTERNAL_ERROR,  # an agent whose answer is none
        libvirt.VIR_ERR_NO_SUPPORT,
    }
)
"""Errors that mean: no agent answers."""
CHANGED_MEANWHILE = frozenset({libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID})
NONE_THERE = frozenset({libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_DOMAIN_METADATA})

PASSING = frozenset(
    {
        libvirt.VIR_DOMAIN_PAUSED_MIGRATION,
        libvirt.VIR_DOMAIN_PAUSED_STARTING_UP,
        libvirt.VIR_DOMAIN_PAUSED_POSTCOPY,
        libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED,
    }
)
"""Reasons of a pause that libvirt made itself for a while: its hypervisor is not to be disturbed with questions."""
STATES = {
    libvirt.VIR_DOMAIN_NOSTATE: DomainState.NOSTATE,
    libvirt.VIR_DOMAIN_RUNNING: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: DomainState.BLOCKED,
    libvirt.VIR_DOMAIN_PAUSED: DomainState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: DomainState.SHUTDOWN,
    libvirt.VIR_DOMAIN_SHUTOFF: DomainState.SHUTOFF,
    libvirt.VIR_DOMAIN_CRASHED: DomainState.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: DomainState.PMSUSPENDED,
}


def look_up(connection: Connection, vm: str) -> Any | None:
    """The domain with this UUID, else with this name; None when there is neither."""
    if _is_uuid(vm) and (found := _or_none(connection.lookupByUUIDString, vm)) is not None:
        return found
    return _or_none(connection.lookupByName, vm)


def look_up_uuid(connection: Connection, uuid: str) -> Any | None:
    """The domain with this UUID."""
    return _or_none(connection.lookupByUUIDString, uuid)


def demand(connection: Connection, uuid: str) -> Any:
    """The domain with this UUID; libvirt's NO_DOMAIN error when there is none."""
    return connection.lookupByUUIDString(uuid)


def find(connection: Connection, host: str, vm: str) -> DomainView | None:
    """One consistent look: the state is the same before and after everything else was read.

    The job comes before the last reading of the state, so that a migration that ends in between is never seen as
    "no job" together with the state from before its end.
    """
    for _ in range(LOOKS):
        domain = look_up(connection, vm)
        if domain is None:
            return None
        try:
            before = domain.state()
            view = _view(domain, host, before)
            after, active = domain.state(), bool(domain.isActive())
        except libvirt.libvirtError as error:
            if error.get_error_code() not in CHANGED_MEANWHILE:
                raise
            continue  # it stopped, or went, while we looked: look again
        if before == after and active == view.active:
            return view
    raise RetryLater("CHANGING", f"{host}: {vm} changes faster than it can be read", "it is tried again")


def list_all(connection: Connection, host: str) -> list[DomainView]:
    """All domains in four round trips, however many there are."""
    persistent = _uuids(connection, libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT)
    autostart = _uuids(connection, libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART)
    saved = _uuids(connection, libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE)
    wanted = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_BALLOON | libvirt.VIR_DOMAIN_STATS_VCPU
    # NOWAIT: a domain whose job lock is taken is listed with what needs no lock.
    records = connection.getAllDomainStats(wanted, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT)
    views = []
    for domain, stats in records:
        uuid = domain.UUIDString()
        view = DomainView(
            host=host,
            name=domain.name(),
            uuid=uuid,
            state=STATES.get(stats.get("state.state"), DomainState.NOSTATE),
            reason=stats.get("state.reason", 0),
            active=domain.ID() >= 0,
            persistent=uuid in persistent,
            autostart=uuid in autostart,
            managed_save=uuid in saved,
            memory_kib=stats.get("balloon.maximum", 0),
            vcpus=stats.get("vcpu.current", 0),
        )
        views.append(view)
    return sorted(views, key=lambda view: view.name)


def write_mark(domain: Any, mark: Mark) -> None:
    """Write the mark, live and persistent, as far as the domain is either."""
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, mark_element(mark), MARK_PREFIX, MARK_URI, _affect(domain))


def remove_mark(domain: Any) -> None:
    """Remove the mark wherever there is one."""
    try:
        domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, None, None, MARK_URI, _affect(domain))
    except libvirt.libvirtError as error:
        if error.get_error_code() not in NONE_THERE:
            raise


def define(connection: Connection, host: str, xml: str) -> None:
    """Define, unless the name or UUID belongs to a domain without the mark that ``xml`` bears.

    libvirt itself replaces a domain of the same name and UUID without a word.

    Raises:
        OperatorMustFix: ``DOMAIN_EXISTS``, ``XML_INVALID``.
    """
    mark, uuid, name = parse_mark(xml), *identity(xml)
    for existing in _clashing(connection, uuid, name):
        theirs = read_mark(existing, persistent=bool(existing.isPersistent()))
        same = existing.name() == name and (not uuid or uuid_module.UUID(uuid).bytes == existing.UUID())
        if not same or mark is None or theirs is None or theirs.id != mark.id:
            raise OperatorMustFix(
                "DOMAIN_EXISTS",
                f"{host} already has {existing.name()} ({existing.UUIDString()})",
                f"if it is not needed: virsh -c URI undefine {existing.UUIDString()}",
            )
    # Without VIR_DOMAIN_DEFINE_VALIDATE: libvirt writes definitions that its own schema refuses.
    connection.defineXML(xml)


def undefine(connection: Connection, host: str, uuid: str, *, snapshots: bool) -> None:
    """Remove an inactive definition; its disks, NVRAM and TPM state stay.

    Raises:
        OperatorMustFix: ``DOMAIN_ACTIVE``, ``HAS_SNAPSHOTS``, ``HAS_MANAGED_SAVE``.
    """
    domain = look_up_uuid(connection, uuid)
    if domain is None:
        return
    flags = libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
    if connection.getLibVersion() >= KEEP_TPM_SINCE:
        flags |= libvirt.VIR_DOMAIN_UNDEFINE_KEEP_TPM
    if snapshots:
        flags |= libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    _refuse_loss(domain, host, snapshots=snapshots)
    if domain.isActive():
        raise OperatorMustFix("DOMAIN_ACTIVE", f"{host}: {domain.name()} is active", "only a shut off VM is removed")
    domain.undefineFlags(flags)


def ping_agent(domain: Any, timeout_s: int) -> bool:
    """Ask the agent for a sign of life. With its own time limit: libvirt's other calls wait for ever for an agent that
    answers the first word and no more."""
    try:
        libvirt_qemu.qemuAgentCommand(domain, '{"execute":"guest-ping"}', timeout_s, 0)
    except libvirt.libvirtError as error:
        if error.get_error_code() in NO_AGENT:
            return False
        raise
    return True


def suspend(domain: Any) -> None:
    """Pause a domain; nothing to do when it is paused."""
    if domain.state()[0] != libvirt.VIR_DOMAIN_PAUSED:
        domain.suspend()


def resume(domain: Any) -> None:
    """Let a paused domain run; nothing to do when it runs."""
    if domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
        domain.resume()


def shut_down(domain: Any) -> None:
    """Ask the guest: by its agent when one is connected, else by the power button."""
    if domain.isActive():
        domain.shutdown()


def start(domain: Any) -> None:
    """Boot it; nothing to do when it is active."""
    if not domain.isActive():
        domain.create()


def _view(domain: Any, host: str, state_and_reason: list[int]) -> DomainView:
    active, persistent = domain.ID() >= 0, bool(domain.isPersistent())
    job = read_job(domain) if active else NO_JOB
    _, memory_kib, _, vcpus, _ = domain.info()
    state, reason = state_and_reason
    return DomainView(
        host=host,
        name=domain.name(),
        uuid=domain.UUIDString(),
        state=STATES.get(state, DomainState.NOSTATE),
        reason=reason,
        active=active,
        persistent=persistent,
        # libvirt has neither for transient domains, and says so with an error.
        autostart=persistent and bool(domain.autostart()),
        managed_save=persistent and bool(domain.hasManagedSaveImage()),
        memory_kib=memory_kib,
        vcpus=vcpus,
        snapshots=domain.snapshotNum(),
        external_snapshots=domain.snapshotNum(libvirt.VIR_DOMAIN_SNAPSHOT_LIST_EXTERNAL),
        checkpoints=_count_checkpoints(domain),
        never_ran=state == libvirt.VIR_DOMAIN_PAUSED and reason not in PASSING and never_ran(domain),
        mark=read_mark(domain, persistent=persistent),
        instance_mark=read_mark(domain, persistent=False) if state == libvirt.VIR_DOMAIN_PAUSED else None,
        job=job,
    )


def never_ran(domain: Any) -> bool:
    """Whether no CPU has used any time; in steps of the kernel's accounting, 10 ms as a rule."""
    # NOWAIT: a VM that is just arriving is paused as well, and its job would be waited for.
    flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    stats = read_stats(domain, libvirt.VIR_DOMAIN_STATS_VCPU, flags)
    times = [value for key, value in stats.items() if key.startswith("vcpu.") and key.endswith(".time")]
    return bool(times) and not any(times)


def read_stats(domain: Any, kinds: int, flags: int = 0) -> dict[str, Any]:
    """Statistics of one domain; none when it has gone, which libvirt leaves out of its list without an error."""
    return next((stats for _, stats in domain.connect().domainListGetStats([domain], kinds, flags)), {})


def _count_checkpoints(domain: Any) -> int:
    try:
        return len(domain.listAllCheckpoints())
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return 0
        raise


def read_mark(domain: Any, *, persistent: bool) -> Mark | None:
    """The mark of a definition, or of what runs."""
    # CURRENT, not LIVE: a transient domain that is just being made, or has just ended, is not active either.
    flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG if persistent else libvirt.VIR_DOMAIN_AFFECT_CURRENT
    try:
        return parse_mark(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, MARK_URI, flags))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return None
        raise


def _affect(domain: Any) -> int:
    flags = 0
    if domain.isActive():
        flags |= libvirt.VIR_DOMAIN_AFFECT_LIVE
    if domain.isPersistent():
        flags |= libvirt.VIR_DOMAIN_AFFECT_CONFIG
    return flags


def _refuse_loss(domain: Any, host: str, *, snapshots: bool) -> None:
    """What belongs to the definition would go with it, or be left without an owner."""
    if domain.snapshotNum() and not snapshots:
        raise OperatorMustFix(
            "HAS_SNAPSHOTS", f"{host}: {domain.name()} has snapshots", f"virsh -c URI snapshot-list {domain.name()}"
        )
    if domain.isPersistent() and domain.hasManagedSaveImage():
        raise OperatorMustFix(
            "HAS_MANAGED_SAVE", f"{host}: {domain.name()} has a managed save image", "start it, or remove the image"
        )


def identity(xml: str) -> tuple[str, str]:
    """UUID (empty when there is none that libvirt would take) and name of a definition."""
    parser = etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True)
    try:
        root = etree.fromstring(xml.encode(), parser)
    except (etree.XMLSyntaxError, ValueError):
        # Not the parser's message: it may quote the XML, and that may hold passwords.
        raise OperatorMustFix("XML_INVALID", "the definition is not well-formed XML", "see vmferry inspect") from None
    uuid = (root.findtext("uuid") or "").strip()
    return uuid if _is_uuid(uuid) else "", root.findtext("name") or ""


def _clashing(connection: Connection, uuid: str, name: str) -> list[Any]:
    found = [look_up_uuid(connection, uuid) if uuid else None, _or_none(connection.lookupByName, name)]
    return [domain for domain in found if domain is not None]


def _uuids(connection: Connection, flag: int) -> frozenset[str]:
    return frozenset(domain.UUIDString() for domain in connection.listAllDomains(flag))


def _is_uuid(text: str) -> bool:
    try:
        uuid_module.UUID(text)
    except ValueError:
        return False
    return True


def _or_none(look: Any, key: str) -> Any | None:
    try:
        return look(key)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise
