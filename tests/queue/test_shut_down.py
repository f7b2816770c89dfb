"""VMs that are shut down to be moved, on a real Redis and a fake hypervisor: by their own migrations, and by drains."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from config.settings import PolicySettings
from tasks import workflow
from tasks.model.domain import DomainState
from tasks.model.errors import InvalidRequest, OperatorMustFix
from tasks.model.run import State
from tasks.workflow import Handled
from tests.fakes.domain import PAUSED_USER, SHUTOFF_SHUTDOWN
from tests.fakes.hypervisor import FakeHypervisor
from tests.queue.harness import RedisServer
from tests.queue.workbench import AT_SOURCE, MOVED, UUID, Bench

pytestmark = pytest.mark.queue

ALLOWED = {"method": "offline", "shut_down": "allowed"}
STEPS = ("preflight", "prepare", "transfer", "verify", "finish")


@pytest.fixture
def bench(redis_server: RedisServer) -> Bench:
    """Guests get half a second to shut down."""
    return Bench(redis_server.url, policies={"default": PolicySettings(shut_down_timeout_s=0.5)})


def asked(bench: Bench, **values: Any) -> None:
    bench.vm(autostart=True)
    bench.submit(**ALLOWED | values)


def started(bench: Bench) -> dict[str, int]:
    """How often the VM was booted on each host."""
    return {name: host.domains[UUID].started for name, host in bench.fake.hosts.items() if UUID in host.domains}


def test_it_is_asked_moved_and_started_again(bench: Bench) -> None:
    asked(bench)
    record = bench.deliver_all()
    assert record.state is State.SUCCEEDED, record.error
    assert bench.where() == MOVED
    assert started(bench) == {"beta": 1}
    kinds = [entry.kind for entry in record.journal]
    assert kinds.index("source_autostart") < kinds.index("source_shut_down") < kinds.index("destination_definition")
    assert kinds.index("destination_start") < kinds.index("source_undefine")


def test_it_is_never_done_unasked(bench: Bench) -> None:
    bench.vm()
    bench.submit(method="offline")
    record = bench.deliver_all()
    assert record.state is State.REFUSED
    assert record.error is not None
    assert record.error.code == "METHOD_NEEDS_SHUT_OFF_VM"
    assert ("shut_down", "alpha") not in bench.fake.calls
    with pytest.raises(InvalidRequest):
        bench.submit("n", shut_down="allowed")
    with pytest.raises(InvalidRequest):
        bench.submit("n", shut_down="allowed", method="live")


def test_a_plan_says_so(bench: Bench) -> None:
    from tasks.model.request import parse_request
    from tasks.steps.survey import survey

    bench.vm()
    request = parse_request({"vm": "web-7", "destination": "beta", **ALLOWED})
    plan = survey(bench.fake, ("alpha", "beta"), request)
    assert plan.allowed
    assert "asked to shut down" in plan.reason
    assert plan.outlook is not None
    assert plan.outlook.downtime == "transfer"
    assert bench.fake.calls == [("set_autostart", "alpha")], "a look changes nothing"


def test_one_that_does_not_hear_stays_and_runs(bench: Bench) -> None:
    bench.fake.deaf.add(UUID)
    asked(bench)
    record = bench.deliver_all()
    assert record.state is State.FAILED
    assert record.error is not None
    assert record.error.code == "SHUT_DOWN_TIMEOUT"
    assert bench.where() == AT_SOURCE
    assert started(bench) == {"alpha": 1}
    assert bench.fake.calls.count(("shut_down", "alpha")) == 1
    assert not any(call == "destroy" for call, _ in bench.fake.calls)


@pytest.mark.parametrize("call", ["define", "start"])
def test_when_the_rest_does_not_work_it_runs_again_where_it_was(bench: Bench, call: str) -> None:
    asked(bench)
    for name in STEPS[:2]:
        bench.step(name)
    with bench.fake.failing(call, OperatorMustFix("BROKEN", "no", "")):
        for name in STEPS[2:]:
            bench.step(name)
    bench.step("rollback")
    record = bench.record()
    assert record.state is State.FAILED, record.error
    assert bench.where() == AT_SOURCE
    assert started(bench) == {"alpha": 2}


def test_what_is_found_when_it_is_off_brings_it_back_too(bench: Bench) -> None:
    """Preflight looks again, and what it says then counts."""
    asked(bench)
    bench.step("preflight")
    bench.runtime.cordons.put("beta", "smoke")
    bench.step("prepare")
    bench.step("rollback")
    record = bench.record()
    assert record.state is State.FAILED
    assert record.error is not None
    assert record.error.message.startswith("now that it is shut off: ")
    assert bench.where() == AT_SOURCE
    assert started(bench) == {"alpha": 2}


def test_cancelled_while_it_is_off(bench: Bench) -> None:
    asked(bench)
    for name in STEPS[:3]:
        bench.step(name)
    workflow.cancel(bench.runtime, "m")
    bench.step("verify")
    bench.step("rollback")
    assert bench.record().state is State.CANCELLED
    assert bench.where() == AT_SOURCE
    assert started(bench) == {"alpha": 2}


def test_cancelled_while_it_is_still_going_off(redis_server: RedisServer) -> None:
    """What it was asked cannot be taken back: it is waited for, and started again."""
    bench = Bench(redis_server.url, policies={"default": PolicySettings(shut_down_timeout_s=60)})
    bench.fake.deaf.add(UUID)
    asked(bench)
    bench.step("preflight")
    with ThreadPoolExecutor(1) as pool:
        preparing = pool.submit(bench.step, "prepare")
        while ("shut_down", "alpha") not in bench.fake.calls:
            assert not preparing.done()
        workflow.cancel(bench.runtime, "m")
        preparing.result()
    bench.step("rollback")
    assert bench.record().state is State.ROLLING_BACK
    assert "is started again if it does" in str(bench.record().waiting_for)
    bench.fake.deaf.clear()
    bench.fake.shut_down("alpha", UUID)
    bench.step("rollback")
    assert bench.record().state is State.CANCELLED
    assert bench.where() == AT_SOURCE
    assert started(bench) == {"alpha": 2}


def break_after(bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str, step: str) -> None:
    """The call does what it shall, and its answer is an error."""
    real = getattr(FakeHypervisor, call)

    def done_and_broken(fake: FakeHypervisor, host: str, uuid: str) -> None:
        real(fake, host, uuid)
        raise OperatorMustFix("BROKEN", "the answer was lost", "")

    with monkeypatch.context() as patched:
        patched.setattr(FakeHypervisor, call, done_and_broken)
        bench.step(step)


def test_started_there_and_the_answer_lost_it_goes_forward(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(bench)
    for name in STEPS[:4]:
        bench.step(name)
    break_after(bench, monkeypatch, "start", "finish")
    for name in ("rollback", "verify", "finish"):
        bench.step(name)
    record = bench.record()
    assert record.state is State.SUCCEEDED, record.error
    assert record.forwards == 1
    assert bench.where() == MOVED
    assert started(bench) == {"beta": 1}


def test_asked_and_the_answer_lost_it_is_started_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(bench)
    bench.step("preflight")
    break_after(bench, monkeypatch, "shut_down", "prepare")
    bench.step("rollback")
    assert bench.record().state is State.FAILED
    assert bench.where() == AT_SOURCE
    assert started(bench) == {"alpha": 2}


def test_one_that_does_not_keep_running_there_is_left_to_a_person(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disks have gone on there: starting it on the source would lose what was written."""
    asked(bench)
    for name in STEPS[:4]:
        bench.step(name)
    real = FakeHypervisor.start

    def start_and_stop(fake: FakeHypervisor, host: str, uuid: str) -> None:
        real(fake, host, uuid)
        domain = fake.hosts[host].domains[uuid]
        domain.state, domain.reason = DomainState.SHUTOFF, SHUTOFF_SHUTDOWN

    with monkeypatch.context() as patched:
        patched.setattr(FakeHypervisor, "start", start_and_stop)
        bench.step("finish")
    bench.step("rollback")
    record = bench.record()
    assert record.state is State.NEEDS_ATTENTION
    assert bench.where() == {"alpha": (False, False, True), "beta": (False, False, True)}
    bench.fake.start("beta", UUID)
    workflow.retry(bench.runtime, "m")
    for name in ("rollback", "verify", "finish"):
        bench.step(name)
    assert bench.record().state is State.SUCCEEDED
    assert bench.where() == MOVED


