"""Limits of storage pools: who uses them is known only when a VM was looked at, and who waits for one has nothing."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import pytest

from tasks import workflow
from tasks.model.disks import Volume
from tasks.model.host import Pool
from tasks.model.run import State, StepName
from tasks.workflow import Handled
from tests.fakes.hypervisor import domain_xml
from tests.queue.harness import RedisServer
from tests.queue.workbench import HOSTS, Bench

pytestmark = pytest.mark.queue

MIB = 1 << 20
MANY: dict[str, Any] = {
    "hosts": {name: {"uri": f"qemu+tcp://{name}/system", "max_outgoing": 30, "max_incoming": 30} for name in HOSTS}
}
FULL = "as many copy out of or into pool {} as are allowed"


def bench_with(server: RedisServer, pools: dict[str, Any], **settings: Any) -> Bench:
    bench = Bench(server.url, pools=pools, **MANY | settings)
    for name in HOSTS:
        host = bench.fake.hosts[name]
        pool = Pool("images", "dir", active=True, target="/images", available_bytes=1 << 40)
        host.facts = replace(host.facts, pools=(pool,))
        host.volumes["images"] = {}
    return bench


def ask(bench: Bench, number: int, source: str = "alpha", *, disk: bool = True, **values: Any) -> str:
    path, uuid = f"/images/vm-{number}.raw", f"00000000-6666-4000-8000-{number:012d}"
    inside = f"<disk type='file' device='disk'><driver type='raw'/><source file='{path}'/><target dev='vda'/></disk>"
    if disk:
        volume = Volume(f"vm-{number}.raw", path, MIB, MIB, "raw", MIB, modified="1")
        bench.fake.hosts[source].volumes["images"][volume.name] = volume
    xml = domain_xml(f"vm-{number}", uuid, inside=inside if disk else "")
    bench.fake.add_domain(source, xml, running=True)
    request = {"vm": f"vm-{number}", "source": source, "destination": "beta"} | values
    workflow.submit(bench.runtime, request, f"m{number}")
    return f"m{number}"


def states(bench: Bench, *ids: str) -> list[State]:
    return [bench.record(run_id).state for run_id in ids]


def test_who_comes_last_waits_in_the_queue_with_nothing_in_its_hands(redis_server: RedisServer) -> None:
    bench = bench_with(redis_server, {"images": {"max_transfers": 1}})
    first, second = ask(bench, 0), ask(bench, 1, "gamma")
    workflow.dispatch(bench.runtime)
    for run_id in (first, second):
        bench.step("preflight", run_id)
    assert bench.record(first).state is State.PREPARING, bench.record(first).error
    assert bench.record(first).pools == ("alpha/images", "beta/images")
    waiting = bench.record(second)
    assert (waiting.state, waiting.step, waiting.owner) == (State.QUEUED, None, "")
    assert waiting.waiting_for == FULL.format("beta/images")
    names = ["out:gamma", "in:beta", "total", "pool:gamma/images", "pool:beta/images"]
    used = bench.runtime.store.tokens_in_use(names)
    assert used == {"out:gamma": 0, "in:beta": 1, "total": 1, "pool:gamma/images": 0, "pool:beta/images": 1}
    bench.deliver_all(first)
    assert states(bench, first, second) == [State.SUCCEEDED, State.SUCCEEDED]
    assert set(bench.runtime.store.tokens_in_use(names).values()) == {0}


def test_it_is_not_overtaken_by_who_comes_later(redis_server: RedisServer) -> None:
    """A newcomer's preflight must not take from under its nose what the first in the queue waits for."""
    bench = bench_with(redis_server, {"images": {"max_transfers": 1}})
    first, second, third = ask(bench, 0), ask(bench, 1, "gamma"), ask(bench, 2, "gamma")
    workflow.dispatch(bench.runtime)
    for run_id in (first, second):
        bench.step("preflight", run_id)
    assert states(bench, first, second, third) == [State.PREPARING, State.QUEUED, State.CHECKING]
    for name in ("prepare", "transfer"):
        bench.step(name, first)  # the pool is free now, and nobody has dispatched yet
    bench.step("preflight", third)
    assert bench.record(third).state is State.QUEUED
    assert bench.record(second).state is State.CHECKING
    bench.deliver_all(first)
    assert states(bench, first, second, third) == [State.SUCCEEDED] * 3
    started = [bench.record(run_id).timings[-1].started_at for run_id in (second, third)]
    assert started == sorted(started)


def test_it_keeps_its_place_in_the_queue(redis_server: RedisServer) -> None:
    bench = bench_with(redis_server, {"images": {"max_transfers": 1}}, max_total=2)
    first, second, third = ask(bench, 0), ask(bench, 1, "gamma"), ask(bench, 2, "gamma")
    workflow.dispatch(bench.runtime)
    assert states(bench, first, second, third) == [State.CHECKING, State.CHECKING, State.QUEUED]
    bench.step("preflight", first)
    bench.step("preflight", second)
    ranks = {lane.head: lane.score for lane in bench.runtime.queue.lanes()}
    assert ranks[second] < bench.record(third).submitted_at
    bench.deliver_all(first)
    assert states(bench, first, second, third) == [State.SUCCEEDED] * 3


def test_who_copies_nothing_does_not_wait(redis_server: RedisServer) -> None:
    bench = bench_with(redis_server, {"images": {"max_transfers": 1}})
    first, second = ask(bench, 0), ask(bench, 1, disk=False)
    workflow.dispatch(bench.runtime)
    for run_id in (first, second):
        bench.step("preflight", run_id)
    assert states(bench, first, second) == [State.PREPARING, State.PREPARING]


def test_one_storage_counts_together_and_a_host_of_its_own_for_itself(redis_server: RedisServer) -> None:
    pools = {"images": {"max_transfers": 1, "shared": True}, "gamma/images": {"max_transfers": 9}}
    bench = bench_with(redis_server, pools)
    first, second, third = ask(bench, 0), ask(bench, 1, destination="gamma"), ask(bench, 2, "gamma", destination="beta")
    workflow.dispatch(bench.runtime)
    for run_id in (first, second, third):
        bench.step("preflight", run_id)
    assert states(bench, first, second, third) == [State.PREPARING, State.QUEUED, State.QUEUED]
    assert bench.record(second).waiting_for == FULL.format("images")
    assert bench.record(third).waiting_for == FULL.format("images")


def test_a_crowd_gets_through_and_the_limit_holds_at_every_moment(redis_server: RedisServer) -> None:
    bench = bench_with(redis_server, {"beta/images": {"max_transfers": 2}}, max_total=5)
    ids = [ask(bench, number, ("alpha", "gamma")[number % 2]) for number in range(12)]
    workflow.dispatch(bench.runtime)
    most = taken = turns = 0
    chains: deque[tuple[str, list[StepName]]] = deque()
    while chains or taken < len(bench.messages.sent):
        chains += [(record.id, list(steps)) for record, steps in bench.messages.sent[taken:]]
        taken, turns = len(bench.messages.sent), turns + 1
        assert turns < 1000, "they chase each other through the queue"
        run_id, steps = chains.popleft()  # all chains go on at the same time, a step each
        if bench.step(steps.pop(0), run_id) is Handled.ADVANCED and steps:
            chains.append((run_id, steps))
        most = max(most, bench.runtime.store.tokens_in_use(["pool:beta/images"])["pool:beta/images"])
    assert states(bench, *ids) == [State.SUCCEEDED] * 12, [bench.record(i).waiting_for for i in ids]
    assert most == 2
