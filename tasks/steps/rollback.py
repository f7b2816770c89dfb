"""Read both hosts, then undo in reverse order what the journal says was done; or go forward when the VM has moved."""

from __future__ import annotations

import logging
from collections.abc import Callable

from tasks.model.domain import DomainView
from tasks.model.errors import HypervisorError, OperatorMustFix, RetryLater
from tasks.model.run import ErrorInfo, JournalEntry, State
from tasks.planning.outcome import Outcome, describe, in_post_copy, is_ours
from tasks.planning.volume_name import parse_volume_mark
from tasks.steps.converging import undo_pause
from tasks.steps.devices import release_device
from tasks.steps.directories import undo_probe
from tasks.steps.live import SETTLING, watch
from tasks.steps.media import undo_medium
from tasks.steps.mounts import undo_pool, undo_pool_start, undo_proof
from tasks.steps.networks import undo_network, undo_network_start
from tasks.steps.paused import STARTED, has_run, undo_arrival, undo_start
from tasks.steps.post_copy import tell_post_copy
from tasks.steps.run import StepRun
from tasks.steps.saved import settle_saved, undo_save
from tasks.steps.shutdown import settle_outcome, undo_shut_down
from tasks.steps.tpm import undo_tpm, undo_tpm_state
from tasks.steps.verdict import Forward, Settle, Verdict
from tasks.steps.windows import close_window, end_window, reopen_windows

log = logging.getLogger(__name__)

MOST_FORWARDS = 3
"""What goes wrong after the VM has moved, again and again, is for a person to see to."""
NOT_FORWARD = frozenset({"VERIFY_FAILED", STARTED, "START_FAILED", "NOT_OURS_TO_END"})
"""Errors of a VM that has moved and is not as it should be: going on would only remove the evidence."""


def run(run: StepRun) -> Verdict:
    """Decide from what both hosts show; nothing is ever guessed."""
    run.interrupt_if_asked(cancellable=False)
    if not run.record.journal:
        return _settled(run)
    outcome = _help_on(run) if run.record.post_copy_begun else _settled_outcome(run)
    if outcome in SETTLING and not run.record.post_copy_begun:
        outcome = _stop_transfer(run)
    if outcome is Outcome.SOURCE_PAUSED:
        outcome = _resume_source(run)
    if outcome is Outcome.AT_SOURCE or (outcome is Outcome.ARRIVED and _can_go_back(run)):
        return _undo_all(run)
    if outcome is Outcome.MOVED and not _suspicious(run) and run.record.forwards < MOST_FORWARDS:
        tell_post_copy(run)
        return Forward()
    return _needs_attention(run, outcome)


def _settled_outcome(run: StepRun) -> Outcome:
    """What both hosts show, and what the journal adds about a VM that is off on both."""
    return settle_saved(run, settle_outcome(run, run.outcome()))


def _can_go_back(run: StepRun) -> bool:
    """What has arrived paused, and never ran on either host, is not needed: its source is as it was."""
    _, destination = run.look()
    ran = run.record.error is not None and run.record.error.code == STARTED
    return not ran and destination is not None and not (destination.active and has_run(destination))


def _suspicious(run: StepRun) -> bool:
    return run.record.error is not None and run.record.error.code in NOT_FORWARD


def _stop_transfer(run: StepRun) -> Outcome:
    """Abort the job, on the source only, and watch until both hosts show how it ended.

    Not in post-copy: neither host alone has the whole VM, so that it is helped on.
    """
    source, _ = run.look()
    if source is not None and in_post_copy(source):
        return watch(run, cancellable=False, post_copy=True)
    if run.intent("transfer") is not None:
        run.lease.check()
        try:
            run.hypervisor.abort_job(run.source, run.uuid)
        except RetryLater as error:
            log.info("abort not heard yet: %s", error)
    return watch(run, cancellable=False)


def _help_on(run: StepRun) -> Outcome:
    """In post-copy: watch, and help, until both hosts show how it ended, or that a person has to see to it."""
    run.hypervisor.find_domain(run.source, run.uuid)  # for a host that cannot be asked the workflow waits, not for ever
    return watch(run, cancellable=False, post_copy=True)


