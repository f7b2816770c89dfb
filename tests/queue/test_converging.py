"""What a policy does to the guest while its transfer runs, on a fake hypervisor."""

from __future__ import annotations

import pytest

from config.settings import PolicySettings
from tasks.model.domain import DomainState
from tasks.model.run import State
from tests.queue.harness import RedisServer
from tests.queue.workbench import AT_SOURCE, UUID, Bench

pytestmark = pytest.mark.queue

HASTY = {"hasty": PolicySettings(completion_timeout_s=0.2, on_timeout="pause")}


@pytest.mark.parametrize("paused", [False, True])
def test_given_up_it_is_left_as_its_owner_had_it(redis_server: RedisServer, paused: bool) -> None:
    """A guest that ran stood still for the transfer, and goes on; one that its owner had paused stays so."""
    bench = Bench(redis_server.url, policies=HASTY)
    bench.vm()
    if paused:
        bench.fake.suspend("alpha", UUID)
    bench.fake.calls.clear()
    bench.submit(policy="hasty")
    with bench.fake.transfers_held():
        record = bench.deliver_all()
    assert record.state is State.FAILED
    assert record.error is not None
    assert record.error.code == "COMPLETION_TIMEOUT"
    assert bench.where() == AT_SOURCE
    state = bench.fake.hosts["alpha"].domains[UUID].state
    assert state is (DomainState.PAUSED if paused else DomainState.RUNNING)
    assert [entry.kind for entry in record.journal].count("source_pause") == (0 if paused else 1)
    assert bench.fake.calls.count(("suspend", "alpha")) == (0 if paused else 1)
