"""What a process needs to work on migrations."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from config.settings import Settings
from tasks.model.ports import Hypervisor
from tasks.model.run import RunRecord, StepName
from tasks.store import (
    CordonStore,
    DrainStore,
    EventStore,
    QueueStore,
    RateStore,
    RunStore,
    ShareStore,
    TurnStore,
    WebhookStore,
)

log = logging.getLogger(__name__)


class Messenger(Protocol):
    """What the workflow asks of Celery."""

    def send_steps(self, record: RunRecord, steps: tuple[StepName, ...]) -> None:
        """Send the chain of these steps, each with a task id that was never used before."""

    def send_advance(self) -> None:
        """Have drains looked at."""

    def send_dispatch(self, *, thorough: bool = True) -> None:
        """Have the queue looked at."""

    def store_started(self, result_id: str) -> None:
        """Store STARTED under the id unless a result is there already."""

    def store_settled(self, result_id: str, record: RunRecord) -> None:
        """Store SUCCESS (the record) or FAILURE (one of the four exceptions)."""

    def has_settled(self, result_id: str) -> bool:
        """Whether a final result is stored under the id."""

    def forget(self, result_id: str) -> None:
        """Remove a stored result."""


@dataclass
class Runtime:
    """Everything a process needs to work on migrations."""

    settings: Settings
    store: RunStore
    queue: QueueStore
    cordons: CordonStore
    events: EventStore
    drains: DrainStore
    rates: RateStore
    turns: TurnStore
    shares: ShareStore
    webhooks: WebhookStore
    hypervisor: Hypervisor
    messenger: Messenger
    stopping: threading.Event = field(default_factory=threading.Event)
    owner: str = field(default_factory=lambda: f"{socket.gethostname()}.{os.getpid()}")

    def wake_drains(self) -> None:
        """Have drains looked at soon; nothing is sent while somebody has yet to see to the last time."""

        def send() -> None:
            if self.turns.want("drains"):
                self.messenger.send_advance()

        self._tell(send)

    def send_again(self) -> None:
        """Have drains looked at once more."""
        self._tell(self.messenger.send_advance)

    def wake_queue(self) -> None:
        """Have the queue looked at soon, by a control worker: to find a VM may mean to ask hosts that do not answer."""
        self._tell(lambda: self.messenger.send_dispatch(thorough=False))

    @staticmethod
    def _tell(send: Callable[[], None]) -> None:
        """What is lost is found by the next periodic look: nobody's work may fail for it."""
        try:
            send()
        except Exception:
            log.exception("not told; the next periodic look finds it")

    @property
    def hosts(self) -> tuple[str, ...]:
        """The inventory's names."""
        return tuple(self.settings.hosts)
