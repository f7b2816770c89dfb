"""Drains when something else goes wrong: nothing is called empty that is not, and no drain holds up another."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from tasks import workflow
from tasks.model.domain import NO_JOB, JobStats
from tasks.model.drain import DrainState, Fate
from tasks.model.errors import HostUnreachable, HypervisorError, InvalidRequest, OperatorMustFix
from tasks.model.run import ErrorInfo, State, StepName
from tasks.planning.draining import by_hand
from tasks.steps.survey import survey as steps_survey
from tasks.workflow import drains as drains_module
from tasks.workflow import places, timing
from tasks.workflow.dispatch import settle
from tests.queue.draining import add, ask, drained, fates, look, names_on, run_to_end, uuid_of
from tests.queue.workbench import HOSTS, Bench

pytestmark = pytest.mark.queue

BROKEN = OperatorMustFix("BROKEN", "the cable is cut", "")


def fail_one(bench: Bench, run_id: str = "d-1") -> None:
    """The migration ends as failed, and the VM stays."""
    with bench.fake.failing("transfer", BROKEN):
        for name in ("preflight", "prepare", "transfer", "rollback"):
            bench.step(name, run_id)
    assert bench.record(run_id).state is State.FAILED


# -- one must not hold up the others ----------------------------------------------------------------------------------


def forget_zone(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """The worker's machine does not know a time zone that the caller's did."""

    def unknown(*_: Any) -> None:
        raise InvalidRequest("UNKNOWN_TIME_ZONE", "there is no time zone US/Eastern here", "install tzdata")

    monkeypatch.setattr(f"tasks.workflow.{module}.parse_window", unknown)


def test_a_request_that_this_machine_cannot_take_does_not_stop_the_queue(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(bench, 1)
    add(bench, 2)
    bench.runtime.cordons.put("gamma", "so that nothing is sent there")
    first = {"vm": "vm-1", "destination": "beta", "window": "00:00-23:59", "priority": 5}
    workflow.submit(bench.runtime, first, "timed")
    workflow.submit(bench.runtime, {"vm": "vm-2", "destination": "beta"}, "plain")
    forget_zone(monkeypatch, "timing")
    assert workflow.dispatch(bench.runtime) == 1
    refused = bench.record("timed")
    assert (refused.state, refused.error and refused.error.code) == (State.REFUSED, "UNKNOWN_TIME_ZONE")
    assert bench.record("plain").state is State.CHECKING


def test_those_behind_it_are_looked_at_as_well(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a lane whose time has not come each is asked whether it fits."""
    for number in (1, 2):
        add(bench, number)
        later = {"vm": f"vm-{number}", "destination": "beta", "not_before": bench.runtime.store.now() + 600}
        workflow.submit(bench.runtime, later, f"m{number}")
    real, asked = timing.may_start, []

    def may_start(runtime: Any, record: Any) -> Any:
        asked.append(record.id)
        if record.id == "m1":
            raise InvalidRequest("UNKNOWN_TIME_ZONE", "no such zone", "")
        return real(runtime, record)

    monkeypatch.setattr(sys.modules["tasks.workflow.dispatch"], "may_start", may_start)
    workflow.dispatch(bench.runtime)
    assert asked == ["m1", "m2"]
    assert (bench.record("m1").state, bench.record("m2").state) == (State.REFUSED, State.QUEUED)


