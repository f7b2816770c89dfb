"""Checks of storage pools: what is meant to be shared must be the same everywhere."""

from __future__ import annotations

from collections import defaultdict
from posixpath import normpath

from tasks.model.doctor import CheckResult, DoctorFacts
from tasks.model.host import HostFacts, Pool
from tasks.planning.doctor.hosts import known
from tasks.planning.doctor.registry import check, failed, ok, warning

SHARED_TYPE = "netfs"
LOW_SHARE = 0.05
"""Part of a pool that should be free."""

Placed = tuple[HostFacts, Pool]


@check(
    SHARED_POOLS_MATCH="Network pools show the same export at the same place on all hosts.",
    POOL_SOURCE_DIFFERS="Pools of one name show different exports: what looks shared is not.",
    POOL_TARGET_DIFFERS="One export is mounted at different places: disks have other paths there.",
    POOL_MISSING="A host lacks a network pool that other hosts have.",
    NO_SHARED_POOL="No network pool is active on two hosts: nothing is shared.",
)
def check_shared_pools(facts: DoctorFacts) -> list[CheckResult]:
    """Disks are shared where the same export is mounted at the same place."""
    hosts = known(facts)
    if len(hosts) < 2:
        return []
    shared = [(host, pool) for host in hosts for pool in host.pools if pool.type == SHARED_TYPE]
    if not shared:
        message = "no host has a pool of type netfs: VMs with disks can only be moved where their disks are shared"
        return [warning("NO_SHARED_POOL", "pools", message, "virsh pool-define-as NAME netfs … on every host")]
    found = [*_different_sources(shared), *_different_targets(shared), *_missing(hosts, shared)]
    names = sorted({pool.name for _, pool in shared})
    return found or [ok("SHARED_POOLS_MATCH", "pools", f"the same on all {len(hosts)} hosts: {', '.join(names)}")]


def _different_sources(shared: list[Placed]) -> list[CheckResult]:
    names: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for host, pool in shared:
        names[pool.name][pool.source].append(host.name)
    return [
        failed(
            "POOL_SOURCE_DIFFERS",
            f"pool {name}",
            f"pool {name} is {_places(sources, 'on')}",
            f"give it one source on all hosts: virsh pool-edit {name}; then pool-destroy, pool-start",
        )
        for name, sources in names.items()
        if len(sources) > 1
    ]


def _different_targets(shared: list[Placed]) -> list[CheckResult]:
    exports: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for host, pool in shared:
        exports[pool.source][normpath(pool.target or "")].append(host.name)
    return [
        failed(
            "POOL_TARGET_DIFFERS",
            f"export {export}",
            f"{export} is mounted at {_places(targets, 'on')}",
            "give its pools one target path on all hosts: virsh pool-edit POOL; then pool-destroy and pool-start it",
        )
        for export, targets in exports.items()
        if export and len(targets) > 1
    ]


def _places(places: dict[str, list[str]], word: str) -> str:
    return ", ".join(f"{place or 'nowhere'} {word} {' and '.join(hosts)}" for place, hosts in sorted(places.items()))


def _missing(hosts: list[HostFacts], shared: list[Placed]) -> list[CheckResult]:
    names: dict[str, set[str]] = defaultdict(set)
    for host, pool in shared:
        names[pool.name].add(host.name)
    found = []
    for name, there in names.items():
        absent = [host.name for host in hosts if host.name not in there]
        if not absent or len(there) < 2:
            continue
        message = f"pool {name} is on {', '.join(sorted(there))}, and not on {', '.join(absent)}"
        hint = f"virsh pool-dumpxml {name} on {min(there)}, pool-define and pool-start it on {absent[0]}"
        found.append(warning("POOL_MISSING", f"pool {name}", message, hint))
    return found


@check(
    POOLS_ACTIVE="All storage pools are active.",
    SHARED_POOL_INACTIVE="A network pool is inactive on a host: disks on it cannot be used there.",
    POOL_INACTIVE="A storage pool is inactive.",
)
def check_active(facts: DoctorFacts) -> list[CheckResult]:
    """An inactive network pool is the usual thing after a reboot without autostart."""
    hosts = known(facts)
    down = [(host, pool) for host in hosts for pool in host.pools if not pool.active]
    if hosts and not down:
        return [ok("POOLS_ACTIVE", "pools", "all storage pools are active")]
    return [_inactive(host, pool) for host, pool in down]


def _inactive(host: HostFacts, pool: Pool) -> CheckResult:
    message = f"pool {pool.name} ({pool.type} {pool.source or pool.target or ''}) is inactive on {host.name}"
    hint = f"on {host.name}: virsh pool-start {pool.name} && virsh pool-autostart {pool.name}"
    if pool.type == SHARED_TYPE:
        return failed("SHARED_POOL_INACTIVE", host.name, message, hint)
    return warning("POOL_INACTIVE", host.name, message, hint)


@check(
    POOLS_HAVE_ROOM="Storage pools have room.",
    POOL_LOW="A storage pool has less than 5 % free.",
)
def check_room(facts: DoctorFacts) -> list[CheckResult]:
    """A full pool pauses VMs with I/O errors; a shared one is reported once."""
    pools: dict[str, Placed] = {}
    for host in known(facts):
        for pool in host.pools:
            key = pool.source if pool.type == SHARED_TYPE else f"{host.name}/{pool.name}"
            if pool.active and pool.capacity_bytes:
                pools.setdefault(key, (host, pool))
    low = [_low(*placed) for placed in pools.values() if _is_low(placed[1])]
    return low or ([ok("POOLS_HAVE_ROOM", "pools", "all active storage pools have room")] if pools else [])


def _is_low(pool: Pool) -> bool:
    return pool.available_bytes < pool.capacity_bytes * LOW_SHARE


def _low(host: HostFacts, pool: Pool) -> CheckResult:
    free, all_ = pool.available_bytes / 2**30, pool.capacity_bytes / 2**30
    message = f"pool {pool.name} of {host.name} has {free:.1f} GiB of {all_:.1f} GiB free"
    return warning("POOL_LOW", host.name, message, "VMs pause with I/O errors when it is full: free some, or extend it")
