"""How a migration goes from step to step: claim, run, hand over; fail and roll back; all of it through the record.

The run record is the truth and a Celery message only a wake-up: whatever is lost, late or delivered twice, a step runs
when the record says that it is its turn, and only for the one who holds the lease.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from enum import Enum
from typing import Any

from tasks.model.errors import LimitReached, RetryLater, StaleOwner, StoreUnavailable, VmferryError
from tasks.model.run import ErrorInfo, Progress, RunRecord, State, StepName, StepTiming
from tasks.steps import finish, preflight, prepare, rollback, transfer, verify
from tasks.steps.lease import Lease
from tasks.steps.run import Limits, StepRun
from tasks.steps.survey import STEPS
from tasks.steps.verdict import CancelRequested, Detached, Forward, LeaseLost, Next, Requeue, Settle, Verdict, Waits
from tasks.workflow.dispatch import dispatch, lock_of, settle, why_waits
from tasks.workflow.links import pools_used, route_of
from tasks.workflow.policies import policy_of
from tasks.workflow.runtime import Runtime

log = logging.getLogger(__name__)

RUN: dict[StepName, Callable[[StepRun], Verdict]] = {
    StepName.PREFLIGHT: preflight.run,
    StepName.PREPARE: prepare.run,
    StepName.TRANSFER: transfer.run,
    StepName.VERIFY: verify.run,
    StepName.FINISH: finish.run,
    StepName.ROLLBACK: rollback.run,
}

STATE_OF: dict[StepName, State] = {
    StepName.PREFLIGHT: State.CHECKING,
    StepName.PREPARE: State.PREPARING,
    StepName.TRANSFER: State.TRANSFERRING,
    StepName.VERIFY: State.VERIFYING,
    StepName.FINISH: State.FINISHING,
    StepName.ROLLBACK: State.ROLLING_BACK,
}

MAX_TRIES = 3
"""How often a step is put off because of a passing fault before the migration is rolled back."""
RETRY_DELAY_S = 2.0


class Handled(Enum):
    """What became of a step's message."""

    ADVANCED = "advanced"
    """Done; Celery sends the next one of the chain."""
    CUT = "cut"
    """The rest of this chain must not be sent; nothing went wrong."""
    FAILED = "failed"
    """The step failed; rollback has been sent. The rest of this chain must not be sent."""


Report = Callable[[Progress], None]


def run_step(runtime: Runtime, name: StepName, run_id: str, attempt: int, report: Report = lambda _: None) -> Handled:
    """Run one step if it is its turn and nobody else is at it; ``report`` is told how far a transfer is."""
    owner = f"{runtime.owner}.{uuid.uuid4().hex[:8]}"
    record = runtime.store.claim(run_id, attempt=attempt, step=name, owner=owner, lease_s=runtime.settings.lease_s)
    if record is None:
        log.info("%s.%s %s: not its turn, or taken", run_id, attempt, name)
        return Handled.CUT
    with Lease(runtime.store, record, runtime.settings.lease_s) as lease:
        run = _step_run(runtime, record, lease)
        run.report = report
        try:
            return _run_owned(runtime, run, name)
        except (StaleOwner, LeaseLost, StoreUnavailable) as lost:
            # Without the record nothing may be done; whoever may act finds it through the record later.
            log.warning("%s.%s %s: stopped: %s", run_id, attempt, name, lost)
            return Handled.CUT


def _run_owned(runtime: Runtime, run: StepRun, name: StepName) -> Handled:
    _start_timing(run, name)
    try:
        verdict = RUN[name](run)
    except (StaleOwner, LeaseLost, StoreUnavailable):
        raise
    except Detached:
        return _detach(runtime, run)
    except CancelRequested:
        return _fail(runtime, run, ErrorInfo(code="CANCELLED", message="cancelled on request"))
    except Waits as wait:
        return _stand_by(runtime, run, str(wait))
    except RetryLater as error:
        return _put_off(runtime, run, error)
    except VmferryError as error:
        return _fail(runtime, run, ErrorInfo(code=error.code, message=error.message, hint=error.hint))
    except Exception as error:
        log.exception("%s %s: unexpected", run.record.id, name)
        message = f"{type(error).__name__}: {error}"
        return _fail(runtime, run, ErrorInfo(code="INTERNAL_ERROR", message=message, hint="see the worker's log"))
    return _follow(runtime, run, name, verdict)


