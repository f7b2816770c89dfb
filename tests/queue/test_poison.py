"""Nothing that is pushed into a queue ends a worker, nothing of it is lost, and good messages go on."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu.connection import Connection
from kombu.transport.virtual import Channel

from config.celery import POISON_KEY, STEPS_QUEUE
from tasks.transport import find_problem
from tests.queue.conftest import Facts
from tests.queue.harness import RedisServer, Worker, wait_for


def envelope(body: object = ([], {}, {}), *, raw_body: str | None = None, **changes: Any) -> dict[str, Any]:
    """A protocol 2 message as kombu stores it; ``changes`` replace or (None) remove members."""
    message: dict[str, Any] = {
        "body": raw_body if raw_body is not None else base64.b64encode(json.dumps(body).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "facts.work", "id": "poison-1", "root_id": "poison-1"},
        "properties": {
            "correlation_id": "poison-1",
            "delivery_tag": "tag-1",
            "delivery_info": {"exchange": "", "routing_key": STEPS_QUEUE},
            "body_encoding": "base64",
        },
        **changes,
    }
    return {key: value for key, value in message.items() if value is not None}


def with_header(**headers: object) -> dict[str, Any]:
    message = envelope()
    return {**message, "headers": {**message["headers"], **headers}}


def without_property(name: str) -> dict[str, Any]:
    message = envelope()
    return {**message, "properties": {k: v for k, v in message["properties"].items() if k != name}}


POISON: dict[str, bytes] = {
    name: content if isinstance(content, bytes) else json.dumps(content).encode()
    for name, content in {
        "not JSON": b"\x00\xff\xfe not json",
        "not UTF-8": b'"\xff"',
        "nothing": b"",
        "a list": [1, 2],
        "null": None,
        "a number": 7,
        "deep nesting": b"[" * 100_000,
        "an empty object": {},
        "a body of wrong shape": envelope({"a": 1}),
        "a body of three wrong things": envelope([1, 2, 3]),
        "a body that is a number": envelope(5),
        "a body of two": envelope([[], {}]),
        "keyword arguments that are a list": envelope([[], [], {}]),
        "embedded options that are a list": envelope([[], {}, [1]]),
        "no body": envelope(raw_body=""),
        "a body that is not base64": envelope(raw_body="*** not base64 ***"),
        "base64 of no JSON": envelope(raw_body=base64.b64encode(b"{nonsense").decode()),
        "an unknown body encoding": envelope(properties={**envelope()["properties"], "body_encoding": "rot13"}),
        "a body that is an object": envelope(body=None, raw_body=None) | {"body": {"a": 1}},
        "no properties": envelope(properties=None),
        "properties that are a list": envelope(properties=[1]),
        "no delivery tag": without_property("delivery_tag"),
        "a delivery tag that is a list": envelope(properties={**envelope()["properties"], "delivery_tag": [1]}),
        "no delivery information": without_property("delivery_info"),
        "no headers": envelope(headers=None),
        "headers that are a list": envelope(headers=[["task", "facts.work"]]),
        "a task that is a list": with_header(task=["facts.work"]),
        "no id": envelope(headers={"task": "facts.work"}),
        "an id that is a number": with_header(id=5),
        "a time limit that is a number": with_header(timelimit=5),
        "an expiry that is a number": with_header(expires=5),
        "an expiry that is no time": with_header(expires="tomorrow"),
        "an unknown compression": with_header(compression="application/x-middle-out"),
        "an unknown task": with_header(task="facts.unheard_of"),
        "an unknown content type": envelope(**{"content-type": "application/x-nothing"}),
        "no content type": envelope(**{"content-type": None}),
        "pickle": envelope(
            raw_body=base64.b64encode(b"\x80\x04N.").decode(),
            **{"content-type": "application/x-python-serialize", "content-encoding": "binary"},
        ),
    }.items()
}
KEPT_REWRITTEN = {"an unknown task", "an expiry that is no time"}
"""Read without a problem and refused by Celery: kept as kombu writes them, the same but for details of encoding."""


@pytest.fixture(scope="module")
def queue(redis_server: RedisServer) -> Iterator[tuple[Facts, Worker]]:
    facts = Facts(redis_server)
    with facts.worker() as worker:
        yield facts, worker
    facts.client.close()


@pytest.mark.queue
@pytest.mark.parametrize("name", POISON)
def test_poison_is_put_aside_and_the_worker_lives(queue: tuple[Facts, Worker], name: str) -> None:
    facts, worker = queue
    facts.store.delete(POISON_KEY)
    facts.store.lpush(STEPS_QUEUE, POISON[name])
    sent = facts.send("facts.work", name)
    assert sent.get(timeout=5) == name
    wait_for(lambda: facts.store.llen(POISON_KEY) == 1, f"{name} in {POISON_KEY}")
    kept = facts.store.lrange(POISON_KEY, 0, -1)[0]
    if name in KEPT_REWRITTEN:
        assert json.loads(kept)["headers"] == json.loads(POISON[name])["headers"]
    else:
        assert kept == POISON[name]
    assert worker.running
    wait_for(lambda: facts.store.hlen("vmferry:unacked") == 0, "the good message's acknowledgement")
    assert facts.store.llen(STEPS_QUEUE) == 0


@pytest.mark.queue
def test_poison_costs_no_reconnection_and_one_line_each(queue: tuple[Facts, Worker]) -> None:
    facts, worker = queue
    position = len(worker.log())
    for content in POISON.values():
        facts.store.lpush(STEPS_QUEUE, content)
    facts.send("facts.work", "after all").get(timeout=10)
    written = worker.log()[position:]
    assert written.count("put aside in vmferry:poison") == len(POISON)
    assert "Connection to broker lost" not in written
    assert "Unrecoverable" not in written


BROADCASTS = (
    b"[1]",
    b"7",
    b"{}",
    b"not json",
    b'{"properties": []}',
    b'{"body": "{", "content-type": "application/json", "properties": {"delivery_tag": ""}}',
    b'{"body": "x", "headers": [], "properties": {"delivery_tag": "a"}}',
)


@pytest.mark.queue
def test_unreadable_control_commands_end_no_worker(queue: tuple[Facts, Worker]) -> None:
    facts, worker = queue
    position = len(worker.log())
    for content in BROADCASTS:
        assert facts.store.publish("/0.celery.pidbox", content) == 1
    # Celery subscribes anew after the last one, readable but no command; what is broadcast meanwhile is lost.
    wait_for(lambda: facts.client.control.ping(timeout=0.5, limit=1), "an answer to a command")
    assert worker.running
    assert "Connection to broker lost" not in worker.log()[position:]


@pytest.mark.queue
def test_a_hand_made_minimal_message_runs(queue: tuple[Facts, Worker]) -> None:
    facts, _ = queue
    facts.store.lpush(STEPS_QUEUE, json.dumps(envelope([["by hand"], {}, None])))
    facts.wait_note("end by hand")


@pytest.mark.queue
def test_the_list_of_poison_is_bounded(facts: Facts) -> None:
    options = {"guarded_queues": [STEPS_QUEUE], "poison_key": POISON_KEY, "poison_limit": 3}
    with facts.worker(broker_transport_options=options):
        for number in range(5):
            facts.store.lpush(STEPS_QUEUE, f"poison {number}")
        facts.send("facts.work", "last").get(timeout=5)
        assert facts.store.lrange(POISON_KEY, 0, -1) == [b"poison 4", b"poison 3", b"poison 2"]


@pytest.mark.queue
def test_a_caller_of_an_unknown_task_is_told(queue: tuple[Facts, Worker]) -> None:
    facts, _ = queue
    with pytest.raises(Exception, match=r"facts\.misspelt"):
        facts.send("facts.misspelt").get(timeout=5)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def memory_channel() -> Channel:
    channel: Channel = Connection("memory://").channel()  # type: ignore[no-untyped-call]
    return channel


@settings(max_examples=200, deadline=None)
@given(member=st.sampled_from(["body", "headers", "properties", "content-type", "content-encoding"]), value=JSON)
def test_reading_never_raises(member: str, value: object) -> None:
    channel = memory_channel()
    problem = find_problem(json.dumps({**envelope(), member: value}).encode(), channel)
    assert problem is None or problem
    assert find_problem(json.dumps(envelope()).encode(), channel) is None


def test_a_reason_tells_nothing_of_the_values() -> None:
    channel = memory_channel()
    problem = find_problem(json.dumps(with_header(id={"password": "s3cret"})).encode(), channel)
    assert problem is not None
    assert "s3cret" not in problem
    assert "id" in problem
