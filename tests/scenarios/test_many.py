"""Many transfers at the same time: what people ask meanwhile is answered while they go on, and all end well."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from config.celery import CONTROL_QUEUE
from tasks.model.run import State
from tasks.wiring import build_runtime
from tasks.workflow import reconcile
from tests.lab import Guest, Lab
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack, until

pytestmark = pytest.mark.lab

COUNT = 32
RING = {"alpha": "beta", "beta": "gamma", "gamma": "alpha"}
"""Each host sends a third: a peer-to-peer migration occupies one of the source's libvirt workers (20) to its end."""
CROWD_TIMEOUT_S = 30.0
BATCH, RUN_S = 4, 2.0
"""So many guests run for so many seconds."""


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("many")
    with stack(
        lab, folder, limits=COUNT, max_total=40, step_concurrency=40, policies={"slow": {"bandwidth_mib_s": 2}}
    ) as made:
        made.start(steps=0)
        made.steps_worker(concurrency=40)
        yield made


@pytest.fixture(scope="module")
def guests(lab: Lab) -> Iterator[list[Guest]]:
    """Guests that ran until their kernel was loaded, which is memory to send, and are paused: 32 that run would be
    more than the processors bear."""
    with ExitStack() as made:
        crowd: list[Guest] = []
        for number in range(COUNT):
            host = list(RING)[number % len(RING)]
            crowd.append(lab.guest(f"crowd-{number}", host, memory_mib=96, disk=None, network=False))
            made.callback(crowd[-1].remove)
            if len(crowd) % BATCH == 0:
                time.sleep(RUN_S)
                for guest in crowd[-BATCH:]:
                    pause(lab, guest)
        yield crowd


def pause(lab: Lab, guest: Guest) -> None:
    """As an operator does."""
    with closing(lab.host(guest.host).connect()) as conn:
        conn.lookupByUUIDString(guest.uuid).suspend()


def in_flight(running: Stack) -> int:
    """How many transfers have begun and not ended, as the records say."""
    records = running.client.list_runs()
    return sum(r.state is State.TRANSFERRING and any(e.kind == "transfer" for e in r.journal) for r in records)


@contextmanager
def answered(running: Stack, what: str) -> Iterator[None]:
    """What the block asks for is answered while the transfers are in flight, not after them."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    print(f"{what}: {took * 1000:.0f} ms")
    assert in_flight(running) >= COUNT - 4, f"{what} was answered after {took:.1f} s, when transfers had ended"


def test_while_many_transfers_run_everything_else_is_answered(running: Stack, lab: Lab, guests: list[Guest]) -> None:
    submit = running.client.submit
    ids = [submit({"vm": g.name, "destination": RING[g.host], "policy": "slow"}).id for g in guests]
    until(lambda: in_flight(running) == COUNT, CROWD_TIMEOUT_S, running.logs)
    app = running.plain_celery()
    with answered(running, "show"):
        assert running.client.show(ids[0]).state is State.TRANSFERRING
    with answered(running, "list"):
        assert len(running.client.list_runs()) == COUNT
    with answered(running, "tasks.show through the queue"):
        assert app.send_task("tasks.show", (ids[1],), queue=CONTROL_QUEUE).get(timeout=10)["state"] == "transferring"
    with answered(running, "a pass of the reconciler"):
        runtime = build_runtime(running.settings, app)
        assert reconcile(runtime) == 0, "it took a transfer for an abandoned one"
        runtime.hypervisor.close()
    with answered(running, "cancel, rolled back"):
        running.client.cancel(ids[2])
        assert running.wait_end(ids[2]).state is State.CANCELLED, running.diagnosis(ids[2])
    ended = [running.wait_end(run_id) for run_id in ids]
    for number, record in enumerate(ended):
        expected = State.CANCELLED if number == 2 else State.SUCCEEDED
        assert (record.state, record.attempt) == (expected, 1), running.diagnosis(record.id)
        check_invariants(running, guests[number], record, was_running=True, autostart=False)
