"""A VM that is shut off, and is started paused so that libvirt can mirror its disks to the other host.

Its CPUs never run. What is started bears a mark of its own, which nothing but this start can have given it: the running
instance's, while the definition keeps the one from *prepare*. Only an instance with that mark, of which no CPU has ever
run, is ever ended; one that somebody has let run is that person's.
"""

from __future__ import annotations

from tasks.model.domain import DomainState, DomainView, Mark
from tasks.model.errors import OperatorMustFix, OutcomeUnknown
from tasks.model.run import ErrorInfo, JournalEntry
from tasks.planning.mark_xml import with_mark
from tasks.planning.outcome import describe, is_ours, paused_by_migration
from tasks.steps.run import StepRun

STARTED = "VM_STARTED"
"""Somebody has started or resumed the VM meanwhile."""


def note_sources(run: StepRun) -> None:
    """When the images were last written to, right before they are opened: nobody else may write to them later."""
    copies = []
    for copy in run.record.copies:
        found = run.hypervisor.find_volume_at(run.source, copy.source_path)
        if found is None:
            raise OperatorMustFix("SOURCE_CHANGED", f"{copy.source_path} is gone from {run.source}", "look for it")
        copies.append(copy.model_copy(update={"modified": found.modified}))
    run.save(copies=tuple(copies))


def start_paused(run: StepRun) -> None:
    """Start it on the source, unless an earlier owner has.

    Raises:
        OperatorMustFix: ``VM_STARTED``, ``VM_STOPPED``.
    """
    earlier = run.intent("source_start", run.source)
    mark = run.mark if earlier is None else _mark_of(run, earlier)

    def start() -> None:
        view = run.hypervisor.find_domain(run.source, run.uuid)
        if view is not None and not view.active:
            xml = run.hypervisor.fetch_xml(run.source, run.uuid, inactive=True, secure=True)
            run.hypervisor.start_paused(run.source, with_mark(xml, mark))

    words = f"paused instance of {run.record.vm} on {run.source}"
    run.effect("source_start", run.source, f"{mark.attempt}.{mark.fence}", start, created=words)
    view = run.hypervisor.find_domain(run.source, run.uuid)
    if view is None or not view.active:
        message = f"{run.record.vm} was started, paused, and is not active any more: {describe(view, run.source)}"
        raise OperatorMustFix("VM_STOPPED", message, "find out who ended it, then retry")
    if has_run(view) or view.instance_mark != mark:
        raise OperatorMustFix(STARTED, _resumed(run, view), "retry: it can be moved live")


def refuse_running(run: StepRun) -> None:
    """One look at the source while it is migrated: whoever has let it run has made it another VM than was meant.

    libvirt (seen with 9.0) lets nobody resume a domain that is being migrated, so that this is about the moment before.
    """
    view = run.hypervisor.find_domain(run.source, run.uuid)
    if view is None or not view.active or not has_run(view) or run.record.error is not None:
        return
    error = ErrorInfo(code=STARTED, message=_resumed(run, view), hint="retry: it can be moved live")
    run.save(error=error)
    run.lease.check()
    run.hypervisor.abort_job(run.source, run.uuid)


def end_arrived(run: StepRun) -> None:
    """End the instance that has arrived: the VM is shut off, as it was.

    Raises:
        OutcomeUnknown: ``VM_STARTED``.
    """
    run.interrupt_if_asked()

    def end() -> None:
        source, destination = run.look()
        if source is None or source.active or destination is None:
            message = f"{describe(source, run.source)}; {describe(destination, run.destination)}"
            raise OutcomeUnknown(STARTED, f"{run.record.vm} changed when it had arrived: {message}", "look at both")
        end_instance(run, run.destination, destination)

    run.effect("destination_end", run.destination, "", end)
    view = run.hypervisor.find_domain(run.destination, run.uuid)
    if view is None or view.active:
        message = f"{run.record.vm} was ended and is not shut off: {describe(view, run.destination)}"
        raise OutcomeUnknown(STARTED, message, "find out who started it")


def end_instance(run: StepRun, host: str, view: DomainView) -> None:
    """End what this migration brought to the destination; the host's own last look is right before."""
    if not view.active:
        return
    mark = view.instance_mark
    if not is_ours(view, run.record.id) or mark is None or mark.id != run.record.id:
        message = f"{host}: {run.record.vm} is active, and not what was moved there: {describe(view, host)}"
        raise OperatorMustFix("NOT_OURS_TO_END", message, "look at both hosts")
    run.lease.check()
    run.hypervisor.end_paused(host, run.uuid, mark)


def undo_start(run: StepRun, entry: JournalEntry) -> None:
    """End the instance on the source; one that somebody has let run stays, and the record says so."""
    view = run.hypervisor.find_domain(entry.host, run.uuid)
    if view is None or not view.active:
        return
    if paused_by_migration(view):
        message = f"{run.record.vm} is still held by a migration: {describe(view, entry.host)}"
        raise OperatorMustFix("NOT_OURS_TO_END", message, f"virsh domjobinfo {run.uuid} on {entry.host}")
    mark = _mark_of(run, entry)
    if has_run(view) or view.instance_mark != mark:
        words = f"{run.record.vm} is active on {entry.host}, since somebody has started or resumed it: left alone"
        run.save(kept=(*(kept for kept in run.record.kept if kept != words), words))
        return
    run.lease.check()
    run.hypervisor.end_paused(entry.host, run.uuid, mark)


def undo_arrival(run: StepRun, entry: JournalEntry) -> None:
    """End what has arrived, and remove the definition that came with it."""
    view = run.hypervisor.find_domain(entry.host, run.uuid)
    if view is None or not is_ours(view, run.record.id):
        return
    end_instance(run, entry.host, view)
    run.hypervisor.undefine(entry.host, run.uuid, snapshots=True)


def has_run(view: DomainView) -> bool:
    """Whether somebody has let it run. Of one that a migration holds, nobody can have."""
    return view.state is not DomainState.PAUSED or not (view.never_ran or paused_by_migration(view))


def _mark_of(run: StepRun, entry: JournalEntry) -> Mark:
    attempt, _, fence = entry.value.partition(".")
    return Mark(run.record.id, int(attempt), int(fence))


def _resumed(run: StepRun, view: DomainView) -> str:
    return f"somebody has started or resumed {run.record.vm} meanwhile: {describe(view, run.source)}"
