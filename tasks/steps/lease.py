"""The lease of a step's owner: renewed by a thread of its own, checked before every effect."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Protocol

from tasks.model.errors import StaleOwner, StoreUnavailable
from tasks.model.run import RunRecord
from tasks.parallel import make_thread
from tasks.steps.verdict import LeaseLost

log = logging.getLogger(__name__)


class Renewer(Protocol):
    """The store's part in a lease."""

    def renew(self, record: RunRecord, lease_s: float) -> bool:
        """Extend the lease; returns whether cancelling was asked for."""


class Lease:
    """Keeps one claim alive while the step runs.

    An owner that could not renew for half of the lease stops all effects, measured on the monotonic clock; adoption by
    another worker comes only after the whole lease, measured by Redis TIME. So the two never act at the same time.
    """

    def __init__(self, store: Renewer, record: RunRecord, lease_s: float) -> None:
        self._store = store
        self._record = record
        self._lease_s = lease_s
        # The claim itself was the first renewal, but it was sent before now: counting from now would be too generous
        # by one round trip, which half of the lease covers many times over.
        self._renewed_at = time.monotonic()
        self._lost = threading.Event()
        self._stop = threading.Event()
        self.cancel_requested = record.cancel_requested
        self._thread = make_thread(self._beat, f"lease-{record.id}")

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()

    def stop(self) -> None:
        """Renew no more: the claim is about to be given away."""
        self._stop.set()

    def check(self) -> None:
        """To be called before every effect.

        Raises:
            LeaseLost: this worker must not act any more.
        """
        if self._lost.is_set() or time.monotonic() - self._renewed_at > self._lease_s / 2:
            raise LeaseLost(f"{self._record.id}: the lease was lost")

    def _beat(self) -> None:
        while not self._stop.wait(self._lease_s / 6):
            before = time.monotonic()
            try:
                self.cancel_requested = self._store.renew(self._record, self._lease_s)
            except StaleOwner:
                if not self._stop.is_set():
                    self._lost.set()
                return
            except StoreUnavailable as error:
                log.warning("lease not renewed: %s", error)
            else:
                self._renewed_at = before
