"""The reconciler: one mechanism for a lost message, a killed worker, a restarted Redis and a stopped container."""

from __future__ import annotations

import logging

from config.logging import log_context
from tasks.model.errors import StaleOwner
from tasks.model.run import RunRecord
from tasks.workflow.dispatch import dispatch, publish
from tasks.workflow.runtime import Runtime
from tasks.workflow.stepping import rest_of_chain

log = logging.getLogger(__name__)

RESEND_FACTOR = 1.5
"""Each sending of the same chain waits longer than the one before: a full worker is not helped by more messages."""
RESEND_MAX_S = 300.0


def reconcile(runtime: Runtime) -> int:
    """Send again what nobody works on, publish results that are missing, admit what waits; returns how many were sent.

    Harmless when several run at the same time.
    """
    sent = 0
    for record in runtime.store.due():
        try:
            sent += _resend(runtime, record)
        except StaleOwner:
            continue
    for record in runtime.store.unpublished():
        publish(runtime, record)
    for run_id in runtime.queue.strays():
        runtime.store.enlist(run_id)
    dispatch(runtime)
    return sent


def _resend(runtime: Runtime, record: RunRecord) -> int:
    now, step = runtime.store.now(), record.step
    if step is None or record.deadline > now or (not record.owner and record.resend_not_before > now):
        return 0
    wait = min(runtime.settings.hand_over_s * RESEND_FACTOR ** min(record.send, 20), RESEND_MAX_S)
    after = record.model_copy(update={"owner": "", "send": record.send + 1})
    record = runtime.store.commit(record, after, guard="rev", deadline_in=wait, resend_in=wait)
    with log_context(id=record.id, attempt=record.attempt, step=step.value):
        log.warning("%s %s: nobody works on it, sent again", record.id, step)
    runtime.messenger.send_steps(record, rest_of_chain(step))
    return 1


def republish_missing(runtime: Runtime, window_s: float) -> int:
    """Store results again that were lost from Celery's result store; returns how many."""
    missing = [
        r
        for r in runtime.store.recently_finished(window_s)
        if r.is_terminal and not runtime.messenger.has_settled(r.id)
    ]
    for record in missing:
        publish(runtime, record)
    return len(missing)
