"""What the workflow asks of Celery: chains of steps under ids that are never used twice, and results."""

from __future__ import annotations

import re

from celery import Celery, chain, states

from config.celery import CONTROL_QUEUE, STEPS_QUEUE
from tasks.model.errors import MigrationCancelled, MigrationFailed, MigrationRefused, NeedsAttention
from tasks.model.run import RunRecord, State, StepName

STEP_TASK_ID = re.compile(r"^(?P<id>[A-Za-z0-9_-]{1,64})\.\d+\.\d+\.[a-z]+$")
"""``<id>.<attempt>.<send>.<step>``."""

EXCEPTION_OF: dict[State, type[Exception]] = {
    State.FAILED: MigrationFailed,
    State.REFUSED: MigrationRefused,
    State.CANCELLED: MigrationCancelled,
    State.NEEDS_ATTENTION: NeedsAttention,
}


class CeleryMessenger:
    """The workflow's Messenger, through one Celery app."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def send_steps(self, record: RunRecord, steps: tuple[StepName, ...]) -> None:
        """Send the chain; a message carries nothing but id and attempt, and a text for people who watch Flower."""
        text = f"{record.vm}: {record.source} → {record.destination}"
        signatures = [
            self._app.signature(
                f"tasks.steps.{step}",
                args=(record.id, record.attempt),
                immutable=True,
                task_id=f"{record.id}.{record.attempt}.{record.send}.{step}",
                queue=STEPS_QUEUE,
                argsrepr=f"({text})",
                kwargsrepr="{}",
            )
            for step in steps
        ]
        chain(*signatures, app=self._app).apply_async()

    def send_advance(self) -> None:
        """Wake whoever moves drains on."""
        self._app.send_task("tasks.advance_drains", queue=CONTROL_QUEUE, ignore_result=True)

    def send_dispatch(self, *, thorough: bool = True) -> None:
        """Wake the dispatcher up."""
        self._app.send_task("tasks.dispatch", kwargs={"thorough": thorough}, queue=CONTROL_QUEUE, ignore_result=True)

    def store_started(self, result_id: str) -> None:
        """Store STARTED, never over something that is there already: a late submission must not hide a result."""
        backend = self._app.backend
        meta = backend.encode(backend._get_result_meta(result=None, state=states.STARTED, traceback=None, request=None))
        backend.client.set(backend.get_key_for_task(result_id), meta, nx=True, ex=backend.expires)

    def store_settled(self, result_id: str, record: RunRecord) -> None:
        """Store the record as SUCCESS, or the exception that its state stands for as FAILURE."""
        kind = EXCEPTION_OF.get(record.state)
        if kind is None:
            self._app.backend.store_result(result_id, record.model_dump(mode="json"), states.SUCCESS)
            return
        code = record.error.code if record.error else record.state.upper()
        message = record.error.message if record.error else record.state.value
        self._app.backend.store_result(result_id, kind(code, message), states.FAILURE)

    def has_settled(self, result_id: str) -> bool:
        """Whether a final result is stored, read from Redis and not from this process's cache."""
        return self._app.backend.get_task_meta(result_id, cache=False)["status"] in states.READY_STATES

    def forget(self, result_id: str) -> None:
        """Remove the stored result."""
        self._app.backend.forget(result_id)
