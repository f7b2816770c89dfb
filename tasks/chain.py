"""The steps as Celery tasks: load, call, return."""

from __future__ import annotations

import logging
import time
from typing import Any

from celery.exceptions import Ignore

from config.logging import log_context
from tasks.app import app
from tasks.model.errors import MigrationFailed
from tasks.model.run import Progress, StepName
from tasks.planning.progress_text import describe_progress
from tasks.wiring import worker_runtime
from tasks.workflow import Handled, run_step

log = logging.getLogger(__name__)

EVENT_PERIOD_S = 1.0
"""Progress is told no more often than this."""


class ProgressEvents:
    """Shows how far a transfer is in Flower: as one more ``task-started`` with the text as its result.

    A state of its own (PROGRESS) would stay in Flower when the task is revoked or started again.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        self._told, self._at = "", 0.0

    def __call__(self, progress: Progress) -> None:
        """Tell it, unless it was told just now; a broker that is away is no reason to stop."""
        text, now = describe_progress(progress), time.monotonic()
        if text == self._told or now - self._at < EVENT_PERIOD_S:
            return
        self._told, self._at = text, now
        try:
            self._task.send_event("task-started", result=text, retry=False)
        except Exception as error:  # noqa: BLE001 - the broker's client raises its own, and nothing depends on this
            log.debug("progress was not told: %s", error)


def _run(task: Any, name: StepName, run_id: str, attempt: int) -> str:
    with log_context(id=run_id, attempt=attempt, step=name.value):
        handled = run_step(worker_runtime(), name, run_id, attempt, ProgressEvents(task))
    if handled is Handled.ADVANCED:
        return "done"
    # Whatever comes next was sent by the workflow; this message's own chain ends here.
    task.request.chain = None
    if handled is Handled.CUT:
        raise Ignore
    record = worker_runtime().store.find(run_id)
    error = record.error if record else None
    raise MigrationFailed(error.code if error else "FAILED", error.message if error else "see the run record")


def _register(name: StepName) -> None:
    @app.task(name=f"tasks.steps.{name}", bind=True, acks_late=False, max_retries=0)
    def step(self: Any, run_id: str, attempt: int) -> str:
        return _run(self, name, run_id, attempt)


for _name in StepName:
    _register(_name)
