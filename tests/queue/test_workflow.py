"""The workflow on a real Redis and a fake hypervisor: the safety rules, each with what would break it.

Steps are run by hand in the order in which their messages were sent, so that every order can be tried.
"""

from __future__ import annotations

import pytest

from tasks import workflow
from tasks.model.errors import HostUnreachable, OperatorMustFix
from tasks.model.run import State, StepName
from tasks.workflow import Handled
from tests.fakes.hypervisor import domain_xml
from tests.queue.harness import RedisServer
from tests.queue.workbench import AT_SOURCE, DONE, MOVED, UUID, Bench

pytestmark = pytest.mark.queue

OTHER_UUID = UUID.replace("1", "9")


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


def test_what_waits_begins_as_soon_as_a_transfer_is_over(redis_server: RedisServer) -> None:
    """Limits are about transfers: whoever waits for one is not kept by what is left to do afterwards."""
    bench = Bench(redis_server.url, max_total=1)
    bench.vm()
    bench.fake.add_domain("alpha", domain_xml("web-8", OTHER_UUID), running=True)
    bench.submit()
    bench.submit("n", vm="web-8")
    for name in ("preflight", "prepare"):
        bench.step(name)
        assert bench.record("n").state is State.QUEUED
    assert bench.messages.dispatches == 0
    bench.step("transfer")
    assert bench.messages.dispatches == 1
    assert (bench.record("m").state, bench.record("n").state) == (State.VERIFYING, State.CHECKING)
    assert bench.deliver_all("n").state is State.SUCCEEDED
    assert bench.record("m").state is State.SUCCEEDED


def test_what_waits_for_its_vm_begins_as_soon_as_that_has_moved(bench: Bench) -> None:
    bench.vm()
    bench.submit()
    bench.submit("n", destination="gamma")
    assert bench.record("n").waiting_for == "migration m holds the lock of this VM"
    for name in ("preflight", "prepare", "transfer", "verify"):
        bench.step(name)
        assert bench.record("n").state is State.QUEUED
    bench.step("finish")
    assert (bench.record("m").state, bench.record("n").state) == (State.SUCCEEDED, State.CHECKING)


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


def test_what_never_works_after_the_vm_has_moved_is_left_to_a_person(bench: Bench) -> None:
    """Forward is the only way, and it must not be tried for ever; ``retry`` goes on once it works."""
    bench.vm()
    bench.submit()
    with bench.fake.failing("undefine", OperatorMustFix("NO_SPACE", "the host's disk is full", "make room")):
        record = bench.deliver_all()
    assert record.state is State.NEEDS_ATTENTION
    assert record.error is not None
    assert record.error.code == "NEEDS_ATTENTION_MOVED"
    assert "the host's disk is full" in record.error.message
    assert bench.where()["beta"][0] is True
    workflow.retry(bench.runtime, "m")
    assert bench.deliver_all().state is State.SUCCEEDED
    assert bench.where() == MOVED


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
