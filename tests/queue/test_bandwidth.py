"""The bandwidth of links against a real Redis: at no moment is more allotted, or used, than a link has."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tasks import workflow
from tasks.model.bandwidth import Flow, Route
from tasks.model.errors import StaleOwner
from tasks.model.run import RunRecord, State, StepName
from tasks.store import ShareStore, connect
from tasks.workflow import run_step
from tests.fakes.hypervisor import domain_xml
from tests.queue.harness import RedisServer
from tests.queue.workbench import HOSTS, Bench

pytestmark = pytest.mark.queue

LIMIT = 30
HOSTS_WITHOUT_LIMITS = {name: {"uri": f"qemu+tcp://{name}/system", "max_outgoing": 30} for name in HOSTS}
RACK = {"rack": {"hosts": ["alpha"], "bandwidth_mib_s": LIMIT, "max_transfers": 30}}
ROUTE = Route(("link:rack",), {"link:rack": LIMIT})
AHEAD_S = 10.0


@pytest.fixture
def rack(redis_server: RedisServer) -> Bench:
    inventory = {n: {**values, "max_incoming": 30} for n, values in HOSTS_WITHOUT_LIMITS.items()}
    return Bench(redis_server.url, links=RACK, lease_s=1.0, hosts=inventory)


def uuid_of(number: int) -> str:
    return f"00000000-5555-4000-8000-{number:012d}"


def transferring(bench: Bench, number: int) -> RunRecord:
    """A migration whose next step is to transfer."""
    bench.fake.add_domain("alpha", domain_xml(f"vm-{number}", uuid_of(number)), running=True)
    workflow.submit(bench.runtime, {"vm": f"vm-{number}", "destination": "beta"}, f"m{number}")
    workflow.dispatch(bench.runtime)
    for name in ("preflight", "prepare"):
        bench.step(name, f"m{number}")
    return bench.record(f"m{number}")


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + AHEAD_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


class Sampler:
    """Looks all the time at what is allotted and at what is in force."""

    def __init__(self, bench: Bench) -> None:
        self._bench, self._over = bench, threading.Event()
        self.allotted: list[int] = []
        self.in_force: list[int] = []

    def run(self) -> None:
        shares = ShareStore(connect(self._bench.runtime.settings.broker_url))
        while not self._over.wait(0.001):
            self.allotted.append(sum(flow.held for flow in shares.all()))
            self.in_force.append(sum(self._bench.fake.bandwidths.copy().values()))

    @contextmanager
    def looking(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()


def wait_in_force(bench: Bench, shares: list[int]) -> None:
    until(lambda: sorted(bench.fake.bandwidths.values()) == shares, f"{shares} are not in force")


def held(bench: Bench) -> dict[str, int]:
    return {flow.id: flow.held for flow in bench.runtime.shares.all()}


def in_background(bench: Bench, number: int) -> threading.Thread:
    thread = threading.Thread(target=lambda: bench.step("transfer", f"m{number}"))
    thread.start()
    return thread


def test_they_share_and_who_is_left_gets_all_and_the_limit_holds_at_every_moment(rack: Bench) -> None:
    for number in range(3):
        transferring(rack, number)
    sampler, threads = Sampler(rack), []
    rack.fake.bandwidth_takes_s = 0.15  # longer than who begins waits between two looks
    with sampler.looking(), rack.fake.transfers_held():
        for number, shares in enumerate(([30], [15, 15], [10, 10, 10])):
            threads.append(in_background(rack, number))
            wait_in_force(rack, shares)
            assert sum(held(rack).values()) == LIMIT
        for number, shares in ((0, [15, 15]), (1, [30])):
            rack.fake.abort_job("alpha", uuid_of(number))
            threads[number].join()
            rack.step("rollback", f"m{number}")
            wait_in_force(rack, shares)
    for thread in threads:
        thread.join()
    assert rack.record("m2").state is State.VERIFYING
    assert held(rack) == {}
    assert max(sampler.allotted) == LIMIT
    assert max(sampler.in_force) == LIMIT


def test_what_a_dead_owner_has_stays_its_own_until_it_is_adopted(rack: Bench) -> None:
    """The transfer goes on with what it had; who begins meanwhile waits, in the record and not in a worker's slot."""
    first, second = transferring(rack, 0), transferring(rack, 1)
    sampler = Sampler(rack)
    with sampler.looking(), rack.fake.transfers_held():
        owner = rack.runtime.store.claim("m0", attempt=1, step=StepName.TRANSFER, owner="dies", lease_s=1.0)
        assert owner is not None
        flow, _ = rack.runtime.shares.ask(owner, Flow("m0", ROUTE.links), ROUTE, LIMIT)
        assert flow.held == LIMIT
        rack.step("transfer", "m1")  # comes back: there is nothing to begin with
        waiting = rack.record("m1")
        assert (waiting.state, waiting.owner, waiting.tries) == (State.TRANSFERRING, "", 0)
        assert waiting.waiting_for == "no bandwidth is left of link rack; m0 have it"
        assert held(rack) == {"m0": LIMIT, "m1": 0}
        assert not any(entry.kind == "transfer" for entry in waiting.journal)
        adopter, newcomer = in_background(rack, 0), in_background(rack, 1)
        until(lambda: sorted(rack.fake.bandwidths.values()) == [15, 15], "they do not share")
    adopter.join()
    newcomer.join()
    assert first.uuid != second.uuid
    assert (rack.record("m0").state, rack.record("m1").state) == (State.VERIFYING, State.VERIFYING)
    assert rack.record("m1").waiting_for is None
    assert max(sampler.allotted) == max(sampler.in_force) == LIMIT
    with pytest.raises(StaleOwner):
        rack.runtime.shares.ask(owner, Flow("m0", ROUTE.links), ROUTE, 1)


