"""The workflow on a real Redis and a fake hypervisor: the safety rules, each with what would break it.

Steps are run by hand in the order in which their messages were sent, so that every order can be tried.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from config.settings import HostSettings, Settings
from tasks import workflow
from tasks.model.domain import DomainState
from tasks.model.errors import HostUnreachable, InvalidRequest, OperatorMustFix
from tasks.model.run import RunRecord, State, StepName
from tasks.store import RunStore, connect
from tasks.workflow import Handled, Runtime, run_step
from tests.fakes.hypervisor import FakeHypervisor, domain_xml
from tests.queue.harness import RedisServer

pytestmark = pytest.mark.queue

UUID = "11111111-2222-3333-4444-555555555555"
HOSTS = ("alpha", "beta", "gamma")
DONE = Handled.ADVANCED


class Messages:
    """A Messenger that keeps what it is told."""

    def __init__(self) -> None:
        self.sent: list[tuple[RunRecord, tuple[StepName, ...]]] = []
        self.results: dict[str, str] = {}
        self.settled: list[tuple[str, State]] = []

    def send_steps(self, record: RunRecord, steps: tuple[StepName, ...]) -> None:
        self.sent.append((record, steps))

    def store_started(self, result_id: str) -> None:
        self.results.setdefault(result_id, "STARTED")

    def store_settled(self, result_id: str, record: RunRecord) -> None:
        self.results[result_id] = record.state
        self.settled.append((result_id, record.state))

    def has_settled(self, result_id: str) -> bool:
        return self.results.get(result_id, "STARTED") != "STARTED"

    def forget(self, result_id: str) -> None:
        self.results.pop(result_id, None)


class Bench:
    """A runtime whose messages are delivered by hand."""

    def __init__(self, url: str, **settings: Any) -> None:
        client = connect(url)
        client.flushdb()
        inventory = {name: HostSettings(uri=f"qemu+tcp://{name}/system") for name in HOSTS}
        timers: dict[str, Any] = {"lease_s": 5.0, "progress_period_s": 0.01, "unreachable_timeout_s": 0.0}
        self.fake = FakeHypervisor(*HOSTS)
        self.messages = Messages()
        self.runtime = Runtime(
            settings=Settings(broker_url=url, hosts=inventory, **timers | settings),
            store=RunStore(client, retention_s=60),
            hypervisor=self.fake,
            messenger=self.messages,
        )

    def vm(self, host: str = "alpha", *, running: bool = True, autostart: bool = True) -> None:
        self.fake.add_domain(host, domain_xml("web-7", UUID), running=running)
        self.fake.set_autostart(host, UUID, enabled=autostart)

    def submit(self, run_id: str = "m", **values: Any) -> RunRecord:
        record = workflow.submit(self.runtime, {"vm": "web-7", "destination": "beta"} | values, run_id)
        workflow.dispatch(self.runtime)
        return record

    def step(self, name: str, run_id: str = "m") -> Handled:
        return run_step(self.runtime, StepName(name), run_id, self.record(run_id).attempt)

    def deliver_all(self, run_id: str = "m") -> RunRecord:
        """Deliver all that was sent, also what is late: whatever is not the turn of a step steps aside."""
        delivered = 0
        while delivered < len(self.messages.sent):
            record, steps = self.messages.sent[delivered]
            delivered += 1
            for name in steps:
                run_step(self.runtime, name, record.id, record.attempt)
        return self.record(run_id)

    def record(self, run_id: str = "m") -> RunRecord:
        return self.runtime.store.load(run_id)

    def where(self) -> dict[str, tuple[bool, bool, bool]]:
        """Host: active, autostart, marked."""
        views = {host: self.fake.find_domain(host, UUID) for host in HOSTS}
        return {h: (v.active, v.autostart, v.mark is not None) for h, v in views.items() if v is not None}


@pytest.fixture
def bench(redis_server: RedisServer) -> Bench:
    return Bench(redis_server.url)


AT_SOURCE = {"alpha": (True, True, False)}
MOVED = {"beta": (True, True, False)}


def test_a_running_vm_moves(bench: Bench) -> None:
    bench.vm()
    bench.submit()
    assert bench.deliver_all().state is State.SUCCEEDED
    assert bench.where() == MOVED
    assert bench.messages.results["m"] == "succeeded"
    assert [t.step for t in bench.record().timings] == ["preflight", "prepare", "transfer", "verify", "finish"]


def test_a_shut_off_vm_moves_and_keeps_its_autostart(bench: Bench) -> None:
    bench.vm(running=False)
    bench.submit()
    assert bench.deliver_all().state is State.SUCCEEDED
    assert bench.where() == {"beta": (False, True, False)}


def test_autostart_that_was_off_stays_off(bench: Bench) -> None:
    bench.vm(autostart=False)
    bench.submit()
    bench.deliver_all()
    assert bench.where() == {"beta": (True, False, False)}


def test_preflight_changes_nothing(bench: Bench) -> None:
    bench.vm()
    bench.fake.calls.clear()
    bench.submit()
    bench.step("preflight")
    assert bench.fake.calls == []


def test_rule_9_the_source_does_not_come_back_by_itself_from_prepare_on(bench: Bench) -> None:
    bench.vm()
    bench.submit()
    bench.step("preflight")
    bench.step("prepare")
    assert bench.where() == {"alpha": (True, False, True)}
    assert [(e.kind, e.value, e.done) for e in bench.record().journal] == [
        ("source_mark", "", True),
        ("source_autostart", "1", True),
    ]


def test_rule_4_a_lost_reply_after_success_is_a_success(bench: Bench) -> None:
    bench.vm()
    bench.submit()
    with bench.fake.replies_lost():
        assert bench.deliver_all().state is State.SUCCEEDED
    assert bench.where() == MOVED


def test_a_failing_transfer_rolls_back(bench: Bench) -> None:
    bench.vm()
    bench.submit()
    with bench.fake.failing("transfer", OperatorMustFix("MIGRATION_UNSAFE", "libvirt says no", "share the disk")):
        record = bench.deliver_all()
    assert record.state is State.FAILED
    assert record.error is not None
    assert (record.error.code, record.error.hint) == ("MIGRATION_UNSAFE", "share the disk")
    assert bench.where() == AT_SOURCE
    assert bench.messages.settled == [("m", State.FAILED)]


def test_no_result_before_rollback_has_ended(bench: Bench) -> None:
    bench.vm()
    bench.submit()
    bench.step("preflight")
    bench.step("prepare")
    with bench.fake.failing("transfer", OperatorMustFix("X", "no")):
        assert bench.step("transfer") is Handled.FAILED
    assert bench.messages.settled == []
    assert bench.record().state is State.ROLLING_BACK


def test_rule_2_rollback_removes_only_what_bears_our_mark(bench: Bench) -> None:
    """A definition of the same UUID that appears on the destination after preflight is somebody else's."""
    bench.vm(running=False)
    bench.submit()
    bench.step("preflight")
    bench.step("prepare")
    bench.fake.add_domain("beta", domain_xml("web-7", UUID))
    record = bench.deliver_all()
    assert record.state is State.FAILED
    assert bench.where() == {"alpha": (False, True, False), "beta": (False, False, False)}


