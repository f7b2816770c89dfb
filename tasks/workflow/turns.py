"""Doing what only one process at a time shall do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.model.errors import StoreUnavailable
from tasks.parallel import make_thread
from tasks.workflow.runtime import Runtime

log = logging.getLogger(__name__)


@contextmanager
def turn(runtime: Runtime, what: str) -> Iterator[bool]:
    """Whether it is our turn; kept for as long as the block takes, and gone one lease after a process that died."""
    lease_s = runtime.settings.lease_s
    token = runtime.turns.take(what, lease_s)
    if not token:
        yield False
        return
    over = threading.Event()

    def renew() -> None:
        while not over.wait(lease_s / 3):
            try:
                runtime.turns.renew(what, token, lease_s)
            except StoreUnavailable as error:
                log.warning("the turn %s was not renewed: %s", what, error)

    thread = make_thread(renew, f"turn-{what}")
    thread.start()
    try:
        yield True
    finally:
        over.set()
        thread.join()
        runtime.turns.give_back(what, token)