def test_many_owners_who_ask_at_once_never_get_more_than_there_is(rack: Bench) -> None:
    """Each asks for as much as it likes, comes down and goes up; some die, and their transfers go on."""
    owners = []
    for number in range(8):
        transferring(rack, number)
        claimed = rack.runtime.store.claim(f"m{number}", attempt=1, step=StepName.TRANSFER, owner="o", lease_s=30)
        assert claimed is not None
        owners.append(claimed)
    sampler = Sampler(rack)

    def ask(record: RunRecord, seed: int) -> None:
        shares = ShareStore(connect(rack.runtime.settings.broker_url))
        for turn in range(20 if seed < 2 else 120):  # the first two die early
            want = (turn * 7 + seed * 5) % (LIMIT + 5) + 1
            mine, _ = shares.ask(record, Flow(record.id, ROUTE.links), ROUTE, want)
            assert mine.held <= LIMIT

    threads = [threading.Thread(target=ask, args=(record, seed)) for seed, record in enumerate(owners)]
    with sampler.looking():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert 0 < max(sampler.allotted) <= LIMIT
    assert sum(held(rack).values()) <= LIMIT


def test_it_is_given_back_however_it_ends(rack: Bench) -> None:
    transferring(rack, 0)
    with rack.fake.transfers_held():
        thread = in_background(rack, 0)
        until(lambda: rack.fake.bandwidths.get(uuid_of(0)) == LIMIT, "it does not run")
        workflow.cancel(rack.runtime, "m0")
        thread.join()
        rack.step("rollback", "m0")
    assert rack.record("m0").state is State.CANCELLED
    assert held(rack) == {}


def test_more_disks_than_a_link_has_mib_s_are_refused_with_the_reason(redis_server: RedisServer) -> None:
    bench = Bench(redis_server.url, links={"rack": {"hosts": ["alpha"], "bandwidth_mib_s": 1}})
    record = transferring(bench, 0)
    copies = [{"target": t, "source": t, "format": "raw", "capacity_bytes": 1, "allocation_bytes": 1} for t in "ab"]
    copies = [copy | {"pool": "p", "volume": "v", "path": "/v"} for copy in copies]
    values = record.model_dump() | {"copies": copies}
    bench.runtime.store.commit(record, RunRecord.model_validate(values), guard="rev")
    run_step(bench.runtime, StepName.TRANSFER, "m0", 1)
    error = bench.record("m0").error
    assert error is not None
    assert error.code == "LINK_TOO_NARROW"
