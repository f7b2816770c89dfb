"""Where a host's libvirt daemon is, for the workers and for the other hosts."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from tasks.model.errors import OperatorMustFix

NETWORK_TRANSPORTS = frozenset({"ssh", "tls", "tcp", "libssh2", "libssh"})


@dataclass(frozen=True, slots=True)
class HostAddress:
    """How one host of the inventory is reached."""

    uri: str
    """By the workers."""
    peer_uri: str | None = None
    """By the other hosts' libvirt daemons; ``uri`` when None."""
    migration_address: str | None = None
    """Address or name for the migration's own connections."""


def worker_uri(address: HostAddress) -> str:
    """The URI that a worker opens.

    With ssh, ``no_tty=1`` is added: a password or host key question on a worker's terminal would never be answered,
    so that ssh has to fail instead (https://libvirt.org/uri.html#extra-parameters).
    """
    parts = urlsplit(address.uri)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not parts.scheme.endswith("+ssh") or "no_tty" in query:
        return address.uri
    return urlunsplit(parts._replace(query=urlencode({**query, "no_tty": "1"})))


def peer_uri(host: str, address: HostAddress) -> str:
    """The URI that the source's daemon opens to reach ``host``.

    Raises:
        OperatorMustFix: ``PEER_URI_UNUSABLE``: it means something else on every host (a local socket, no host name).
    """
    uri = address.peer_uri or address.uri
    if network_host(uri) is None:
        raise OperatorMustFix(
            "PEER_URI_UNUSABLE",
            f"{without_password(uri)} does not lead from another host to {host}",
            f'set peer_uri of host {host}, for example "qemu+tls://{host}/system"',
        )
    return uri


def migrate_uri(address: HostAddress) -> str | None:
    """``tcp://ADDRESS`` for the migration's own connections; None leaves the choice to the destination's libvirt."""
    target = address.migration_address or network_host(address.peer_uri or address.uri)
    return None if target is None else f"tcp://{_bracketed(target)}"


def network_host(uri: str) -> str | None:
    """The host that a URI with a network transport names; None for local sockets, test drivers and empty hosts.

    A plain ``qemu://host/system`` means TLS.
    """
    parts = urlsplit(uri)
    driver, _, transport = parts.scheme.partition("+")
    if driver == "test" or (transport or "tls") not in NETWORK_TRANSPORTS:
        return None
    return parts.hostname


def without_password(uri: str) -> str:
    """The URI as it may be shown or logged."""
    parts = urlsplit(uri)
    return uri if parts.password is None else urlunsplit(parts._replace(netloc=_netloc(parts)))


def _netloc(parts: SplitResult) -> str:
    host = parts.netloc.rsplit("@", 1)[1]
    return f"{parts.username or ''}:***@{host}"


def _bracketed(target: str) -> str:
    try:
        return f"[{target}]" if ipaddress.ip_address(target).version == 6 else target
    except ValueError:
        return target
