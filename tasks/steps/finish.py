"""Let go of the source: the one step after which there is no way back."""

from __future__ import annotations

import logging
from functools import partial

from tasks.model.domain import DomainView
from tasks.model.errors import HypervisorError, OutcomeUnknown, RetryLater
from tasks.model.request import Method
from tasks.model.run import State
from tasks.planning.outcome import describe, is_ours
from tasks.steps.copying import find_changed
from tasks.steps.leftovers import clear_source
from tasks.steps.run import StepRun
from tasks.steps.saved import describe_loss, let_go_on, retire_images
from tasks.steps.shutdown import may_turn_back, start_there
from tasks.steps.snapshots import check_snapshots
from tasks.steps.verdict import Settle, Verdict
from tasks.steps.windows import close_windows

log = logging.getLogger(__name__)


def run(run: StepRun) -> Verdict:
    """Undefine the source, restore autostart on the destination, remove the marks."""
    # Cancelling a shut-off VM's move is accepted until this step's turn, and what was accepted is kept.
    run.interrupt_if_asked(cancellable=may_turn_back(run))
    source, destination = run.look()
    _check_still_moved(run, source, destination)
    _check_not_lost(run, source, destination)
    if source is not None:
        _check_unchanged(run)
    if run.method is Method.SAVED:
        if source is not None:
            retire_images(run)
        let_go_on(run)
    start_there(run)
    if source is not None:
        _undefine_source(run)
    else:
        # A transient VM has taken its definition along: that what comes next was begun is known by this entry.
        run.effect("source_undefine", run.source, "", lambda: None)
    clear_source(run)
    close_windows(run)
    autostart = run.intent("source_autostart")
    if autostart is not None and autostart.value == "1":
        run.effect(
            "destination_autostart",
            run.destination,
            "0",
            lambda: run.hypervisor.set_autostart(run.destination, run.uuid, enabled=True),
        )
        _check_autostart(run)
    _grow(run)
    run.lease.check()
    run.hypervisor.remove_mark(run.destination, run.uuid)
    return Settle(State.SUCCEEDED)


def _check_autostart(run: StepRun) -> None:
    """Read back, since nobody would notice before the next boot."""
    view = run.hypervisor.find_domain(run.destination, run.uuid)
    if view is not None and not view.autostart:
        run.save(left_to_do=(*run.record.left_to_do, f"start it at boot: virsh autostart {run.uuid}"))


def _grow(run: StepRun) -> None:
    """Disks that shall be larger than they were; the VM has moved, so that what does not work is left to a person."""
    for copy in run.record.copies:
        if not copy.grow_bytes:
            continue
        try:
            run.effect(
                "destination_resize",
                run.destination,
                "",
                partial(run.hypervisor.resize_disk, run.destination, run.uuid, copy.target, copy.path, copy.grow_bytes),
                name=copy.target,
            )
        except RetryLater:
            raise
        except HypervisorError as error:
            log.warning("%s of %s was not grown: %s", copy.target, run.record.vm, error)
            todo = (
                f"grow {copy.target}: virsh blockresize {run.uuid} {copy.target} {copy.grow_bytes}B ({error.message})"
            )
            run.save(left_to_do=(*run.record.left_to_do, todo))


def _check_still_moved(run: StepRun, source: DomainView | None, destination: DomainView | None) -> None:
    """A fresh look right before the irreversible effect; the mark may be gone when an earlier owner got that far."""
    undefined = run.intent("source_undefine")
    if source is None and destination is not None and (undefined is not None or is_ours(destination, run.record.id)):
        return
    if destination is not None and source is not None and not source.active and is_ours(destination, run.record.id):
        return
    seen = f"{describe(source, run.source)}; {describe(destination, run.destination)}"
    raise OutcomeUnknown("VERIFY_FAILED", f"the VM changed after it was verified: {seen}", "look at both hosts")


def _check_unchanged(run: StepRun) -> None:
    """The copy is as old as the source: else the source stays, and it is the VM."""
    if problems := find_changed(run):
        raise OutcomeUnknown("VERIFY_FAILED", "; ".join(problems), "find out who used it, then retry")


def _check_not_lost(run: StepRun, source: DomainView | None, destination: DomainView | None) -> None:
    """As long as the source has anything: the VM is still as it came, with its memory."""
    if source is None or destination is None or run.intent("source_undefine") is not None:
        return
    loss = describe_loss(run, destination)
    if loss is not None:
        message = f"the VM on {run.destination} {loss}: it changed after it was verified"
        raise OutcomeUnknown("VERIFY_FAILED", message, "look at both hosts")


def _undefine_source(run: StepRun) -> None:
    check_snapshots(run)
    undefine = partial(run.hypervisor.undefine, run.source, run.uuid, snapshots=True)
    run.effect("source_undefine", run.source, "", undefine)
    left = run.hypervisor.find_domain(run.source, run.uuid)
    if left is not None and left.active:
        message = f"the VM was started on {run.source} while its definition was being removed"
        raise OutcomeUnknown("VM_STARTED", message, "look at both hosts")