def test_rule_3_the_source_stays_until_verify_has_passed(bench: Bench) -> None:
    bench.vm()
    bench.submit()
    for name in ("preflight", "prepare", "transfer"):
        bench.step(name)
    assert "alpha" in bench.where()
    with bench.fake.failing("fetch_xml", OperatorMustFix("XML_BROKEN", "cannot read it")):
        bench.step("verify")
    assert "alpha" in bench.where()
    assert not any(call == "undefine" for call, _ in bench.fake.calls)


def test_a_verify_that_cannot_look_goes_forward_when_it_can_again(bench: Bench) -> None:
    bench.vm()
    bench.submit()
    for name in ("preflight", "prepare", "transfer"):
        bench.step(name)
    with bench.fake.failing("fetch_xml", OperatorMustFix("XML_BROKEN", "cannot read it")):
        bench.step("verify")
    assert bench.record().state is State.ROLLING_BACK
    bench.messages.sent[:] = bench.messages.sent[-1:]
    assert bench.deliver_all().state is State.SUCCEEDED
    assert bench.where() == MOVED


def test_rule_1_and_6_two_running_copies_are_reported_and_never_touched(bench: Bench) -> None:
    bench.vm()
    bench.submit()
    bench.step("preflight")
    bench.step("prepare")
    bench.fake.add_domain("beta", domain_xml("web-7", UUID), running=True)
    bench.fake.calls.clear()
    record = bench.deliver_all()
    assert record.state is State.NEEDS_ATTENTION
    assert record.error is not None
    assert record.error.code == "NEEDS_ATTENTION_BOTH_RUNNING"
    assert "alpha: running" in record.error.message
    assert "beta: running" in record.error.message
    assert "virsh" in record.error.hint
    assert bench.fake.calls == []