def _step_run(runtime: Runtime, record: RunRecord, lease: Lease) -> StepRun:
    settings = runtime.settings
    return StepRun(
        record=record,
        lease=lease,
        store=runtime.store,
        hypervisor=runtime.hypervisor,
        hosts=runtime.hosts,
        cordon_of=runtime.cordons.find,
        policy=policy_of(settings.policy(record.request.policy), record),
        limits=Limits(settings.lease_s, settings.progress_period_s, settings.unreachable_timeout_s),
        shares=runtime.shares,
        route=route_of(settings, record),
        stopping=runtime.stopping,
    )


def _start_timing(run: StepRun, name: StepName) -> None:
    record = run.record
    if record.timings and record.timings[-1].step is name and record.timings[-1].ended_at is None:
        return  # adopted: the step began with its first owner
    timing = StepTiming(step=name, attempt=record.attempt, started_at=run.store.now())
    run.record = record.model_copy(update={"timings": (*record.timings, timing)})


def _ended(run: StepRun) -> tuple[StepTiming, ...]:
    timings = run.record.timings
    if not timings or timings[-1].ended_at is not None:
        return timings
    return (*timings[:-1], timings[-1].model_copy(update={"ended_at": run.store.now()}))


def _follow(runtime: Runtime, run: StepRun, name: StepName, verdict: Verdict) -> Handled:
    match verdict:
        case Next():
            return _go_on(runtime, run, name)
        case Settle(state, error):
            _settle(runtime, run, state, error)
            return Handled.CUT if state is not State.SUCCEEDED else Handled.ADVANCED
        case Requeue(source, reason):
            _requeue(runtime, run, source, reason)
        case Forward():
            run.record = run.record.model_copy(update={"error": None, "forwards": run.record.forwards + 1})
            record = _hand_over(runtime, run, StepName.VERIFY)
            runtime.messenger.send_steps(record, STEPS[STEPS.index(StepName.VERIFY) :])
    return Handled.CUT


def _go_on(runtime: Runtime, run: StepRun, name: StepName) -> Handled:
    """To the next step; of the pools that it copies out of and into only preflight knows, and the queue has not asked
    for them: when one is taken it goes back there, with nothing in its hands, and keeps its place."""
    following, needed = STEPS[STEPS.index(name) + 1], {}
    if name is StepName.PREFLIGHT:
        needed = pools_used(runtime.settings, run.record)
    try:
        _hand_over(runtime, run, following, release="tokens" if name is StepName.TRANSFER else None, acquire=needed)
    except LimitReached as full:
        _requeue(runtime, run, run.source, why_waits("full", full.token))
        return Handled.CUT
    if name is StepName.TRANSFER:
        runtime.wake_queue()  # its limits are free: what waits for them begins while this one is verified
    return Handled.ADVANCED


def _settle(runtime: Runtime, run: StepRun, state: State, error: ErrorInfo | None) -> None:
    record = settle(runtime, run.record.model_copy(update={"timings": _ended(run)}), state, error, lease=run.lease)
    # What it had of limits it gave back when its transfer was over, unless it came here by way of a rollback.
    if state is not State.SUCCEEDED or record.forwards or runtime.queue.is_awaited(lock_of(record)):
        dispatch(runtime, thorough=False)


def _hand_over(runtime: Runtime, run: StepRun, step: StepName, **options: Any) -> RunRecord:
    """Move the pointer: from here on nobody owns the migration, until the next step is claimed or the deadline ends."""
    run.lease.stop()
    wait = runtime.settings.hand_over_s
    changes = {
        "step": step,
        "state": STATE_OF[step],
        "owner": "",
        "tries": 0,
        "waiting_for": None,
        "timings": _ended(run),
    }
    after = run.record.model_copy(update=changes)
    return runtime.store.commit(run.record, after, guard="fence", deadline_in=wait, resend_in=wait, **options)


