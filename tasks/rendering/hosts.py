"""The inventory and the VMs on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Any

from rich.text import Text

from tasks.model.domain import DomainState, DomainView
from tasks.model.errors import InvalidRequest
from tasks.model.host import HostStatus
from tasks.rendering import tables
from tasks.rendering.fitted import Column, natural, print_fitted
from tasks.rendering.tables import mib


def version_text(number: int) -> str:
    """libvirt's way of writing a version as a number, undone."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def hosts_as_json(statuses: Sequence[HostStatus]) -> list[dict[str, Any]]:
    """The model, with sets as sorted lists."""
    return [_plain(asdict(status)) for status in statuses]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(value)
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


HOST_COLUMNS = (
    Column("HOST"),
    Column("STATE"),
    Column("LIBVIRT", give_up=3),
    Column("QEMU", give_up=2),
    Column("MEMORY FREE", give_up=1, right=True),
    Column("VMS", right=True),
    Column("OUT", right=True),
    Column("IN", right=True),
    Column("POOLS", give_up=4),
)


def print_hosts(statuses: Sequence[HostStatus]) -> None:
    """One row a host; what is wrong with a host stands below."""
    ordered = sorted(statuses, key=lambda status: natural(status.name))
    rows = [_host_row(status) for status in ordered]
    print_fitted(HOST_COLUMNS, rows, empty="the inventory is empty", summary=_hosts_summary(ordered))
    if tables.console.is_terminal:
        for status in ordered:
            _print_trouble(status)


def _host_row(status: HostStatus) -> list[object]:
    limits = [_used(status.outgoing, status.max_outgoing), _used(status.incoming, status.max_incoming)]
    facts = status.facts
    if facts is None:
        # A pipe has no place for it but the row itself.
        why = "" if tables.console.is_terminal else status.error
        return [status.name, _state("unreachable", status), "", "", "", "", *limits, why]
    memory = f"{mib(facts.memory_free_kib * 1024)} of {mib(facts.memory_total_kib * 1024)}"
    pools = ", ".join(pool.name if pool.active else f"{pool.name} (inactive)" for pool in facts.pools)
    versions = [version_text(facts.libvirt_version), version_text(facts.hypervisor_version)]
    return [
        status.name,
        _state("reachable", status),
        *versions,
        memory,
        f"{status.running_vms}/{status.defined_vms}",
        *limits,
        pools,
    ]


def _state(reached: str, status: HostStatus) -> str:
    return f"{reached}, {status.cordon}" if status.cordon else reached


def _used(used: int | None, limit: int) -> str:
    return f"{'?' if used is None else used}/{limit}"


def _hosts_summary(statuses: Sequence[HostStatus]) -> str:
    away = sum(not status.reachable for status in statuses)
    running, defined = sum(s.running_vms for s in statuses), sum(s.defined_vms for s in statuses)
    hosts = _count(len(statuses), "host") + (f", {away} unreachable" if away else "")
    return f"{hosts}; {running} of {_count(defined, 'VM')} running"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _print_trouble(status: HostStatus) -> None:
    if status.error:
        tables.console.print(Text.assemble((status.name, "bold red"), f": {status.error}"), soft_wrap=True)
    inactive = [pool.name for pool in status.facts.pools if not pool.active] if status.facts else []
    if inactive:
        words = f": inactive {_count(len(inactive), 'pool')}: {', '.join(inactive)}"
        tables.console.print(Text.assemble((status.name, "yellow"), words), soft_wrap=True)


def vms_as_json(views: Sequence[DomainView], errors: Mapping[str, str]) -> dict[str, Any]:
    """The model."""
    return {"vms": [asdict(view) for view in views], "unreachable": dict(errors)}


def select_vms(views: Sequence[DomainView], *, states: Sequence[str] = (), match: str = "") -> list[DomainView]:
    """VMs in one of the states (any when none is given) whose name matches the pattern (``web-*``; any when empty),
    those of the same name next to each other.

    Raises:
        InvalidRequest: ``INVALID_STATE``.
    """
    unknown = [state for state in states if state not in set(DomainState)]
    if unknown:
        raise InvalidRequest("INVALID_STATE", f"{unknown[0]} is no state of a VM", f"one of: {', '.join(DomainState)}")
    chosen = [
        view for view in views if (not states or view.state in states) and (not match or fnmatchcase(view.name, match))
    ]
    return sorted(chosen, key=lambda view: (natural(view.name), natural(view.host)))


VM_COLUMNS = (
    Column("VM"),
    Column("HOST"),
    Column("STATE"),
    Column("MEMORY", give_up=1, right=True),
    Column("VCPUS", give_up=3, right=True),
    Column("AUTOSTART", give_up=4),
    Column("UUID", give_up=2),
)


def print_vms(views: Sequence[DomainView], errors: Mapping[str, str]) -> None:
    """One row a VM; hosts that could not be asked stand below."""
    rows = [
        [v.name, v.host, v.state.value, mib(v.memory_kib * 1024), v.vcpus, "yes" if v.autostart else "no", v.uuid]
        for v in views
    ]
    print_fitted(VM_COLUMNS, rows, empty="no VMs", summary=_vms_summary(views))
    if not errors:
        return
    if not tables.console.is_terminal:
        tables.print_rows(["UNREACHABLE", "WHY"], sorted(errors.items()))
        return
    for host, why in sorted(errors.items(), key=lambda pair: natural(pair[0])):
        tables.console.print(Text.assemble((f"{host} not asked", "bold red"), f": {why}"), soft_wrap=True)


def _vms_summary(views: Sequence[DomainView]) -> str:
    states = Counter(view.state.value for view in views)
    said = ", ".join(f"{number} {state}" for state, number in states.most_common())
    hosts = _count(len({view.host for view in views}), "host")
    return f"{_count(len(views), 'VM')} on {hosts}: {said}"
