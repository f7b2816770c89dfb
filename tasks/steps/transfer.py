"""Move the VM: attach to what is already under way, or start it."""

from __future__ import annotations

from tasks.model.domain import DomainView
from tasks.model.errors import OperatorMustFix, OutcomeUnknown
from tasks.model.request import Method
from tasks.planning.outcome import Outcome, describe, is_ours
from tasks.steps.copying import copy_files
from tasks.steps.definition import define_on_destination
from tasks.steps.live import SETTLING, start_and_watch, watch
from tasks.steps.paused import STARTED, end_arrived, note_sources, start_paused
from tasks.steps.post_copy import tell_post_copy
from tasks.steps.run import StepRun
from tasks.steps.saved import move_saved
from tasks.steps.snapshots import take_snapshots_along
from tasks.steps.verdict import Next, Verdict
from tasks.steps.volumes import make_overlays


def run(run: StepRun) -> Verdict:
    """Look at both hosts, then do what is left to do."""
    run.interrupt_if_asked()
    if run.record.mirrored_off:
        return _mirror(run)
    if run.method is Method.OFFLINE:
        return _move_definition(run)
    if run.method is Method.SAVED:
        move_saved(run)
        return Next()
    outcome = run.outcome()
    if outcome is Outcome.AT_SOURCE:
        _check_still_running(run)
        copy_files(run)
        make_overlays(run)
        outcome = start_and_watch(run)
    elif outcome in SETTLING:
        outcome = watch(run)
    if outcome is Outcome.MOVED:
        tell_post_copy(run)
        return Next()
    raise _not_moved(run, outcome)


def _check_still_running(run: StepRun) -> None:
    view = run.hypervisor.find_domain(run.source, run.uuid)
    if view is None or not view.active:
        message = f"{run.record.vm} stopped on {run.source} before the transfer began"
        raise OperatorMustFix("VM_STOPPED", message, "retry: it can be moved shut off")


def _not_moved(run: StepRun, outcome: Outcome) -> Exception:
    source, destination = run.look()
    seen = f"{describe(source, run.source)}; {describe(destination, run.destination)}"
    if run.record.error is not None:
        return OutcomeUnknown(run.record.error.code, run.record.error.message, run.record.error.hint)
    return OutcomeUnknown("TRANSFER_FAILED", f"the VM did not move ({outcome}): {seen}", "vmferry retry tries again")


def _mirror(run: StepRun) -> Verdict:
    """Offline, host to host: started paused, moved as it is, ended there; nothing ever runs."""
    outcome = run.outcome()
    if outcome is Outcome.AT_SOURCE:
        source, destination = run.look()
        if is_ours(destination, run.record.id):
            return Next()  # an earlier owner has ended it there
        if run.intent("source_start", run.source) is None:
            _check_shut_off(run, source)
            copy_files(run)
            note_sources(run)
        start_paused(run)
        outcome = start_and_watch(run)
    elif outcome in SETTLING:
        outcome = watch(run)
    if outcome is not Outcome.ARRIVED or (run.record.error is not None and run.record.error.code == STARTED):
        raise _not_moved(run, outcome)
    end_arrived(run)
    return Next()


def _check_shut_off(run: StepRun, source: DomainView | None) -> None:
    if source is None or source.active:
        message = f"{run.record.vm} is no longer shut off on {run.source}: {describe(source, run.source)}"
        raise OperatorMustFix(STARTED, message, "retry: it can be moved live")


def _move_definition(run: StepRun) -> Verdict:
    """Offline: the disks that must be copied, then the definition; nothing can start the VM there before."""
    source, destination = run.look()
    if is_ours(destination, run.record.id):
        take_snapshots_along(run)
        return Next()
    _check_shut_off(run, source)
    copy_files(run)
    define_on_destination(run)
    take_snapshots_along(run)
    return Next()