def test_needs_attention_holds_the_lock_until_retry_has_settled_it(bench: Bench) -> None:
    bench.vm()
    bench.submit()
    bench.step("preflight")
    bench.step("prepare")
    intruder = bench.fake.add_domain("beta", domain_xml("web-7", UUID), running=True)
    bench.deliver_all()
    bench.submit("second", destination="gamma", source="alpha")
    assert "m holds the lock" in str(bench.record("second").waiting_for)
    del bench.fake.hosts["beta"].domains[intruder.uuid]
    workflow.retry(bench.runtime, "m")
    bench.messages.sent[:] = [s for s in bench.messages.sent if s[0].attempt == 2]
    assert bench.deliver_all("m").state is State.FAILED
    workflow.dispatch(bench.runtime)
    assert bench.deliver_all("second").state is State.SUCCEEDED


def test_rule_10_the_mark_is_written_before_anything_else_and_gone_at_the_end(bench: Bench) -> None:
    bench.vm()
    bench.fake.calls.clear()
    bench.submit()
    bench.deliver_all()
    assert bench.fake.calls[0] == ("write_mark", "alpha")
    assert bench.fake.calls[-1] == ("remove_mark", "beta")


def test_a_second_copy_of_a_step_steps_aside(bench: Bench) -> None:
    bench.vm()
    bench.submit()
    assert bench.step("preflight") is DONE
    assert bench.step("preflight") is Handled.CUT
    assert bench.step("transfer") is Handled.CUT
    assert bench.record().step is StepName.PREPARE


def test_a_destination_that_went_away_is_tried_again_and_then_rolled_back(bench: Bench) -> None:
    bench.vm()
    bench.submit()
    bench.step("preflight")
    bench.step("prepare")
    with bench.fake.unreachable("beta"):
        for _ in range(2):
            assert bench.step("transfer") is Handled.CUT
        assert "trying again" in str(bench.record().waiting_for)
        assert bench.step("transfer") is Handled.FAILED
        assert bench.step("rollback") is Handled.CUT
    record = bench.record()
    assert record.state is State.NEEDS_ATTENTION
    assert record.error is not None
    assert "beta" in record.error.message
    workflow.retry(bench.runtime, "m")
    bench.step("rollback")
    assert bench.record().state is State.FAILED
    assert bench.where() == AT_SOURCE


def test_a_host_that_is_gone_at_the_undo_is_waited_for(bench: Bench, redis_server: RedisServer) -> None:
    bench = Bench(redis_server.url, unreachable_timeout_s=100.0)
    bench.vm()
    bench.submit()
    bench.step("preflight")
    bench.step("prepare")
    with bench.fake.failing("transfer", OperatorMustFix("X", "no")):
        bench.step("transfer")
    with bench.fake.failing("set_autostart", HostUnreachable("HOST_UNREACHABLE", "alpha is silent")):
        bench.step("rollback")
    assert bench.record().state is State.ROLLING_BACK
    assert bench.where()["alpha"] == (True, False, True)
    bench.step("rollback")
    assert bench.record().state is State.FAILED
    assert bench.where() == AT_SOURCE


def test_an_undo_that_fails_for_good_needs_attention_and_the_rest_is_undone(bench: Bench) -> None:
    bench.vm()
    bench.submit()
    bench.step("preflight")
    bench.step("prepare")
    with bench.fake.failing("transfer", OperatorMustFix("X", "no")):
        bench.step("transfer")
    with bench.fake.failing("set_autostart", OperatorMustFix("ACCESS_DENIED", "not allowed")):
        bench.step("rollback")
    record = bench.record()
    assert record.state is State.NEEDS_ATTENTION
    assert record.error is not None
    assert record.error.code == "UNDO_FAILED"
    assert bench.where() == {"alpha": (True, False, False)}


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
    assert workflow.cancel(bench.runtime, "m").state is State.CANCELLED


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