def _fail(runtime: Runtime, run: StepRun, error: ErrorInfo) -> Handled:
    """The step failed: the record says so, and rollback is sent. Celery's own idea of failure plays no part."""
    if run.record.state is State.ROLLING_BACK:
        _settle(runtime, run, State.NEEDS_ATTENTION, _attention(run, error))
        return Handled.CUT
    run.record = run.record.model_copy(update={"error": run.record.error or error})
    record = _hand_over(runtime, run, StepName.ROLLBACK)
    runtime.messenger.send_steps(record, (StepName.ROLLBACK,))
    return Handled.CUT if error.code == "CANCELLED" else Handled.FAILED


def _attention(run: StepRun, error: ErrorInfo) -> ErrorInfo:
    first = run.record.error
    cause = f"; first error: {first.message}" if first and first.code != error.code else ""
    hint = f"look at the VM on {run.record.source} and {run.record.destination}, then 'vmferry retry {run.record.id}'"
    return ErrorInfo(
        code=error.code, message=f"rollback could not settle it: {error.message}{cause}", hint=error.hint or hint
    )


def _put_off(runtime: Runtime, run: StepRun, error: RetryLater) -> Handled:
    """A passing fault: give the claim back for a while, without occupying a slot; rollback is more patient."""
    record = run.record
    if record.state is State.ROLLING_BACK:
        waited = runtime.store.now() - (record.timings[-1].started_at if record.timings else 0.0)
        give_up = waited > runtime.settings.unreachable_timeout_s
    else:
        give_up = record.tries + 1 >= MAX_TRIES
    if give_up:
        return _fail(runtime, run, ErrorInfo(code=error.code, message=error.message, hint=error.hint))
    run.lease.stop()
    changes = {"owner": "", "tries": record.tries + 1, "waiting_for": f"trying again: {error.message}"}
    after = record.model_copy(update=changes)
    runtime.store.commit(record, after, guard="fence", deadline_in=RETRY_DELAY_S, resend_in=RETRY_DELAY_S)
    return Handled.CUT


def _stand_by(runtime: Runtime, run: StepRun, why: str) -> Handled:
    """It waits for others: give the claim back for a while, as often as it takes, without occupying a slot."""
    run.lease.stop()
    after = run.record.model_copy(update={"owner": "", "waiting_for": why})
    runtime.store.commit(run.record, after, guard="fence", deadline_in=RETRY_DELAY_S, resend_in=RETRY_DELAY_S)
    return Handled.CUT


def _detach(runtime: Runtime, run: StepRun) -> Handled:
    """This worker is told to stop: another one takes over at once."""
    run.lease.stop()
    record = run.record
    step = record.step or StepName.ROLLBACK
    after = record.model_copy(update={"owner": "", "send": record.send + 1})
    wait = runtime.settings.hand_over_s
    record = runtime.store.commit(record, after, guard="fence", deadline_in=wait, resend_in=wait)
    runtime.messenger.send_steps(record, rest_of_chain(step))
    log.info("%s %s: left to another worker", record.id, step)
    return Handled.CUT


def _requeue(runtime: Runtime, run: StepRun, source: str, reason: str) -> None:
    run.lease.stop()
    changes = {
        "state": State.QUEUED,
        "step": None,
        "owner": "",
        "source": source,
        "waiting_for": reason,
        "timings": _ended(run),
    }
    after = run.record.model_copy(update=changes)
    runtime.store.commit(run.record, after, guard="fence", deadline_in=0, release="all")
    dispatch(runtime, thorough=False)


def rest_of_chain(step: StepName) -> tuple[StepName, ...]:
    """The steps still to be sent when it is this one's turn."""
    return (step,) if step is StepName.ROLLBACK else STEPS[STEPS.index(step) :]
