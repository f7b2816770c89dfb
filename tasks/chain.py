"""The steps as Celery tasks: load, call, return."""

from __future__ import annotations

from typing import Any

from celery.exceptions import Ignore

from config.logging import log_context
from tasks.app import app
from tasks.model.errors import MigrationFailed, VmferryError
from tasks.model.run import StepName
from tasks.watching import ProgressEvents, closing_event, tell
from tasks.wiring import worker_runtime
from tasks.workflow import Handled, run_step


def _run(task: Any, name: StepName, run_id: str, attempt: int) -> str:
    with log_context(id=run_id, attempt=attempt, step=name.value):
        handled = run_step(worker_runtime(), name, run_id, attempt, ProgressEvents(task))
    if handled is Handled.ADVANCED:
        return "done"
    # Whatever comes next was sent by the workflow; this message's own chain ends here.
    task.request.chain = None
    if handled is Handled.CUT:
        _tell_end(task, name, run_id)
        raise Ignore
    record = worker_runtime().store.find(run_id)
    error = record.error if record else None
    raise MigrationFailed(error.code if error else "FAILED", error.message if error else "see the run record")


def _tell_end(task: Any, name: StepName, run_id: str) -> None:
    """Celery sends no event about a task that is ignored: to whoever watches it would run for ever."""
    try:
        event = closing_event(worker_runtime().store.find(run_id), name, task.request.id)
    except VmferryError:
        return  # Redis is away; the record says it later
    if event is not None:
        kind, fields = event
        tell(task, kind, closing=True, **fields)


def _register(name: StepName) -> None:
    # The migration's own result is what callers wait for; those of its steps would only fill Redis.
    @app.task(
        name=f"tasks.steps.{name}",
        bind=True,
        acks_late=False,
        max_retries=0,
        ignore_result=True,
        store_errors_even_if_ignored=True,
    )
    def step(self: Any, run_id: str, attempt: int) -> str:
        return _run(self, name, run_id, attempt)


for _name in StepName:
    _register(_name)
