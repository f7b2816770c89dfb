"""Rules about VMs that are paused."""

from __future__ import annotations

from tasks.model.domain import DomainState
from tasks.model.finding import Finding, blocker, info
from tasks.planning.preflight.registry import rule
from tasks.planning.situation import Situation

LEAVES_INACTIVE_ALONE = 10_000_000
"""First QEMU that is expected not to inactivate a disk twice."""


@rule(
    PAUSED_SINCE_START="The VM is paused and has not run since its QEMU was started: if it came by migration, it dies.",
    STAYS_PAUSED="The VM is paused, and stays so on the destination.",
)
def check_paused(s: Situation) -> list[Finding]:
    """A VM that arrives paused holds its disks inactive until it runs; QEMU before 10.0 dies when it is to let go of
    them again (observed with 7.2: "Assertion `!(bs->open_flags & BDRV_O_INACTIVE)' failed"). Whether it arrived or was
    started paused cannot be seen, only that it has not run yet."""
    if not s.live or s.view.state is not DomainState.PAUSED:
        return []
    stays = info("STAYS_PAUSED", f"{s.view.name} is paused on {s.source.name}, and stays so on {s.destination.name}")
    if not s.view.never_ran or not s.disks or s.source.hypervisor_version >= LEAVES_INACTIVE_ALONE:
        return [stays]
    message = (
        f"{s.view.name} is paused and has not run since its QEMU was started on {s.source.name}: "
        "if it came there by a migration, moving it again ends it, and what it had in memory is lost"
    )
    hint = f"let it run for a moment: virsh resume {s.view.uuid}, virsh suspend {s.view.uuid}; if it was started there "
    return [blocker("PAUSED_SINCE_START", message, hint + "(virsh start --paused): --accept PAUSED_SINCE_START"), stays]
