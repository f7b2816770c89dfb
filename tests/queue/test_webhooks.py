"""Webhooks, on a real Redis and a real HTTP server that fails, hangs, and comes back."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from config.settings import WebhookSettings
from tasks import workflow
from tasks.model.run import State
from tasks.planning.webhooks import LONGEST_WAIT_S, wait_after
from tasks.posting import post
from tests.queue.harness import RedisServer
from tests.queue.workbench import Bench

pytestmark = pytest.mark.queue

SECRET = "a secret of some length"  # noqa: S105
THE_WAY = ["queued", "checking", "preparing", "transferring", "verifying", "finishing", "succeeded"]


class Receiver:
    """Another system."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.asked = 0
        self.status = 204
        self.hanging = threading.Event()
        self.go_on = threading.Event()

    @contextmanager
    def running(self, port: int = 0) -> Iterator[int]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.answer(self)

            def log_message(self, *_: Any) -> None:
                """Not here."""

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            self.go_on.set()
            server.shutdown()
            server.server_close()
            thread.join(5)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked += 1
        body = request.rfile.read(int(request.headers["Content-Length"]))
        if self.hanging.is_set():
            self.go_on.wait(10)
            return
        if self.status == 204:
            stamp, signature = (part.split("=", 1)[1] for part in request.headers["X-Vmferry-Signature"].split(","))
            wanted = hmac.new(SECRET.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
            assert hmac.compare_digest(signature, wanted)
            told = json.loads(body)
            assert told["position"] == request.headers["X-Vmferry-Event"]
            self.taken.append(told["event"])
        request.send_response(self.status)
        if self.status == 302:
            request.send_header("Location", "http://127.0.0.1:1/elsewhere")
        request.end_headers()

    @property
    def states(self) -> list[str]:
        return [event["state"] for event in self.taken]


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


Make = Callable[..., Bench]


@pytest.fixture
def make(redis_server: RedisServer) -> Make:
    def bench(port: int, **changes: Any) -> Bench:
        hook = WebhookSettings(url=f"http://127.0.0.1:{port}/hook", secret=SECRET, timeout_s=0.5, **changes)
        made = Bench(redis_server.url, webhooks={"ops": hook})
        deliver(made)  # from now on
        made.vm()
        return made

    return bench


def deliver(bench: Bench) -> int:
    return workflow.deliver_webhooks(bench.runtime, post)


def no_waiting(bench: Bench) -> None:
    """As if the time to wait were over."""
    kept = bench.runtime.webhooks.find("ops")
    assert kept is not None
    bench.runtime.webhooks.put("ops", kept.model_copy(update={"next_at": 0.0}))


def test_every_change_in_its_order_signed(make: Make, receiver: Receiver) -> None:
    with receiver.running() as port:
        bench = make(port)
        bench.submit(labels={"team": "db"})
        bench.deliver_all()
        assert deliver(bench) == 7
        assert receiver.states == THE_WAY
        assert all(event["labels"] == {"team": "db"} for event in receiver.taken)
        assert deliver(bench) == 0
        assert receiver.asked == 7


def test_only_what_is_wanted(make: Make, receiver: Receiver) -> None:
    with receiver.running() as port:
        bench = make(port, states=["succeeded", "failed"], kinds=["migration"])
        bench.submit()
        bench.deliver_all()
        assert deliver(bench) == 1
        assert receiver.states == ["succeeded"]
        bench.submit("again", destination="gamma")
        assert deliver(bench) == 0, "what is not wanted is passed over once"


@pytest.mark.parametrize("trouble", ["500", "302", "hangs", "away"])
def test_trouble_delays_and_loses_nothing(make: Make, receiver: Receiver, trouble: str) -> None:
    with receiver.running() as port:
        bench = make(port)
        bench.submit()
        assert deliver(bench) == 2
        bench.deliver_all()
        if trouble == "hangs":
            receiver.hanging.set()
        elif trouble != "away":
            receiver.status = int(trouble)
            assert deliver(bench) == 0
        if trouble == "hangs":
            assert deliver(bench) == 0
    if trouble == "away":
        assert deliver(bench) == 0
    kept = bench.runtime.webhooks.find("ops")
    assert kept is not None
    assert kept.tries == 1
    assert kept.error
    assert kept.next_at > bench.runtime.store.now()
    asked = receiver.asked
    assert deliver(bench) == 0
    assert receiver.asked == asked, "it is not tried again before its time"
    receiver.status = 204
    receiver.hanging.clear()
    with receiver.running(port):
        no_waiting(bench)
        assert deliver(bench) == 5
    assert receiver.states == THE_WAY
    assert bench.runtime.webhooks.undelivered("ops") == []
    kept = bench.runtime.webhooks.find("ops")
    assert kept is not None
    assert (kept.tries, kept.error) == (0, "")


def test_what_is_too_old_is_listed_and_the_rest_goes_on(make: Make, receiver: Receiver) -> None:
    with receiver.running() as port:
        bench = make(port, give_up_s=0.001)
        bench.submit()
        receiver.status = 500
        threading.Event().wait(0.05)
        assert deliver(bench) == 0
        lost = bench.runtime.webhooks.undelivered("ops")
        assert [json.loads(one.event)["state"] for one in lost] == ["queued", "checking"]
        assert {one.error for one in lost} == {"it answered 500"}
        receiver.status = 204
        bench.deliver_all()
        assert deliver(bench) == 5
        assert receiver.states == THE_WAY[2:]


def test_a_new_webhook_hears_of_what_happens_from_now_on(redis_server: RedisServer, receiver: Receiver) -> None:
    with receiver.running() as port:
        hook = WebhookSettings(url=f"http://127.0.0.1:{port}/", secret=SECRET)
        bench = Bench(redis_server.url, webhooks={"ops": hook})
        bench.vm()
        bench.submit()
        assert deliver(bench) == 0
        bench.deliver_all()
        assert deliver(bench) == 5
        assert receiver.states == THE_WAY[2:]


def test_one_at_a_time(make: Make, receiver: Receiver) -> None:
    with receiver.running() as port:
        bench = make(port)
        bench.submit()
        token = bench.runtime.turns.take("webhook:ops", 60)
        assert deliver(bench) == 0
        bench.runtime.turns.give_back("webhook:ops", token)
        assert deliver(bench) == 2


def test_one_that_fails_does_not_hold_up_another(redis_server: RedisServer, receiver: Receiver) -> None:
    with receiver.running() as port:
        hooks = {
            "gone": WebhookSettings(url="http://127.0.0.1:1/", secret=SECRET, timeout_s=0.5),
            "ops": WebhookSettings(url=f"http://127.0.0.1:{port}/", secret=SECRET),
        }
        bench = Bench(redis_server.url, webhooks=hooks)
        deliver(bench)
        bench.vm()
        bench.submit()
        assert deliver(bench) == 2
        assert bench.record().state is State.CHECKING


def test_waits_grow_to_an_end() -> None:
    waits = [wait_after(tries) for tries in range(1, 100)]
    assert waits[:4] == [2.0, 4.0, 8.0, 16.0]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT_S
