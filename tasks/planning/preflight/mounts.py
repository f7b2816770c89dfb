"""Rules about network file systems that disks stay on, and the pools that the destination needs for them."""

from __future__ import annotations

from tasks.model.finding import Finding, info
from tasks.model.pools import Mount, PoolAction
from tasks.planning import mounts
from tasks.planning.preflight.registry import blocker_if, rule
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


def _planned(s: Situation, mount: Mount) -> Finding:
    what = f"pool {mount.destination_pool}, {mount.export} at {mount.target}"
    if mount.action is PoolAction.START:
        return info("POOL_STARTED", f"{what}, is not active on {s.destination.name} and is started")
    return info("POOL_MADE", f"{what}, is made on {s.destination.name} as it is on {s.source.name}")
