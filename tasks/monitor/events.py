"""What Flower notes of the events that it receives."""

from __future__ import annotations

import logging
import os
import pickle
from functools import partial
from pathlib import Path
from typing import Any

from celery import states
from flower.events import Events

from config.logging import PERIODIC_TASKS

log = logging.getLogger(__name__)


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
        elif event.get("closing"):
            self.io_loop.add_callback(partial(self.note_end, event))
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

    def note_end(self, event: dict[str, Any]) -> None:
        """Only of a step that still seems to run: a late second copy of its message ends too, and changes nothing."""
        task = self.state.tasks.get(event["uuid"])
        if task is None or task.state not in states.READY_STATES:
            self.state.event(event)

    def save_state(self) -> None:
        """Into one file that is replaced at once.

        Flower's own is a dbm database. Python's makes three files of it where no library for it is installed, and a
        crash between two of them leaves what cannot be read.
        """
        unfinished = Path(f"{self.db}.tmp")
        with unfinished.open("wb") as file:
            pickle.dump((self.state, dict(self.state.counter)), file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self.db)

    def load_state(self) -> Any:
        """What was saved; None when there is nothing, or nothing that can be read: that is put aside."""
        file = Path(self.db)
        try:
            state, counter = pickle.loads(file.read_bytes())  # noqa: S301 - this user's own file
            state.counter.update(counter)
        except FileNotFoundError:
            return None
        except Exception as error:
            log.exception("%s cannot be read and is put aside: %s", file, type(error).__name__)
            if file.is_file():
                file.replace(f"{file}.corrupt")
            return None
        return state