def _resume_source(run: StepRun) -> Outcome:
    """The source was left paused by libvirt; both hosts were just read: the destination has nothing active."""
    source, destination = run.look()
    if destination is not None and destination.active:
        return Outcome.UNCLEAR
    if source is not None and source.active:
        run.lease.check()
        run.hypervisor.resume(run.source, run.uuid)
    return run.outcome()


def _undo_all(run: StepRun) -> Verdict:
    """Every effect in reverse; a failed undo is logged and the rest go on."""
    failures = []
    for entry in reversed(run.record.journal):
        if entry.undone:
            continue
        run.lease.check()
        try:
            UNDO[entry.kind](run, entry)
        except RetryLater:
            raise
        except HypervisorError as error:
            log.warning("could not undo %s on %s: %s", entry.kind, entry.host, error)
            what = f"{entry.kind} {entry.name}".rstrip()
            failures.append(f"{what} on {entry.host}: {error.message}" + (f" ({error.hint})" if error.hint else ""))
        else:
            run.mark_undone(entry)
    if failures:
        message = f"the VM is on {run.source}, but not everything could be undone: {'; '.join(failures)}"
        hint = f"see to what is said there, then: vmferry retry {run.record.id}"
        return Settle(State.NEEDS_ATTENTION, ErrorInfo(code="UNDO_FAILED", message=message, hint=hint))
    return _settled(run)


def _undo_definition(run: StepRun, entry: JournalEntry) -> None:
    """Remove only what bears this migration's mark and is not active."""
    view = run.hypervisor.find_domain(entry.host, run.uuid)
    if view is not None and is_ours(view, run.record.id) and not view.active:
        run.hypervisor.undefine(entry.host, run.uuid, snapshots=True)


def _undo_transfer(run: StepRun, entry: JournalEntry) -> None:
    (undo_arrival if run.record.mirrored_off else _undo_definition)(run, entry)


def _undo_volume(run: StepRun, entry: JournalEntry) -> None:
    """Delete the volume that the journal names; its name says whose it is, and nothing else may ever bear it."""
    pool, _, volume = entry.name.partition("/")
    mark = parse_volume_mark(volume)
    if mark is None or mark.id != run.record.id:
        message = f"{entry.name} does not bear the mark of {run.record.id}"
        raise OperatorMustFix("NOT_OURS", message, "this is a bug: report it")
    view = run.hypervisor.find_domain(entry.host, run.uuid)
    if view is not None and view.active:
        raise OperatorMustFix("VOLUME_IN_USE", f"{run.record.vm} is active on {entry.host}", "look at both hosts")
    reopen_windows(run, pool)
    run.hypervisor.delete_volume(entry.host, pool, volume)


def _undo_autostart(run: StepRun, entry: JournalEntry) -> None:
    if entry.value == "1" and run.hypervisor.find_domain(entry.host, run.uuid) is not None:
        run.hypervisor.set_autostart(entry.host, run.uuid, enabled=True)


def _undo_mark(run: StepRun, entry: JournalEntry) -> None:
    view = run.hypervisor.find_domain(entry.host, run.uuid)
    if view is not None and is_ours(view, run.record.id):
        run.hypervisor.remove_mark(entry.host, run.uuid)


def _nothing(run: StepRun, entry: JournalEntry) -> None:
    """It goes with something else, or the source definition is still there, or rollback would not have come here: a
    VM that runs at the source alone was not switched to post-copy, whatever was intended."""


UNDO: dict[str, Callable[[StepRun, JournalEntry], None]] = {
    "source_mark": _undo_mark,
    "source_autostart": _undo_autostart,
    "source_save": undo_save,
    "source_shut_down": undo_shut_down,
    "window": close_window,
    "window_close": end_window,
    "destination_device": release_device,
    "probe": undo_probe,
    "source_pause": undo_pause,
    "post_copy": _nothing,
    "destination_tpm": undo_tpm,
    "destination_tpm_state": undo_tpm_state,
    "destination_pool": undo_pool,
    "destination_pool_start": undo_pool_start,
    "proof_volume": undo_proof,
    "source_medium": undo_medium,
    "destination_network": undo_network,
    "destination_network_start": undo_network_start,
    "destination_volume": _undo_volume,
    "destination_definition": _undo_definition,
    "source_start": undo_start,
    "transfer": _undo_transfer,
    "destination_end": _nothing,
    "destination_snapshot": _nothing,
    "destination_restore": _nothing,
    "destination_start": _nothing,
    "source_save_remove": _nothing,
    "destination_resume": _nothing,
    "source_undefine": _nothing,
    "destination_autostart": _nothing,
    "destination_resize": _nothing,
    "source_file": _nothing,
}


