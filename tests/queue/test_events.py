"""The stream of events: one for each change of state, whoever makes it, and nothing besides."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from tasks import workflow
from tasks.client import Client
from tasks.model.errors import InvalidRequest
from tasks.model.run import State
from tasks.store.events import BEGINNING, KEY
from tests.queue.harness import RedisServer
from tests.queue.workbench import Bench

pytestmark = pytest.mark.queue

THE_WAY = ["queued", "checking", "preparing", "transferring", "verifying", "finishing", "succeeded"]


def states(bench: Bench, run_id: str = "m") -> list[tuple[str | None, str]]:
    told = bench.runtime.events.read(BEGINNING)
    return [(t.event.previous, t.event.state) for t in told if t.event.id == run_id]


def test_one_for_each_change_of_state(bench: Bench) -> None:
    bench.vm()
    bench.submit(labels={"ticket": "4711"})
    assert bench.deliver_all().state is State.SUCCEEDED
    assert states(bench) == list(zip([None, *THE_WAY], THE_WAY, strict=False))
    told = bench.runtime.events.read(BEGINNING)
    assert [t.at for t in told] == sorted(t.at for t in told)
    assert {tuple(t.event.labels.items()) for t in told} == {(("ticket", "4711"),)}
    assert (told[-1].event.source, told[-1].event.destination, told[-1].event.method) == ("alpha", "beta", "live")


def test_asking_twice_is_told_once(bench: Bench) -> None:
    bench.vm()
    bench.submit()
    bench.submit()
    assert [state for _, state in states(bench)][:1] == ["queued"]
    assert sum(previous is None for previous, _ in states(bench)) == 1


def test_refused_and_tried_again(bench: Bench) -> None:
    bench.vm()
    bench.runtime.cordons.put("beta", "")
    bench.submit()
    bench.deliver_all()
    bench.runtime.cordons.lift("beta")
    workflow.retry(bench.runtime, "m")
    bench.deliver_all()
    assert [state for _, state in states(bench)] == ["queued", "checking", "refused", *THE_WAY]
    refused = next(t.event for t in bench.runtime.events.read(BEGINNING) if t.event.state == State.REFUSED)
    assert refused.error is not None
    assert refused.error.code == "HOST_CORDONED"


def test_positions(bench: Bench) -> None:
    bench.vm()
    bench.submit()
    bench.deliver_all()
    events = bench.runtime.events
    told = events.read(BEGINNING)
    assert events.read(told[2].position) == told[3:]
    assert events.newest(2) == told[-2:]
    assert events.read(told[-1].position) == []
    assert not events.lost_after(BEGINNING)
    for position in ("", "x", "1-2-3", "-1", "$", "*"):
        with pytest.raises(InvalidRequest, match="no position"):
            events.read(position)


def test_whoever_waits_is_told_at_once(bench: Bench, redis_server: RedisServer) -> None:
    client = Client(bench.runtime.settings)
    heard: list[str] = []
    follow = client.events(last=0, follow=True)

    def listen() -> None:
        for told in follow:
            heard.append(told.event.state)
            if told.event.state == "succeeded":
                return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    time.sleep(0.2)
    bench.vm()
    bench.submit()
    bench.deliver_all()
    listener.join(10)
    assert heard == THE_WAY
    client.close()


def test_the_stream_is_bounded_and_says_what_is_lost(bench: Bench, redis_server: RedisServer) -> None:
    bench.vm()
    bench.submit()
    bench.deliver_all()
    first = bench.runtime.events.read(BEGINNING)[0].position
    raw: Any = redis_server.client()
    (entry,) = raw.xrange(KEY, count=1)
    for _ in range(400):
        raw.xadd(KEY, entry[1], maxlen=100, approximate=True)
    assert raw.xlen(KEY) <= 300
    assert bench.runtime.events.lost_after(first)
    assert not bench.runtime.events.lost_after(bench.runtime.events.newest(1)[0].position)


def test_what_is_written(bench: Bench, redis_server: RedisServer) -> None:
    """The documented form: other systems read it with nothing but a Redis client."""
    bench.vm()
    bench.submit(labels={"team": "db"})
    raw: Any = redis_server.client()
    ((_, fields),) = raw.xrange(KEY, count=1)
    texts = {key.decode(): value.decode() for key, value in fields.items()}
    assert set(texts) == {"event", "at"}
    assert abs(float(texts["at"]) - time.time()) < 60
    assert json.loads(texts["event"]) == {
        "schema_version": 1,
        "kind": "migration",
        "id": "m",
        "state": "queued",
        "previous": None,
        "attempt": 1,
        "vm": "web-7",
        "drain": "",
        "uuid": None,
        "source": None,
        "destination": "beta",
        "method": None,
        "storage": None,
        "error": None,
        "labels": {"team": "db"},
    }