def test_one_that_was_shut_down_by_somebody_else_meanwhile_stays_off(bench: Bench) -> None:
    asked(bench)
    bench.step("preflight")
    bench.fake.shut_down("alpha", UUID)
    for name in STEPS[1:]:
        bench.step(name)
    assert bench.record().state is State.SUCCEEDED
    assert bench.where() == {"beta": (False, True, False)}


def test_one_that_is_shut_off_already_is_moved_as_ever(bench: Bench) -> None:
    bench.vm(running=False)
    bench.submit(**ALLOWED)
    assert bench.deliver_all().state is State.SUCCEEDED
    assert bench.where() == {"beta": (False, True, False)}


@pytest.mark.parametrize("persistent", [True, False])
def test_what_cannot_be_shut_down(bench: Bench, persistent: bool) -> None:
    asked(bench)
    domain = bench.fake.hosts["alpha"].domains[UUID]
    if persistent:
        domain.state, domain.reason = DomainState.PAUSED, PAUSED_USER
    domain.persistent = persistent
    record = bench.deliver_all()
    assert record.state is State.REFUSED
    assert record.error is not None
    assert record.error.code == "CANNOT_SHUT_DOWN"


def test_another_worker_goes_on_waiting_where_the_first_ended(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not asked a second time, and gets no more time than once."""
    bench = Bench(redis_server.url, lease_s=1.0, policies={"default": PolicySettings(shut_down_timeout_s=3.0)})
    bench.fake.deaf.add(UUID)
    asked(bench)
    bench.step("preflight")

    def die(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tasks.steps.shutdown._wait_until_off", die)
        with pytest.raises(KeyboardInterrupt):
            bench.step("prepare")
    began = bench.runtime.store.now()
    while bench.step("prepare") is Handled.CUT and bench.record().state is State.PREPARING:
        pass
    assert bench.runtime.store.now() - began < 4.5
    bench.step("rollback")
    assert bench.record().error is not None
    assert bench.fake.calls.count(("shut_down", "alpha")) == 1


def test_one_that_was_booting_is_asked_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hears nothing at first, and nobody would press a second time."""
    monkeypatch.setattr("tasks.steps.shutdown.LOOK_S", 0.05)
    monkeypatch.setattr("tasks.steps.shutdown.ASK_AGAIN_S", 0.1)
    bench.fake.deaf.add(UUID)
    asked(bench)
    real = bench.fake.shut_down

    def shut_down(host: str, uuid: str) -> None:
        real(host, uuid)
        bench.fake.deaf.clear()

    monkeypatch.setattr(bench.fake, "shut_down", shut_down)
    assert bench.deliver_all().state is State.SUCCEEDED
    assert bench.fake.calls.count(("shut_down", "alpha")) == 2
    assert bench.where() == MOVED


def test_the_time_that_it_may_take_to_shut_down_counts(redis_server: RedisServer) -> None:
    bench = Bench(redis_server.url, policies={"default": PolicySettings(shut_down_timeout_s=300.0)})
    bench.vm()
    for _ in range(3):
        bench.runtime.rates.note("alpha", "beta", 1e9)
    now = bench.runtime.store.now()
    bench.submit("short", deadline=now + 200, **ALLOWED)
    record = bench.record("short")
    assert record.state is State.REFUSED
    assert record.error is not None
    assert "would end after the deadline" in record.error.message
    bench.submit("long", deadline=now + 400, **ALLOWED)
    assert bench.deliver_all("long").state is State.SUCCEEDED


def test_whoever_looks_sees_what_it_waits_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.fake.deaf.add(UUID)
    asked(bench)
    seen = []
    monkeypatch.setattr("tasks.steps.shutdown.LOOK_S", 0.1)
    real = bench.runtime.store.commit

    def commit(*args: Any, **kwargs: Any) -> Any:
        record = real(*args, **kwargs)
        seen.append(record.waiting_for)
        return record

    monkeypatch.setattr(bench.runtime.store, "commit", commit)
    assert bench.deliver_all().waiting_for is None
    assert "its guest was asked to shut down" in seen


def test_tried_again_it_is_asked_again(bench: Bench) -> None:
    bench.fake.deaf.add(UUID)
    asked(bench)
    assert bench.deliver_all().state is State.FAILED
    bench.fake.deaf.clear()
    workflow.retry(bench.runtime, "m")
    record = bench.deliver_all()
    assert record.state is State.SUCCEEDED, record.error
    assert bench.where() == MOVED
    assert started(bench) == {"beta": 1}
