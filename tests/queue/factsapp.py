"""A small Celery app with vmferry's own Celery settings and transport, for the facts that the design rests on.

``FACTS_BROKER`` is the Redis URL; ``FACTS_SETTINGS`` a JSON object of Celery settings that replace ours, for tests that
show what a setting is good for. Tasks note what they do in the Redis list ``notes``, with their process's id.
"""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any

import redis
from celery import Celery, Task, signals
from celery.exceptions import Ignore
from celery.worker import control
from celery.worker.control import control_command

from config.celery import celery_settings
from config.logging import configure_logging
from config.settings import Settings
from tasks.store import connect
from tasks.transport import GuardedTask

settings = Settings(broker_url=os.environ.get("FACTS_BROKER", "redis://127.0.0.1:1/0"))

app = Celery("facts", task_cls=GuardedTask)
app.conf.update(celery_settings(settings))
app.conf.task_routes = {"facts.*": {"queue": "vmferry.steps"}}
app.conf.beat_schedule = {}
app.conf.update(json.loads(os.environ.get("FACTS_SETTINGS", "{}")))


@signals.setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    configure_logging(settings)


class CopyRefused(Exception):
    """Defined here only: a plain client has no such class."""


def _store() -> redis.Redis:
    return connect(settings.broker_url, sentinel_master=settings.sentinel_master)


def note(text: str) -> None:
    """Leave a note, whatever happens to Redis meanwhile."""
    while True:
        try:
            _store().rpush("notes", text)
        except redis.RedisError:
            time.sleep(0.05)
        else:
            return


@app.task(name="facts.work")
def work(name: str, seconds: float = 0.0) -> str:
    note(f"start {name}")
    time.sleep(seconds)
    note(f"end {name}")
    return name


@app.task(name="facts.end_silently")
def end_silently(name: str, seconds: float) -> str:
    """Ends whether Redis is there or not, where ``work`` would wait for it to leave its last note."""
    note(f"start {name}")
    time.sleep(seconds)
    return name


@app.task(name="facts.late", acks_late=True)
def late(name: str, seconds: float = 0.0) -> str:
    return str(work(name, seconds))


@app.task(name="facts.submit", ignore_result=True, store_errors_even_if_ignored=True)
def submit(text: str) -> str:
    if text == "bad":
        raise ValueError("bad is not accepted")
    note(f"submitted {text}")
    return "not the result"


@app.task(name="facts.settle", ignore_result=True)
def settle(result_id: str, text: str) -> None:
    if text == "refuse":
        app.backend.store_result(result_id, CopyRefused("NO_SPACE", "pool is full"), "FAILURE")
    else:
        app.backend.store_result(result_id, {"text": text}, "SUCCESS")


@app.task(name="facts.cut", bind=True)
def cut(self: Task) -> None:
    """As a failing step does: nothing may follow, and the caller may see why."""
    self.request.chain = None
    raise CopyRefused("CUT", "cut on purpose")


@app.task(name="facts.ignore", bind=True)
def ignore(self: Task) -> None:
    note("ignored")
    raise Ignore


@app.task(name="facts.errback")
def errback(task_id: str) -> None:
    note("errback")


@app.task(name="facts.block")
def block(own_thread: bool, seconds: float) -> None:
    """A blocking call: in a daemon thread of its own that is left behind at shutdown, or in the pool's."""
    note("blocking")
    if not own_thread:
        time.sleep(seconds)
        note("unblocked")
        return
    call = threading.Thread(target=time.sleep, args=(seconds,), daemon=True)
    call.start()
    while call.is_alive() and not stopping.is_set():
        call.join(0.05)


stopping = threading.Event()


@signals.worker_shutting_down.connect
def _detach(**_: Any) -> None:
    stopping.set()


if os.environ.get("FACTS_OVERRIDE_REVOKE"):

    @control_command(name="revoke", variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
    def revoke(state: Any, task_id: Any, terminate: bool = False, **kwargs: Any) -> dict[str, str]:
        for one in [task_id] if isinstance(task_id, str) else task_id:
            note(f"revoke {one} terminate={terminate}")
        return {"ok": "noted"}

    assert control.Panel.data["revoke"] is revoke
