"""Celery's revoke and terminate, for ids of ours: cancelling is an operation on the migration, not on a message.

Overriding the control command catches running and undelivered steps, in every pool, and does not make the worker
discard later messages with the same id, as the original does.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterable
from typing import Any

from celery.worker import control
from celery.worker.control import control_command

from config.logging import log_context
from tasks.messages import STEP_TASK_ID
from tasks.model.errors import VmferryError
from tasks.model.request import ID_PATTERN
from tasks.wiring import worker_runtime
from tasks.workflow import cancel, dispatch

log = logging.getLogger(__name__)

_original_revoke = control.revoke
_original_terminate = control.terminate


def migration_of(task_id: str) -> str | None:
    """The migration that a task id belongs to, by its form."""
    match = STEP_TASK_ID.match(task_id)
    if match:
        return match["id"]
    return task_id if re.fullmatch(ID_PATTERN, task_id) else None


def _split(task_ids: Iterable[str]) -> tuple[set[str], list[str]]:
    """Ids of migrations, and ids that are none of ours."""
    ours, others = set(), []
    for task_id in task_ids:
        run_id = migration_of(task_id)
        if run_id is not None and worker_runtime().store.find(run_id) is not None:
            ours.add(run_id)
        else:
            others.append(task_id)
    return ours, others


def _cancel_all(run_ids: set[str]) -> None:
    for run_id in run_ids:
        try:
            cancel(worker_runtime(), run_id)
        except VmferryError as error:
            with log_context(id=run_id):
                log.info("revoke of %s: %s", run_id, error)
    dispatch(worker_runtime())


def _cancel_ours(task_id: str | list[str]) -> tuple[set[str], list[str]]:
    given = [task_id] if isinstance(task_id, str) else list(task_id or [])
    ours, others = _split(given)
    if ours:
        # Not in the consumer's own thread: ending a queued migration may look at hosts.
        threading.Thread(target=_cancel_all, args=(ours,), name="revoke", daemon=True).start()
    return ours, others


@control_command(
    name="revoke",
    variadic="task_id",
    signature="[id1 [id2 [... [idN]]]]",
)
def revoke(state: Any, task_id: Any, terminate: bool = False, signal: Any = None, **kwargs: Any) -> dict[str, Any]:
    """Cancel migrations; revoke anything else as Celery does."""
    ours, others = _cancel_ours(task_id)
    if others:
        _original_revoke(state, others, terminate=terminate, signal=signal, **kwargs)
    return {"ok": f"migrations being cancelled: {sorted(ours)}; tasks revoked: {others}"}


@control_command(
    name="terminate",
    variadic="task_id",
    args=[("signal", str)],
    signature="<signal> [id1 [id2 [... [idN]]]]",
)
def terminate(state: Any, signal: Any, task_id: Any, **kwargs: Any) -> dict[str, Any]:
    """Cancel migrations; terminate anything else as Celery does."""
    ours, others = _cancel_ours(task_id)
    if others:
        _original_terminate(state, signal, others, **kwargs)
    return {"ok": f"migrations being cancelled: {sorted(ours)}; tasks terminated: {others}"}
