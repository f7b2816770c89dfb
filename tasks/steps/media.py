"""Media that are taken out of their drives on the source, and put back when the VM does not move."""

from __future__ import annotations

from functools import partial

from tasks.model.errors import OperatorMustFix
from tasks.model.remedies import Medium
from tasks.model.run import JournalEntry
from tasks.planning.medium import drive_of, medium_in, without_medium
from tasks.steps.run import StepRun

LIVE, CONFIG = "live", "config"


def eject_media(run: StepRun) -> None:
    """Empty the drives, of the running VM and of its definition: each is journaled with what was in it.

    Raises:
        OperatorMustFix: ``MEDIUM_HELD``.
    """
    for medium in run.record.remedied.ejected:
        for where in (LIVE, CONFIG):
            run.interrupt_if_asked()
            _eject(run, medium, where)


def _eject(run: StepRun, medium: Medium, where: str) -> None:
    """Exactly what preflight objected to: the running VM and its definition may hold different media."""
    drive = _drive(run, run.source, medium.target, where)
    if drive is None or medium_in(drive) != medium.source:
        return
    act = partial(run.hypervisor.update_drive, run.source, run.uuid, without_medium(drive), live=where == LIVE)
    try:
        run.effect("source_medium", run.source, drive, act, name=f"{medium.target}/{where}")
    except OperatorMustFix as error:
        message = f"{medium.target}: {medium.source} cannot be taken out: {error.message}"
        raise OperatorMustFix("MEDIUM_HELD", message, "let the guest unmount it, then retry") from None


def undo_medium(run: StepRun, entry: JournalEntry) -> None:
    """Put back what was in the drive, unless it is not empty any more."""
    target, _, where = entry.name.partition("/")
    drive = _drive(run, entry.host, target, where)
    if drive is not None and medium_in(drive) is None:
        run.hypervisor.update_drive(entry.host, run.uuid, entry.value, live=where == LIVE)


def _drive(run: StepRun, host: str, target: str, where: str) -> str | None:
    """The drive's element; None when the VM is not there in that form, or has no such drive."""
    view = run.hypervisor.find_domain(host, run.uuid)
    if view is None or not (view.active if where == LIVE else view.persistent):
        return None
    return drive_of(run.hypervisor.fetch_xml(host, run.uuid, inactive=where == CONFIG), target)
