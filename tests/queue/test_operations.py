"""Cancel, retry, recovery and limits, on a real Redis and a fake hypervisor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from config.settings import HostSettings
from tasks import workflow
from tasks.model.domain import DomainState
from tasks.model.errors import InvalidRequest, OperatorMustFix
from tasks.model.run import State, StepName
from tasks.workflow import Handled
from tests.fakes.hypervisor import domain_xml
from tests.queue.harness import RedisServer
from tests.queue.workbench import AT_SOURCE, HOSTS, UUID, Bench

pytestmark = pytest.mark.queue


def test_nothing_moves_to_a_cordoned_host(bench: Bench) -> None:
    bench.vm()
    bench.runtime.cordons.put("beta", "kernel update")
    bench.submit()
    ended = bench.deliver_all()
    assert ended.state is State.REFUSED
    assert ended.error is not None
    assert (ended.error.code, ended.error.message) == ("HOST_CORDONED", "beta is cordoned: kernel update")
    assert "vmferry uncordon beta" in ended.error.hint
    assert bench.where() == AT_SOURCE
    assert bench.runtime.cordons.lift("beta")
    workflow.retry(bench.runtime, "m")
    assert bench.deliver_all().state is State.SUCCEEDED


def test_what_is_on_its_way_to_a_host_arrives(bench: Bench) -> None:
    bench.vm()
    bench.submit()
    bench.step("preflight")
    bench.runtime.cordons.put("beta", "")
    assert bench.deliver_all().state is State.SUCCEEDED


def test_what_leaves_a_cordoned_host_may_leave(bench: Bench) -> None:
    bench.vm()
    bench.runtime.cordons.put("alpha", "")
    bench.submit()
    assert bench.deliver_all().state is State.SUCCEEDED


def test_cordons_are_put_and_lifted(bench: Bench) -> None:
    cordons = bench.runtime.cordons
    assert cordons.find("beta") is None
    first = cordons.put("beta", "disk")
    assert cordons.put("beta", "") == first
    assert cordons.put("beta", "fans").reason == "fans"
    cordons.put("gamma", "")
    assert {host: cordon.words for host, cordon in cordons.all().items()} == {
        "beta": "cordoned: fans",
        "gamma": "cordoned",
    }
    assert (cordons.lift("beta"), cordons.lift("beta"), cordons.find("beta")) == (True, False, None)


@pytest.mark.parametrize("steps", [(), ("preflight",), ("preflight", "prepare")])
def test_cancel_before_the_transfer(bench: Bench, steps: tuple[str, ...]) -> None:
    bench.vm()
    bench.submit()
    for name in steps:
        bench.step(name)
    workflow.cancel(bench.runtime, "m")
    assert bench.deliver_all().state is State.CANCELLED
    assert bench.where() == AT_SOURCE
    assert bench.messages.settled == [("m", State.CANCELLED)]


def test_cancel_while_queued_ends_at_once(bench: Bench, redis_server: RedisServer) -> None:
    bench.vm()
    bench.submit("blocker")
    bench.submit("m", destination="gamma")
    assert bench.record().state is State.QUEUED
    ended = workflow.cancel(bench.runtime, "m")
    assert (ended.state, ended.cancel_requested) == (State.CANCELLED, True)


def test_cancel_after_the_switch_over_is_too_late(bench: Bench) -> None:
    bench.vm()
    bench.submit()
    for name in ("preflight", "prepare", "transfer"):
        bench.step(name)
    with pytest.raises(InvalidRequest) as caught:
        workflow.cancel(bench.runtime, "m")
    assert caught.value.code == "TOO_LATE"


def test_cancel_of_an_offline_migration_is_possible_until_the_source_goes(bench: Bench) -> None:
    bench.vm(running=False)
    bench.submit()
    for name in ("preflight", "prepare", "transfer"):
        bench.step(name)
    assert bench.where() == {"alpha": (False, False, True), "beta": (False, False, True)}
    workflow.cancel(bench.runtime, "m")
    assert bench.deliver_all().state is State.CANCELLED
    assert bench.where() == {"alpha": (False, True, False)}


def test_a_vm_that_moved_by_hand_is_found_again(bench: Bench) -> None:
    bench.vm("alpha")
    bench.submit(destination="gamma")
    bench.fake.hosts["beta"].domains[UUID] = bench.fake.hosts["alpha"].domains.pop(UUID)
    bench.messages.sent.clear()
    bench.step("preflight")
    assert bench.record().source == "beta"
    assert bench.deliver_all().state is State.SUCCEEDED
    assert list(bench.where()) == ["gamma"]


def test_a_named_source_is_not_second_guessed(bench: Bench) -> None:
    bench.vm("alpha")
    bench.submit(destination="gamma", source="alpha")
    bench.fake.hosts["beta"].domains[UUID] = bench.fake.hosts["alpha"].domains.pop(UUID)
    record = bench.deliver_all()
    assert record.state is State.REFUSED
    assert record.error is not None
    assert record.error.code == "VM_NOT_ON_SOURCE"


def test_the_reconciler_sends_what_nobody_works_on_and_only_then(bench: Bench, redis_server: RedisServer) -> None:
    bench = Bench(redis_server.url, hand_over_s=0.05)
    bench.vm()
    bench.submit()
    assert workflow.reconcile(bench.runtime) == 0
    bench.runtime.stopping.wait(0.1)
    assert workflow.reconcile(bench.runtime) == 1
    assert workflow.reconcile(bench.runtime) == 0
    assert bench.record().send == 2


def test_a_result_that_was_lost_is_published_again(bench: Bench) -> None:
    bench.vm()
    bench.submit()
    bench.deliver_all()
    bench.messages.results.clear()
    assert workflow.republish_missing(bench.runtime, 3600) == 1
    assert bench.messages.results["m"] == "succeeded"


def test_retry_is_another_attempt_under_the_same_id(bench: Bench) -> None:
    bench.vm()
    bench.submit()
    with bench.fake.failing("transfer", OperatorMustFix("X", "no")):
        bench.deliver_all()
    bench.messages.sent.clear()
    workflow.retry(bench.runtime, "m")
    assert bench.messages.results["m"] == "STARTED"
    assert bench.deliver_all().state is State.SUCCEEDED
    assert bench.record().attempt == 2
    with pytest.raises(InvalidRequest):
        workflow.retry(bench.runtime, "m")


def test_a_source_left_paused_by_libvirt_is_resumed_when_the_destination_has_nothing(bench: Bench) -> None:
    bench.vm()
    bench.submit()
    bench.step("preflight")
    bench.step("prepare")
    with bench.fake.failing("transfer", OperatorMustFix("X", "no")):
        bench.step("transfer")
    domain = bench.fake.hosts["alpha"].domains[UUID]
    domain.state, domain.reason = DomainState.PAUSED, 2
    bench.step("rollback")
    assert bench.record().state is State.FAILED
    assert domain.state is DomainState.RUNNING


def test_the_worker_that_lost_its_lease_has_no_further_effect(bench: Bench) -> None:
    """Rule 11: another owner took over while this one was inside an effect."""
    bench.vm()
    bench.submit()
    bench.step("preflight")
    write_mark = bench.fake.write_mark

    def taken_over(host: str, uuid: str, mark: Any) -> None:
        write_mark(host, uuid, mark)
        record = bench.record()
        bench.runtime.store.commit(record, record.model_copy(update={"owner": ""}), guard="rev", deadline_in=9)
        assert bench.runtime.store.claim("m", attempt=1, step=StepName.PREPARE, owner="thief", lease_s=9)

    bench.fake.write_mark = taken_over  # type: ignore[method-assign]
    assert bench.step("prepare") is Handled.CUT
    assert bench.where() == {"alpha": (True, True, True)}, (
        "autostart was touched by a worker that was no longer the owner"
    )


def test_limits_and_waiting_reasons(bench: Bench, redis_server: RedisServer) -> None:
    bench.vm()
    bench.fake.add_domain("alpha", domain_xml("b", UUID.replace("1", "a")), running=True)
    hosts = {n: HostSettings(uri="qemu+tcp://x/system", max_outgoing=1, max_incoming=1) for n in HOSTS}
    bench.runtime = replace(bench.runtime, settings=bench.runtime.settings.model_copy(update={"hosts": hosts}))
    bench.submit()
    bench.submit("n", vm="b", destination="gamma")
    assert bench.record("n").state is State.QUEUED
    assert bench.record("n").waiting_for == "as many migrations leave alpha as are allowed"
    assert bench.deliver_all().state is State.SUCCEEDED
    assert bench.deliver_all("n").state is State.SUCCEEDED
