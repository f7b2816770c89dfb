"""Mark the source, see to it that a VM that moves away does not come back by itself, and make room for its disks."""

from __future__ import annotations

from tasks.model.disks import DiskCopy, VolumeOrder
from tasks.model.domain import Mark
from tasks.model.errors import OperatorMustFix
from tasks.steps.run import StepRun
from tasks.steps.survey import describe_copy
from tasks.steps.verdict import Next, Verdict


def run(run: StepRun) -> Verdict:
    """Mark the source, clear its autostart, make the volumes of copied disks: each journaled before it happens."""
    run.interrupt_if_asked()
    view = run.hypervisor.find_domain(run.source, run.uuid)
    if view is None:
        raise OperatorMustFix(
            "VM_VANISHED", f"{run.record.vm} is no longer on {run.source}", "vmferry vms shows where it is"
        )
    mark = Mark(run.record.id, run.record.attempt, run.record.fence)
    run.effect("source_mark", run.source, "", lambda: run.hypervisor.write_mark(run.source, run.uuid, mark))
    run.interrupt_if_asked()
    if view.persistent:
        # A reboot of the source after the move, which is what emptying a host leads to, must not start a second copy.
        run.effect(
            "source_autostart",
            run.source,
            "1" if view.autostart else "0",
            lambda: run.hypervisor.set_autostart(run.source, run.uuid, enabled=False),
        )
    for copy in run.record.copies:
        run.interrupt_if_asked()
        _make_volume(run, copy)
    return Next()


def _make_volume(run: StepRun, copy: DiskCopy) -> None:
    """A new, empty volume under a name that only this attempt can have."""
    name = f"{copy.pool}/{copy.volume}"
    begun = run.intent("destination_volume", run.destination, name) is not None
    if not begun and run.hypervisor.find_volume(run.destination, copy.pool, copy.volume) is not None:
        # Before anything is journaled: rollback deletes what the journal names, and this is not ours.
        message = f"{run.destination}: pool {copy.pool} already has a volume {copy.volume}"
        raise OperatorMustFix("VOLUME_EXISTS", message, "nobody should have: look at it; nothing is overwritten")

    def make() -> None:
        if begun:  # an owner that died may have made it, or half of it, and nothing has been written to it since
            run.hypervisor.delete_volume(run.destination, copy.pool, copy.volume)
        # What is copied byte for byte brings its format along.
        format_, size = ("raw", copy.length_bytes) if copy.length_bytes else (copy.format, copy.capacity_bytes)
        made = run.hypervisor.create_volume(run.destination, VolumeOrder(copy.pool, copy.volume, format_, size))
        if (made.path, made.capacity_bytes) != (copy.path, size):
            message = f"the new volume is {made.path} with {made.capacity_bytes} bytes"
            hint = f"expected {copy.path} with {size}: was the pool changed meanwhile?"
            raise OperatorMustFix("VOLUME_UNFIT", message, hint)

    run.effect("destination_volume", run.destination, "", make, name=name, created=describe_copy(copy, run.destination))