def _settled(run: StepRun) -> Settle:
    if run.record.cancel_requested or run.lease.cancel_requested:
        error = ErrorInfo(code="CANCELLED", message="cancelled on request; the VM is where it was")
        return Settle(State.CANCELLED, error)
    undone = ErrorInfo(code="ROLLED_BACK", message="the VM is where it was", hint=f"vmferry retry {run.record.id}")
    return Settle(State.FAILED, run.record.error or undone)


def _needs_attention(run: StepRun, outcome: Outcome) -> Settle:
    if outcome is Outcome.IN_PROGRESS and run.record.post_copy_begun:
        return _stands_still(run)
    source, destination = run.look()
    cause = f"; first error: {run.record.error.message}" if run.record.error else ""
    message = f"{_WORDS.get(outcome, outcome.value)}: {_seen(run, source, destination)}{cause}"
    hint = _what_to_type(run, outcome, destination)
    return Settle(
        State.NEEDS_ATTENTION, ErrorInfo(code=f"NEEDS_ATTENTION_{outcome.upper()}", message=message, hint=hint)
    )


def _stands_still(run: StepRun) -> Settle:
    """In post-copy only a person can do more: see to the link, or to the hosts."""
    here, there, forward = run.source, run.destination, run.record.converging.forward
    said = f"; libvirt says: {forward.message}" if forward.message else ""
    seen = f"{_seen_on(run, here)}; {_seen_on(run, there)}"
    message = f"{run.record.vm} stands still in post-copy, with a part of its memory on each host ({seen})"
    message += f"; tries to resume it: {forward.tries}{said}"
    hint = f"never destroy it on either host; see to the link between {here} and {there}, then "
    hint += f"'vmferry retry {run.record.id}' helps it on"
    return Settle(State.NEEDS_ATTENTION, ErrorInfo(code="NEEDS_ATTENTION_POST_COPY", message=message, hint=hint))


def _seen_on(run: StepRun, host: str) -> str:
    try:
        return describe(run.hypervisor.find_domain(host, run.uuid), host)
    except RetryLater as error:
        return f"{host}: {error.message}"


_WORDS = {
    Outcome.BOTH_RUNNING: "the VM is active on both hosts",
    Outcome.NOWHERE: "neither host has the VM",
    Outcome.UNCLEAR: "both hosts have the VM shut off and nothing says which copy is newer",
    Outcome.ARRIVED: "the VM was let run while it was moved, and stands paused on the destination",
    Outcome.INCOMPLETE: "a host was lost in post-copy, and with it the part of the VM's memory that it had",
    Outcome.UNSETTLED: "the switch-over is half done",
    Outcome.MOVED: "the VM has moved, but is not as it should be, or what is left to do does not work",
}


def _seen(run: StepRun, source: DomainView | None, destination: DomainView | None) -> str:
    return f"{describe(source, run.source)}; {describe(destination, run.destination)}"


def _what_to_type(run: StepRun, outcome: Outcome, destination: DomainView | None) -> str:
    look = f"compare 'virsh dominfo {run.uuid}' and 'virsh domjobinfo {run.uuid}' on {run.source} and {run.destination}"
    again = f"then 'vmferry retry {run.record.id}' reads both hosts again"
    if outcome is Outcome.BOTH_RUNNING:
        return f"{look}; 'virsh destroy' the copy that must not run, {again}"
    if outcome is Outcome.INCOMPLETE:
        # Its guest ran on the destination last, and disks that are copied have gone there with it.
        where = run.destination if run.record.copies else f"{run.destination} (or {run.source}, if that host is lost)"
        start = f"'virsh destroy {run.uuid}' what is left of it, then 'virsh start {run.uuid}' on {where}"
        return f"what was in its memory alone is lost, its disks are not: {start}; it boots anew, {again}"
    if outcome is Outcome.UNCLEAR:
        return f"{look}; 'virsh start {run.uuid}' where its disks are newer, {again}"
    if outcome is Outcome.MOVED and run.method.carries_memory and destination is not None and not destination.active:
        return f"{look}; 'virsh start {run.uuid}' on {run.destination}, {again}"
    return f"{look}; {again}"
