"""What a worker answers when it is asked about itself: ``vmferry doctor`` asks."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

from celery import signals
from celery.worker.control import inspect_command

from tasks.model.errors import StoreUnavailable
from tasks.wiring import worker_runtime

COMMAND = "vmferry_about"
RECONCILE = "tasks.reconcile"

_started = time.monotonic()
_reconciled: float | None = None


@signals.task_prerun.connect
def _note(sender: Any = None, **_: Any) -> None:
    global _reconciled
    if getattr(sender, "name", "") == RECONCILE:
        _reconciled = time.monotonic()


@inspect_command(name=COMMAND)
def about(state: Any) -> dict[str, Any]:
    """Queues, threads, version, how its clock stands to Redis TIME, and when it last ran the periodic reconciler."""
    now = time.monotonic()
    return {
        "queues": [queue.name for queue in state.consumer.task_consumer.queues],
        "slots": state.consumer.pool.limit,
        "version": version("vmferry"),
        "up_s": now - _started,
        "reconciled_ago_s": None if _reconciled is None else now - _reconciled,
        **_clock(),
    }


def _clock() -> dict[str, float]:
    before = time.time()
    try:
        redis = worker_runtime().store.now()
    except StoreUnavailable:
        return {}
    after = time.time()
    return {"redis_ahead_s": redis - (before + after) / 2, "doubt_s": (after - before) / 2}
