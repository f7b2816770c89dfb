"""The inventory and the VMs on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tasks.model.domain import DomainView
from tasks.model.host import HostStatus
from tasks.rendering.tables import mib, print_rows


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


def print_hosts(statuses: Sequence[HostStatus]) -> None:
    """One row a host."""
    columns = ["HOST", "STATE", "LIBVIRT", "QEMU", "MEMORY FREE", "VMS", "OUT", "IN", "POOLS"]
    print_rows(columns, [_host_row(status) for status in statuses], empty="the inventory is empty")


def _host_row(status: HostStatus) -> list[object]:
    limits = [_used(status.outgoing, status.max_outgoing), _used(status.incoming, status.max_incoming)]
    facts = status.facts
    if facts is None:
        return [status.name, "unreachable", "", "", "", "", *limits, status.error]
    memory = f"{mib(facts.memory_free_kib * 1024)} of {mib(facts.memory_total_kib * 1024)}"
    pools = ", ".join(pool.name if pool.active else f"{pool.name} (inactive)" for pool in facts.pools)
    versions = [version_text(facts.libvirt_version), version_text(facts.hypervisor_version)]
    return [status.name, "reachable", *versions, memory, f"{status.running_vms}/{status.defined_vms}", *limits, pools]


def _used(used: int | None, limit: int) -> str:
    return f"{'?' if used is None else used}/{limit}"


def vms_as_json(views: Sequence[DomainView], errors: Mapping[str, str]) -> dict[str, Any]:
    """The model."""
    return {"vms": [asdict(view) for view in views], "unreachable": dict(errors)}


def print_vms(views: Sequence[DomainView], errors: Mapping[str, str]) -> None:
    """One row a VM, those of the same name next to each other."""
    columns = ["VM", "HOST", "STATE", "MEMORY", "VCPUS", "AUTOSTART", "UUID"]
    rows = [
        [v.name, v.host, v.state.value, mib(v.memory_kib * 1024), v.vcpus, "yes" if v.autostart else "no", v.uuid]
        for v in sorted(views, key=lambda view: (view.name, view.host))
    ]
    print_rows(columns, rows, empty="no VMs")
    if errors:
        print_rows(["UNREACHABLE", "WHY"], sorted(errors.items()))
