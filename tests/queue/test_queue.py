"""A long queue: who starts does not depend on its length, nor does the cost of finding out."""

from __future__ import annotations

import pytest

from tasks import workflow
from tasks.model.run import State
from tasks.store import connect
from tests.fakes.hypervisor import domain_xml
from tests.queue.harness import RedisServer
from tests.queue.workbench import Bench

pytestmark = pytest.mark.queue

MANY = 620
"""More than are looked at in one lane at one time."""


def add(bench: Bench, number: int, host: str = "alpha") -> None:
    uuid = f"00000000-3333-4000-8000-{number:012d}"
    bench.fake.add_domain(host, domain_xml(f"vm-{number}", uuid), running=True)


def ask(bench: Bench, number: int, destination: str = "beta", source: str = "alpha", **values: object) -> str:
    run_id = f"q{number}"
    workflow.submit(
        bench.runtime, {"vm": f"vm-{number}", "source": source, "destination": destination} | values, run_id
    )
    return run_id


def started(bench: Bench) -> set[str]:
    return {run.id for run in bench.runtime.store.active()}


def commands(server: RedisServer) -> int:
    """How many commands Redis has served, but for those inside of scripts."""
    return sum(
        int(figures["calls"])
        for name, figures in connect(server.url).info("commandstats").items()
        if name in ("cmdstat_hgetall", "cmdstat_evalsha", "cmdstat_zrangebyscore")
    )


def test_looking_costs_the_same_however_many_wait(bench: Bench, redis_server: RedisServer) -> None:
    for number in range(MANY):
        add(bench, number)
        ask(bench, number)
    workflow.dispatch(bench.runtime)
    assert started(bench) == {"q0", "q1"}
    before = commands(redis_server)
    workflow.dispatch(bench.runtime)
    assert commands(redis_server) - before < 10
    waiting = bench.runtime.store.load(f"q{MANY - 1}")
    assert waiting.waiting_for == "as many migrations leave alpha as are allowed"
    listed = {run.id: run.waiting_for for run in bench.runtime.store.list_runs()}
    assert listed["q2"] == waiting.waiting_for
    assert listed["q0"] is None


def test_those_who_wait_for_their_time_keep_nobody_back(bench: Bench) -> None:
    later = bench.runtime.store.now() + 1000
    for number in range(MANY):
        add(bench, number)
        ask(bench, number, not_before=later + number % 3)
    add(bench, MANY)
    last = ask(bench, MANY)
    workflow.dispatch(bench.runtime)
    assert started(bench) == {last}
    assert str(bench.record("q0").waiting_for).startswith("not before ")


def test_those_whose_vm_is_locked_keep_nobody_back(bench: Bench) -> None:
    add(bench, 0)
    add(bench, 1)
    first = ask(bench, 0)
    workflow.dispatch(bench.runtime)
    for number in range(20):
        workflow.submit(bench.runtime, {"vm": "vm-0", "source": "alpha", "destination": "beta"}, f"again{number}")
    last = ask(bench, 1)
    workflow.dispatch(bench.runtime)
    assert started(bench) == {first, last}
    assert "q0 holds the lock" in str(bench.record("again3").waiting_for)


def test_priority_goes_before_age_in_all_lanes(bench: Bench) -> None:
    for number, (destination, priority) in enumerate((("beta", 0), ("gamma", 5), ("beta", 1), ("gamma", 0))):
        add(bench, number)
        ask(bench, number, destination, priority=priority)
    workflow.dispatch(bench.runtime)
    assert started(bench) == {"q1", "q2"}


def test_what_was_queued_by_an_older_version_is_found(bench: Bench, redis_server: RedisServer) -> None:
    add(bench, 1)
    run_id = ask(bench, 1)
    client = connect(redis_server.url)
    for key in ["vmferry:lanes", *client.keys("vmferry:lane:*")]:
        client.delete(key)
    client.hdel(f"vmferry:run:{run_id}", "lane")
    workflow.dispatch(bench.runtime)
    assert bench.record(run_id).state is State.QUEUED
    workflow.reconcile(bench.runtime)
    assert bench.record(run_id).state is State.CHECKING


def test_nothing_is_left_of_a_lane_that_is_empty(bench: Bench, redis_server: RedisServer) -> None:
    add(bench, 1)
    ask(bench, 1)
    workflow.dispatch(bench.runtime)
    bench.deliver_all("q1")
    assert bench.record("q1").state is State.SUCCEEDED
    assert connect(redis_server.url).keys("vmferry:lane*") == []


def test_a_vm_that_must_be_found_first_moves_to_its_lane(bench: Bench) -> None:
    for number in range(3):
        add(bench, number)
        workflow.submit(bench.runtime, {"vm": f"vm-{number}", "destination": "beta"}, f"q{number}")
    workflow.dispatch(bench.runtime)
    assert started(bench) == {"q0", "q1"}
    workflow.dispatch(bench.runtime)
    assert bench.record("q2").waiting_for in (
        "as many arrive at beta as are allowed",
        "as many migrations leave alpha as are allowed",
    )
