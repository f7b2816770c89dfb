"""What people and other systems may do to a migration: submit, cancel, retry."""

from __future__ import annotations

from typing import Any

from tasks.model.convergence import Forward
from tasks.model.errors import InvalidRequest, StaleOwner
from tasks.model.request import Method, MigrationRequest, parse_id, parse_request
from tasks.model.run import ErrorInfo, PastError, RunRecord, State, StepName, next_attempt
from tasks.planning.preflight import DESCRIPTIONS
from tasks.planning.remedies import REMEDIES
from tasks.workflow.dispatch import dispatch, publish, settle
from tasks.workflow.runtime import Runtime
from tasks.workflow.timing import schedule_of

TOO_LATE = frozenset({State.FINISHING})
PAST_KEPT = 10
"""Earlier attempts whose ends the record keeps."""


def cancel(runtime: Runtime, run_id: str) -> RunRecord:
    """Cancel in whatever state it is; the owner of a running step rolls back, a waiting migration ends at once.

    Raises:
        UnknownMigration
        InvalidRequest: ``ALREADY_FINISHED``, ``TOO_LATE``.
    """
    for _ in range(10):
        record = runtime.store.load(run_id)
        if record.is_terminal:
            raise InvalidRequest("ALREADY_FINISHED", f"{run_id} has ended: {record.state}", f"vmferry show {run_id}")
        if record.post_copy_begun:
            message = f"{record.vm} runs on {record.destination} already, with memory that is still on {record.source}"
            raise InvalidRequest("TOO_LATE", message, "it can only go on: let it finish, then migrate it back")
        if _too_late(record):
            message = f"{record.vm} runs on {record.destination} already; {run_id} is {record.state}"
            raise InvalidRequest("TOO_LATE", message, "let it finish, then migrate it back")
        try:
            if record.state is State.QUEUED:
                error = ErrorInfo(code="CANCELLED", message="cancelled while it was queued")
                return settle(runtime, record.model_copy(update={"cancel_requested": True}), State.CANCELLED, error)
            return runtime.store.request_cancel(record)
        except StaleOwner:
            continue
    raise InvalidRequest("BUSY", f"{run_id} changes too fast to be cancelled", "try again")


def _too_late(record: RunRecord) -> bool:
    live = record.method is not Method.OFFLINE
    return record.state in TOO_LATE or (record.state is State.VERIFYING and live)


def retry(runtime: Runtime, run_id: str) -> RunRecord:
    """Start a finished migration again under the same id, as the next attempt.

    Raises:
        UnknownMigration
        InvalidRequest: ``NOT_RETRYABLE``: it has not ended, or it succeeded.
    """
    record = runtime.store.load(run_id)
    if record.state is State.SUCCEEDED or not record.is_terminal:
        raise InvalidRequest("NOT_RETRYABLE", f"{run_id} is {record.state}", "only what failed can be tried again")
    again = record.state is State.NEEDS_ATTENTION
    after = _rolling_back(record) if again else next_attempt(record)
    ended = PastError(attempt=record.attempt, at=record.finished_at, state=record.state, error=record.error)
    after = after.model_copy(update={"past": (*record.past, ended)[-PAST_KEPT:]})
    wait = runtime.settings.hand_over_s if again else 0
    try:
        record = runtime.store.commit(record, after, guard="rev", deadline_in=wait, resend_in=wait)
    except StaleOwner:
        message = f"{run_id} was changed by somebody else"
        raise InvalidRequest("NOT_RETRYABLE", message, f"vmferry show {run_id}") from None
    for result_id in (run_id, *runtime.store.waiters(run_id)):
        runtime.messenger.forget(result_id)
        runtime.messenger.store_started(result_id)
    if again:
        runtime.messenger.send_steps(record, (StepName.ROLLBACK,))
    else:
        dispatch(runtime)
    return runtime.store.load(run_id)


def _rolling_back(record: RunRecord) -> RunRecord:
    """What a person has looked at goes on from what the journal says, as another attempt."""
    changes: dict[str, object] = {"attempt": record.attempt + 1, "error": None, "finished_at": None, "tries": 0}
    changes |= {"forwards": 0, "waiting_for": None, "stalled": False, "send": record.send + 1}
    converging = record.converging.model_copy(update={"forward": Forward()})
    return record.model_copy(
        update=changes | {"state": State.ROLLING_BACK, "step": StepName.ROLLBACK, "converging": converging}
    )


def submit(
    runtime: Runtime,
    values: dict[str, Any],
    run_id: str,
    *,
    waiter: str = "",
    drain: str = "",
    expected_bytes: int = 0,
) -> RunRecord:
    """Write the record of a request; the same request under the same id is the same migration.

    ``waiter`` is a Celery result id, other than the migration's own, that shall be settled with it; ``drain`` the
    drain that asks, which knows how many bytes are to be moved.

    Raises:
        InvalidRequest: ``INVALID_REQUEST``, ``INVALID_ID``, ``UNKNOWN_HOST``, ``SAME_HOST``, ``UNKNOWN_POLICY``,
            ``ID_CONFLICT``.
    """
    parse_id(run_id)
    request = parse_request(values)
    check_inventory(runtime, request)
    record = RunRecord(
        id=run_id,
        request=request,
        fingerprint=request.fingerprint(),
        vm=request.vm,
        source=request.source,
        destination=request.destination,
        labels=request.labels,
        drain=drain,
        expected_bytes=expected_bytes,
    )
    waiting = waiter if waiter != run_id else ""
    submission = runtime.store.submit(record, waiter=waiting)
    if submission.verdict == "conflict":
        message = (
            f"the id {run_id} belongs to another request: {submission.record.vm} to {submission.record.destination}"
        )
        raise InvalidRequest("ID_CONFLICT", message, "choose another id, or send exactly the same request")
    for result_id in filter(None, (run_id, waiting)):
        runtime.messenger.store_started(result_id)
    if submission.record.is_terminal:
        publish(runtime, submission.record)
    return submission.record


def check_inventory(runtime: Runtime, request: MigrationRequest) -> None:
    """Refuse names that the configuration does not have.

    Raises:
        InvalidRequest: ``UNKNOWN_HOST``, ``SAME_HOST``, ``UNKNOWN_POLICY``, ``UNKNOWN_FINDING``, ``UNKNOWN_REMEDY``,
            ``INVALID_WINDOW``, ``UNKNOWN_TIME_ZONE``.
    """
    for host in filter(None, (request.destination, request.source)):
        if host not in runtime.settings.hosts:
            known = ", ".join(runtime.settings.hosts) or "none"
            raise InvalidRequest("UNKNOWN_HOST", f"{host} is not in the inventory", f"known hosts: {known}")
    schedule_of(request)
    if request.source == request.destination:
        raise InvalidRequest("SAME_HOST", f"source and destination are both {request.destination}", "name two hosts")
    if unknown := [code for code in request.accept if code not in DESCRIPTIONS]:
        message = f"there is no finding {', '.join(unknown)} that could be accepted"
        raise InvalidRequest("UNKNOWN_FINDING", message, "vmferry plan shows the codes, docs/findings.md all of them")
    if unknown := [name for name in request.remedies if name not in REMEDIES]:
        message = f"there is no remedy {', '.join(unknown)}"
        raise InvalidRequest("UNKNOWN_REMEDY", message, f"known remedies: {', '.join(REMEDIES)}")
    if request.policy not in runtime.settings.policies:
        known = ", ".join(runtime.settings.policies)
        raise InvalidRequest("UNKNOWN_POLICY", f"there is no policy {request.policy}", f"known policies: {known}")
