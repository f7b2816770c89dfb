"""What whoever watches Celery's events (Flower) is told of a step beyond what Celery tells by itself.

Nothing depends on it: an event that cannot be sent is left out.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from tasks.model.errors import MigrationRefused, NeedsAttention
from tasks.model.run import Progress, RunRecord, State, StepName
from tasks.planning.progress_text import describe_progress

log = logging.getLogger(__name__)

PERIOD_S = 1.0
"""Progress is told no more often than this."""
REPEAT_S = 10.0
"""The same text is told again after so long, for whoever began to watch meanwhile."""


class ProgressEvents:
    """Shows how far a transfer is in Flower: as one more ``task-started`` with the text as its result.

    A state of its own (PROGRESS) would stay in Flower when the task is revoked or started again. Name and arguments are
    told again for a Flower that was started after the step.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        self._told, self._at = "", float("-inf")

    def __call__(self, progress: Progress) -> None:
        """Tell it, unless it was told just now."""
        text, waited = describe_progress(progress), time.monotonic() - self._at
        if text and waited >= (PERIOD_S if text != self._told else REPEAT_S):
            self._told, self._at = text, time.monotonic()
            named = {"name": self._task.name, "args": self._task.request.argsrepr, "kwargs": "{}"}
            tell(self._task, "task-started", result=text, **named)


def tell(task: Any, kind: str, **fields: Any) -> None:
    """Send an event about the running task; never raises, and does not wait for a broker that is away."""
    try:
        task.send_event(kind, retry=False, **fields)
    except Exception as error:  # noqa: BLE001 - whatever it is, the migration goes on
        log.debug("%s was not told: %s", kind, error)


def closing_event(record: RunRecord | None, step: StepName, task_id: str) -> tuple[str, dict[str, Any]] | None:
    """How a step that has ended with ``Ignore``, of which Celery says nothing, is to be shown; None: leave it.

    A late second copy of a step that is long done gets one as well: it counts only where the step still seems to run.
    """
    if record is None:
        return None
    if record.owner and task_id == f"{record.id}.{record.attempt}.{record.send}.{record.step}":
        return None  # this was a second copy of its message: the first one is at work
    if record.state in (State.REFUSED, State.NEEDS_ATTENTION) and record.error is not None:
        kind = MigrationRefused if record.state is State.REFUSED else NeedsAttention
        return "task-failed", {"exception": repr(kind(record.error.code, record.error.message))}
    if step is StepName.ROLLBACK:
        return "task-succeeded", {"result": _rollback_text(record)}
    if record.cancel_requested:
        return "task-revoked", {"terminated": True, "signum": None, "expired": False}
    return "task-succeeded", {"result": record.waiting_for or "left to another worker"}


def _rollback_text(record: RunRecord) -> str:
    if record.state is State.ROLLING_BACK:
        return record.waiting_for or "left to another worker"
    if record.state in (State.FAILED, State.CANCELLED):
        return f"rolled back: {record.state}"
    return "not rolled back: the VM has moved, and the migration goes on"
