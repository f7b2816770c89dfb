"""Rules about network file systems that disks stay on, and the pools that the destination needs for them."""

from __future__ import annotations

from tasks.model.finding import Finding, info, warning
from tasks.model.pools import Mount, PoolAction
from tasks.planning import mounts
from tasks.planning.copies import copied_disks
from tasks.planning.preflight.registry import blocker_if, rule
from tasks.planning.sharing import mount_of
from tasks.planning.situation import Situation


@rule(
    POOL_MADE="The destination gets a pool like the source's, which a disk lies on.",
    POOL_STARTED="A pool of the destination is started, since a disk lies on it.",
    **mounts.CODES,
)
def check_mounts(s: Situation) -> list[Finding]:
    """What prepare can see to is planned; a pool that is there is never changed."""
    planned = [_planned(s, mount) for mount in s.mounts if mount.action is not PoolAction.NONE]
    return planned + [blocker_if(needed, c.code, c.message, c.hint) for c, needed in mounts.clashes_of(s)]


LOCAL_LOCKS = "locks hold on one host only, so that nothing stops a second QEMU from writing to an image"
RISKS = {
    "soft": "an outage of the server becomes an I/O error of the guest",
    "softerr": "an outage of the server becomes an I/O error of the guest",
    "nolock": LOCAL_LOCKS,
    "local_lock=all": LOCAL_LOCKS,
    "local_lock=posix": LOCAL_LOCKS,
    "local_lock=flock": LOCAL_LOCKS,
    "ro": "nothing can be written there",
}
"""Options of a mount (nfs(5)) that a disk of a VM should not have."""


@rule(
    MOUNT_OPTIONS_RISKY="A pool that a disk stays on is mounted with an option that is a risk for disks of VMs.",
)
def check_mount_options(s: Situation) -> list[Finding]:
    """Only what the pool's definition names is seen; how the server exports it, libvirt does not say."""
    staying = [d.source for d in s.disks if d.source and d.type == "file" and d not in copied_disks(s)]
    seen = {(host.name, p) for path in staying for host in (s.source, s.destination) if (p := mount_of(path, host))}
    return [
        warning(
            "MOUNT_OPTIONS_RISKY",
            f"pool {pool.name} of {host} is mounted with the option {option}: {RISKS[option]}",
            f"take it out of the pool's definition, when no VM uses it: virsh pool-edit {pool.name}",
        )
        for host, pool in sorted(seen, key=lambda found: (found[0], found[1].name))
        for option in dict.fromkeys(part for options in pool.options for part in options.split(","))
        if option in RISKS
    ]


def _planned(s: Situation, mount: Mount) -> Finding:
    what = f"pool {mount.destination_pool}, {mount.export} at {mount.target}"
    if mount.action is PoolAction.START:
        return info("POOL_STARTED", f"{what}, is not active on {s.destination.name} and is started")
    return info("POOL_MADE", f"{what}, is made on {s.destination.name} as it is on {s.source.name}")