@pytest.mark.parametrize("error", [InvalidRequest("UNKNOWN_POLICY", "there is no policy x", ""), RuntimeError("a bug")])
def test_a_drain_in_trouble_does_not_stop_another(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    add(bench, 1)
    add(bench, 2, host="beta")
    ask(bench, "a")
    ask(bench, "b", host="beta", to=["gamma"])
    real = drains_module._plan

    def plan(runtime: Any, record: Any) -> None:
        if record.id == "a":
            raise error
        real(runtime, record)

    monkeypatch.setitem(drains_module._MOVES, DrainState.PLANNING, plan)
    assert run_to_end(bench, "b").state is DrainState.EMPTY
    troubled = drained(bench, "a")
    assert troubled.state is DrainState.PLANNING
    assert troubled.waiting_for


def test_a_migration_that_cannot_be_asked_for_is_one_that_failed(bench: Bench) -> None:
    add(bench, 1)
    add(bench, 2)
    add(bench, 3, host="gamma")
    workflow.submit(bench.runtime, {"vm": "vm-3", "destination": "beta"}, "d-1")  # somebody took this id
    workflow.dispatch(bench.runtime)
    bench.deliver_all("d-1")
    assert bench.record("d-1").state is State.SUCCEEDED
    ask(bench)
    record = run_to_end(bench)
    assert record.state is DrainState.PARTIAL
    assert sorted(fates(record).values()) == [Fate.FAILED, Fate.MOVED]
    assert next(vm.reason for vm in record.vms if vm.fate is Fate.FAILED).startswith("ID_CONFLICT: ")


def unreadable(bench: Bench, monkeypatch: pytest.MonkeyPatch, error: HypervisorError, *, host: str = "") -> None:
    """vm-1 cannot be looked at, on any destination or on one."""
    real = steps_survey

    def survey(hypervisor: Any, hosts: Any, request: Any, **more: Any) -> Any:
        if request.vm == uuid_of(1) and host in ("", request.destination):
            raise error
        return real(hypervisor, hosts, request, **more)

    monkeypatch.setattr(places, "survey", survey)


@pytest.mark.parametrize("error", [BROKEN, HostUnreachable("CONNECTION_LOST", "beta: the connection broke", "")])
def test_one_that_cannot_be_looked_at_stays_and_the_others_go(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: HypervisorError
) -> None:
    add(bench, 1)
    add(bench, 2)
    unreadable(bench, monkeypatch, error)
    ask(bench, may_shut_off=["vm-1"])
    record = run_to_end(bench)
    assert record.state is DrainState.PARTIAL
    assert fates(record) == {"vm-1": Fate.STAYS, "vm-2": Fate.MOVED}
    stuck = next(vm for vm in record.vms if vm.name == "vm-1")
    assert set(stuck.others.values()) == {error.message}
    assert ("shut_down", "alpha") not in bench.fake.calls, "what could not be read is no reason to shut it down"


def test_where_it_cannot_be_looked_at_it_does_not_go(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    add(bench, 1)
    unreadable(bench, monkeypatch, BROKEN, host="beta")
    ask(bench)
    assert run_to_end(bench).state is DrainState.EMPTY
    assert names_on(bench, "gamma") == {"vm-1"}


# -- what is empty ----------------------------------------------------------------------------------------------------


def test_one_that_a_person_must_see_to_keeps_the_host_from_being_empty(bench: Bench) -> None:
    """It is shut off by now, and nothing would start it: a plain look at the host shows nothing."""
    add(bench, 1)
    ask(bench)
    look(bench, 2, deliver=False)
    run = bench.record("d-1")
    after = run.model_copy(update={"state": State.ROLLING_BACK, "step": StepName.ROLLBACK})
    run = bench.runtime.store.commit(run, after, guard="rev")
    settle(bench.runtime, run, State.NEEDS_ATTENTION, ErrorInfo(code="UNCLEAR", message="look"))
    bench.fake.shut_down("alpha", uuid_of(1))
    record = run_to_end(bench)
    assert record.state is DrainState.PARTIAL
    assert record.left == ("migration d-1 of vm-1 is needs_attention", "vm-1 ran, did not move, and is shut off")


def test_one_that_went_off_by_itself_after_its_move_failed_is_told(bench: Bench) -> None:
    add(bench, 1)
    ask(bench)
    look(bench, 2, deliver=False)
    fail_one(bench)
    bench.fake.shut_down("alpha", uuid_of(1))
    record = run_to_end(bench)
    assert record.state is DrainState.PARTIAL
    assert record.left == ("vm-1 ran, did not move, and is shut off",)


def test_what_others_move_is_waited_for(bench: Bench) -> None:
    add(bench, 1, host="beta")
    workflow.submit(bench.runtime, {"vm": "vm-1", "destination": "alpha"}, "m")
    workflow.dispatch(bench.runtime)
    bench.step("preflight")
    ask(bench)
    look(bench, 4, deliver=False)
    record = drained(bench)
    assert record.state is DrainState.RUNNING
    assert record.waiting_for == "migration m of vm-1 is preparing"
    for name in ("prepare", "transfer", "verify", "finish"):
        bench.step(name)
    assert run_to_end(bench).state is DrainState.EMPTY, "it came, and was moved on"
    assert names_on(bench, "alpha") == set()


def test_what_kept_a_vm_there_for_a_while_is_looked_at_again(bench: Bench) -> None:
    """A backup ran when places were found."""
    add(bench, 1)
    add(bench, 2)
    domain = bench.fake.hosts["alpha"].domains[uuid_of(1)]
    domain.job = JobStats(active=True, is_migration=False)
    ask(bench)
    for _ in range(2):
        workflow.advance_drains(bench.runtime)
    workflow.dispatch(bench.runtime)
    assert fates(drained(bench)) == {"vm-1": Fate.STAYS, "vm-2": Fate.MOVING}
    domain.job = NO_JOB
    bench.deliver_all("d-1")
    assert run_to_end(bench).state is DrainState.EMPTY


# -- hosts that are away ----------------------------------------------------------------------------------------------


def test_a_drain_can_be_cancelled_while_its_host_is_dead(bench: Bench) -> None:
    add(bench, 1)
    ask(bench)
    look(bench, 2, deliver=False)
    with bench.fake.unreachable("alpha"):
        workflow.cancel_drain(bench.runtime, "d")
        look(bench)
        for name in ("preflight", "rollback"):
            bench.step(name, "d-1")
        assert run_to_end(bench).state is DrainState.CANCELLED
    assert fates(drained(bench)) == {"vm-1": Fate.FAILED}
    assert bench.runtime.cordons.find("alpha") is None


def test_a_return_ends_while_the_host_of_one_is_dead(bench: Bench) -> None:
    for number in (1, 2):
        add(bench, number)
    ask(bench)
    run_to_end(bench)
    (stuck,) = bench.fake.hosts["gamma"].domains.values()
    stuck.job = JobStats(active=True, is_migration=False)
    ask(bench, "back", returns="d")
    look(bench)
    with bench.fake.unreachable("gamma"):
        back = run_to_end(bench, "back")
    assert back.state is DrainState.PARTIAL
    assert names_on(bench, "alpha") == {"vm-1", "vm-2"} - {stuck.name}
    assert [left.partition(":")[0] for left in back.left] == [stuck.name]


def test_a_host_that_hangs_has_not_no_vms(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    add(bench, 1)
    monkeypatch.setattr(places, "gather", lambda calls, **_: {n: c() for n, c in calls.items() if n != "alpha"})
    with pytest.raises(HostUnreachable) as silent:
        workflow.plan_drain(bench.runtime, {"host": "alpha"})
    assert silent.value.code == "HOST_SILENT"
    ask(bench, strict=True)
    look(bench, 3)
    assert drained(bench).state is DrainState.PLANNING


def test_the_drained_host_is_asked_first(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that as many others as are asked at once may hang."""
    order: list[str] = []

    def gather(calls: dict[str, Callable[[], Any]], **_: Any) -> dict[str, Any]:
        order.extend(calls)
        return {name: call() for name, call in calls.items()}

    monkeypatch.setattr(places, "gather", gather)
    workflow.plan_drain(bench.runtime, {"host": "gamma"})
    assert order == ["gamma", *(name for name in HOSTS if name != "gamma")]


# -- what comes back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", [True, False])
def test_one_that_was_tried_again_by_hand_comes_back_as_well(bench: Bench, over: bool) -> None:
    add(bench, 1)
    add(bench, 2)
    ask(bench)
    for _ in range(2):
        workflow.advance_drains(bench.runtime)
    workflow.dispatch(bench.runtime)
    fail_one(bench)
    if over:
        bench.deliver_all("d-2")
        assert run_to_end(bench).state is DrainState.PARTIAL
    workflow.retry(bench.runtime, "d-1")
    bench.deliver_all("d-1")
    assert bench.record("d-1").state is State.SUCCEEDED
    assert run_to_end(bench).state is (DrainState.PARTIAL if over else DrainState.EMPTY)
    ask(bench, "back", returns="d")
    assert run_to_end(bench, "back").state is DrainState.RETURNED
    assert names_on(bench, "alpha") == {"vm-1", "vm-2"}


def test_a_leftover_definition_is_not_back(bench: Bench) -> None:
    add(bench, 1)
    ask(bench)
    assert run_to_end(bench).state is DrainState.EMPTY
    add(bench, 1, running=False)  # an old backup of its definition
    ask(bench, "back", returns="d")
    back = run_to_end(bench, "back")
    assert back.state is DrainState.PARTIAL
    assert back.left
    assert back.left[0].startswith("vm-1: ")


# -- cordons ----------------------------------------------------------------------------------------------------------


def test_who_dies_at_the_end_of_a_cancelled_drain_leaves_no_cordon(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(bench, 1)
    ask(bench)
    look(bench)
    workflow.cancel_drain(bench.runtime, "d")
    died: list[Any] = []
    commit = bench.runtime.drains.commit

    def dies(record: Any, after: Any) -> Any:
        if after.is_ended and not died:
            died.append(after)
            raise KeyboardInterrupt
        return commit(record, after)

    monkeypatch.setattr(bench.runtime.drains, "commit", dies)
    with pytest.raises(KeyboardInterrupt):
        look(bench)
    assert run_to_end(bench).state is DrainState.CANCELLED
    assert bench.runtime.cordons.find("alpha") is None


def test_a_cordon_that_a_person_puts_on_top_is_the_persons(bench: Bench) -> None:
    add(bench, 1)
    ask(bench)
    look(bench)
    known = bench.runtime.cordons.find("alpha")
    bench.runtime.cordons.put("alpha", by_hand(known, ""))
    workflow.cancel_drain(bench.runtime, "d")
    assert run_to_end(bench).state is DrainState.CANCELLED
    left = bench.runtime.cordons.find("alpha")
    assert left is not None
    assert left.reason == "by hand, during drain d"
    assert by_hand(left, "fans") == "fans"
    assert by_hand(None, "") == ""
