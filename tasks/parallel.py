"""Threads that log about the migration of whoever started them, and many calls at the same time, with an end."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
P = ParamSpec("P")


def make_thread(target: Callable[[], object], name: str) -> threading.Thread:
    """A daemon thread, not yet started, in a copy of the caller's context."""
    return threading.Thread(target=contextvars.copy_context().run, args=(target,), name=name, daemon=True)


class ContextPool(ThreadPoolExecutor):
    """A thread pool whose calls run in a copy of the context of whoever submits them."""

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See ``ThreadPoolExecutor``."""
        context = contextvars.copy_context()
        return super().submit(lambda: context.run(call, *args, **kwargs))


def gather(calls: Mapping[K, Callable[[], T]], *, at_once: int, timeout_s: float) -> dict[K, T]:
    """The results of those calls that came back within ``timeout_s`` seconds, in the order of ``calls``.

    The threads are daemons, so that a call that never returns holds neither the others nor the program's end.

    Raises:
        BaseException: whatever the first failing call raised.
    """
    waiting: queue.SimpleQueue[K] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[K, T | None, BaseException | None]] = queue.SimpleQueue()
    for key in calls:
        waiting.put(key)

    def work() -> None:
        while True:
            try:
                key = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((key, calls[key](), None))
            except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
                done.put((key, None, error))

    for number in range(min(at_once, len(calls))):
        make_thread(work, f"gather-{number}").start()
    found = _collect(done, len(calls), time.monotonic() + timeout_s)
    return {key: found[key] for key in calls if key in found}


def _collect(
    done: queue.SimpleQueue[tuple[K, T | None, BaseException | None]], wanted: int, until: float
) -> dict[K, T]:
    found: dict[K, T] = {}
    while len(found) < wanted:
        try:
            key, value, error = done.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            break
        if error is not None:
            raise error
        found[key] = value  # type: ignore[assignment]
    return found
