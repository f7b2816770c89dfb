"""What Flower notes of the events that it receives."""

from __future__ import annotations

from functools import partial
from typing import Any

from celery import states
from flower.events import Events

from config.logging import PERIODIC_TASKS


class MigrationEvents(Events):
    """Flower's memory without the housekeeping, and with progress that is not counted as another start.

    Who sends a periodic task still says so; nothing more is ever heard of it.
    """

    def on_event(self, event: dict[str, Any]) -> None:
        """Take an event in; called in the receiving thread, while the memory belongs to the loop's."""
        if event.get("name") in PERIODIC_TASKS:
            return
        if event["type"] == "task-started" and "result" in event:
            self.io_loop.add_callback(partial(self.note_progress, event))
        else:
            super().on_event(event)

    def note_progress(self, event: dict[str, Any]) -> None:
        """Taken in as one more start it would move the step's start and take one from the prefetched tasks."""
        task = self.state.tasks.get(event["uuid"])
        if task is None or task.state in (states.PENDING, states.RECEIVED):
            self.state.event(event)
        elif task.state == states.STARTED:
            task.result = event["result"]
            self.state.search_engine.upsert(task)
