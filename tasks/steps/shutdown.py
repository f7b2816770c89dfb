"""A VM that is shut down to be moved, because the request allows it, and started again where it is then.

The guest is asked, by its agent or by the power button, and given time; nobody ever pulls its plug. What was decided
while it ran is decided anew when it is off. It is started on the destination before the source lets go of it, so that
one that does not start there goes back to where it ran.
"""

from __future__ import annotations

from functools import partial

from tasks.model.domain import DomainView
from tasks.model.errors import InvalidRequest, OperatorMustFix, OutcomeUnknown
from tasks.model.finding import Severity
from tasks.model.request import Method
from tasks.model.run import JournalEntry
from tasks.planning.outcome import Outcome, describe, is_ours
from tasks.steps.run import StepRun
from tasks.steps.survey import decisions, survey
from tasks.steps.verdict import Waits

LOOK_S = 0.5
ASK_AGAIN_S = 10.0
"""A guest that is just booting hears nothing yet; nova's ``shutdown_retry_interval`` has the same default."""
HAS_RUN = frozenset({1, 2, 3})
"""virDomainShutoffReason: shut down, destroyed, crashed."""


def shut_down(run: StepRun) -> None:
    """Ask it, wait, and decide anew; nothing to do when that was done, or is not allowed.

    Raises:
        OperatorMustFix: ``SHUT_DOWN_TIMEOUT``, ``VM_VANISHED``, or what preflight says of the VM that is off.
    """
    if run.method is not Method.OFFLINE or run.record.request.shut_down != "allowed":
        return
    view = _at_source(run)
    if view.active or run.intent("source_shut_down") is not None:
        run.effect("source_shut_down", run.source, "", partial(_ask, run))
        _wait_until_off(run)
    if not run.record.decided_off:
        _decide_anew(run)


def _at_source(run: StepRun) -> DomainView:
    view = run.hypervisor.find_domain(run.source, run.uuid)
    if view is None:
        message = f"{run.record.vm} is no longer on {run.source}"
        raise OperatorMustFix("VM_VANISHED", message, "vmferry vms shows where it is")
    return view


def _ask(run: StepRun) -> None:
    if _at_source(run).active:  # else an earlier owner has asked
        run.hypervisor.shut_down(run.source, run.uuid)


def _wait_until_off(run: StepRun) -> None:
    asked = run.intent("source_shut_down")
    now = run.store.now()
    until, again = (now if asked is None else asked.at) + run.policy.shut_down_timeout_s, now + ASK_AGAIN_S
    while _at_source(run).active:
        run.interrupt_if_asked()
        if run.record.waiting_for is None:
            run.save(waiting_for="its guest was asked to shut down")
        now = run.store.now()
        if now > until:
            seconds = f"{run.policy.shut_down_timeout_s:.0f} s"
            message = f"{run.record.vm} was asked to shut down and still runs after {seconds}"
            hint = "it may still do so, and stays off then: look at its console; policies have shut_down_timeout_s"
            raise OperatorMustFix("SHUT_DOWN_TIMEOUT", message, hint)
        if now > again:
            run.lease.check()
            _ask(run)
            again = now + ASK_AGAIN_S
        run.stopping.wait(LOOK_S)


def _decide_anew(run: StepRun) -> None:
    """Its files stopped changing, and what only the images say can be read now."""
    request = run.record.request.model_copy(update={"source": run.source})
    try:
        plan = survey(run.hypervisor, run.hosts, request, mark=run.mark, cordon=run.cordon_of(run.destination))
    except InvalidRequest as error:
        raise OperatorMustFix(error.code, error.message, error.hint) from None
    if not plan.allowed:
        first = next(finding for finding in plan.findings if finding.severity is Severity.BLOCKER)
        raise OperatorMustFix(first.code, f"now that it is shut off: {first.message}", first.hint)
    run.save(decided_off=True, waiting_for=None, findings=plan.findings, **decisions(plan))


def was_shut_down(run: StepRun) -> bool:
    """Whether it ran, so that it has to run in the end."""
    return run.intent("source_shut_down") is not None


def may_turn_back(run: StepRun) -> bool:
    """Whether nothing of a VM that is moved shut off has been started, or let go of."""
    begun = run.intent("destination_start") or run.intent("source_undefine")
    return run.method is Method.OFFLINE and begun is None


def start_there(run: StepRun) -> None:
    """Let it run on the destination, before the source lets go of it.

    Raises:
        OutcomeUnknown: ``START_FAILED``: it has run there, and does not any more.
    """
    if not was_shut_down(run):
        return
    run.effect("destination_start", run.destination, "", partial(_start, run))
    view = run.hypervisor.find_domain(run.destination, run.uuid)
    if view is None or not view.active:
        message = (
            f"{run.record.vm} was started on {run.destination} and does not run: {describe(view, run.destination)}"
        )
        raise OutcomeUnknown("START_FAILED", message, f"look at its console there, start it, then: {_retry(run)}")


def _start(run: StepRun) -> None:
    source, destination = run.look()
    if source is not None and source.active:
        message = f"{run.record.vm} was started meanwhile: {describe(source, run.source)}"
        raise OperatorMustFix("VM_STARTED", message, "look at both hosts")
    if destination is None or not destination.active:
        run.hypervisor.start(run.destination, run.uuid)


def settle_outcome(run: StepRun, outcome: Outcome) -> Outcome:
    """A VM that has run on the destination is there, also when it is off again: its disks have gone on there."""
    entry = run.intent("destination_start")
    if entry is None or outcome is not Outcome.AT_SOURCE:
        return outcome
    source, destination = run.look()
    if (source is not None and source.active) or not is_ours(destination, run.record.id):
        return outcome
    ran = destination is not None and destination.reason in HAS_RUN
    return Outcome.MOVED if entry.done or ran else outcome


def undo_shut_down(run: StepRun, entry: JournalEntry) -> None:
    """It ran when it was asked, and runs again.

    What a guest was asked cannot be taken back: for as long as it was given it may still go off, and would stay so.

    Raises:
        OperatorMustFix: ``VM_STARTED``: it is active on the destination.
        Waits: it still runs, and may still shut down.
    """
    destination = run.hypervisor.find_domain(run.destination, run.uuid)
    if destination is not None and destination.active:
        message = f"{run.record.vm} is active on {run.destination}"
        raise OperatorMustFix("VM_STARTED", message, "look at both hosts")
    source = run.hypervisor.find_domain(entry.host, run.uuid)
    if source is not None and not source.active:
        run.hypervisor.start(entry.host, run.uuid)
    elif source is not None and run.store.now() < entry.at + run.policy.shut_down_timeout_s:
        raise Waits("its guest was asked to shut down before, and is started again if it does")


def _retry(run: StepRun) -> str:
    return f"vmferry retry {run.record.id}"
