"""Drains, on a real Redis and a fake hypervisor, looked at by hand."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from config.settings import GroupSettings, PolicySettings
from tasks import workflow
from tasks.model.drain import DrainRecord, DrainState, Fate
from tasks.model.errors import InvalidRequest, OperatorMustFix, UnknownMigration
from tasks.model.run import State
from tasks.rendering.drains import print_drain_plan
from tests.queue.draining import HOSTDEV, add, ask, drained, fates, look, names_on, run_to_end, uuid_of
from tests.queue.harness import RedisServer
from tests.queue.workbench import Bench

pytestmark = pytest.mark.queue


def test_a_host_is_emptied(bench: Bench) -> None:
    for number in range(5):
        add(bench, number, autostart=number == 0)
    ask(bench, labels={"ticket": "7"})
    record = run_to_end(bench)
    assert record.state is DrainState.EMPTY
    assert names_on(bench, "alpha") == set()
    assert names_on(bench, "beta") | names_on(bench, "gamma") == {f"vm-{n}" for n in range(5)}
    assert names_on(bench, "beta")
    assert names_on(bench, "gamma")
    assert set(fates(record).values()) == {Fate.MOVED}
    # It stays cordoned: it is going to be switched off.
    cordon = bench.runtime.cordons.find("alpha")
    assert cordon is not None
    assert cordon.reason == "drain d"
    runs = bench.runtime.store.list_runs()
    assert {run.drain for run in runs} == {"d"}
    assert all(run.labels == {"ticket": "7"} for run in runs)
    assert len({run.id for run in runs}) == 5


def test_the_same_drain_asked_again_is_the_same(bench: Bench) -> None:
    add(bench, 1)
    first = ask(bench)
    assert ask(bench).id == first.id
    assert ask(bench, "another").id == "d"
    with pytest.raises(InvalidRequest) as refused:
        ask(bench, "d", strict=True)
    assert refused.value.code == "ID_TAKEN"
    with pytest.raises(InvalidRequest) as busy:
        ask(bench, "e", strict=True)
    assert busy.value.code == "DRAIN_UNDER_WAY"
    run_to_end(bench)
    assert ask(bench, "e", strict=True).state is DrainState.PLANNING
    assert run_to_end(bench, "e").state is DrainState.EMPTY


def test_what_cannot_move_is_said_and_the_others_move(bench: Bench) -> None:
    add(bench, 1)
    add(bench, 2, inside=HOSTDEV)
    plan = workflow.plan_drain(bench.runtime, {"host": "alpha"})
    assert fates(plan) == {"vm-1": Fate.WAITING, "vm-2": Fate.STAYS}
    stuck = next(vm for vm in plan.vms if vm.name == "vm-2")
    assert set(stuck.others) == {"beta", "gamma"}
    assert bench.runtime.cordons.find("alpha") is None
    ask(bench)
    record = run_to_end(bench)
    assert record.state is DrainState.PARTIAL
    assert fates(record) == {"vm-1": Fate.MOVED, "vm-2": Fate.STAYS}
    assert record.left == ("vm-2 is running",)


def test_a_strict_drain_moves_all_or_nothing(bench: Bench) -> None:
    add(bench, 1)
    add(bench, 2, inside=HOSTDEV)
    ask(bench, strict=True)
    record = run_to_end(bench)
    assert record.state is DrainState.REFUSED
    assert record.error is not None
    assert "vm-2" in record.error.message
    assert names_on(bench, "alpha") == {"vm-1", "vm-2"}
    assert bench.runtime.store.list_runs() == []
    assert bench.runtime.cordons.find("alpha") is None, "nothing goes on, so that the host takes VMs again"


def test_what_is_shut_off_stays_unless_asked_and_autostart_keeps_the_host_from_being_empty(bench: Bench) -> None:
    add(bench, 1, running=False)
    ask(bench)
    record = run_to_end(bench)
    assert record.state is DrainState.EMPTY
    assert fates(record) == {"vm-1": Fate.STAYS}
    add(bench, 2, running=False, autostart=True)
    ask(bench, "e")
    record = run_to_end(bench, "e")
    assert record.state is DrainState.PARTIAL
    assert record.left == ("vm-2 is shut off and would be started at boot",)
    ask(bench, "f", shut_off="move")
    assert run_to_end(bench, "f").state is DrainState.EMPTY
    assert names_on(bench, "alpha") == set()


def test_a_vm_that_shall_stay(bench: Bench) -> None:
    add(bench, 1)
    add(bench, 2)
    ask(bench, leave=["vm-2"], strict=True)
    record = run_to_end(bench)
    assert record.state is DrainState.PARTIAL
    assert names_on(bench, "alpha") == {"vm-2"}


def test_one_failure_does_not_stop_the_others_and_can_be_tried_again(bench: Bench) -> None:
    for number in range(3):
        add(bench, number)
    ask(bench)
    look(bench, 2, deliver=False)
    first = bench.runtime.store.list_runs()[-1]
    with bench.fake.failing("transfer", OperatorMustFix("BROKEN", "the cable is cut", "")):
        for name in ("preflight", "prepare", "transfer", "rollback"):
            bench.step(name, first.id)
    for run in bench.runtime.store.list_runs():
        for name in ("preflight", "prepare", "transfer", "verify", "finish"):
            bench.step(name, run.id)
    record = run_to_end(bench)
    assert record.state is DrainState.PARTIAL
    assert sorted(fates(record).values()) == [Fate.FAILED, Fate.MOVED, Fate.MOVED]
    assert len(names_on(bench, "alpha")) == 1
    again = workflow.retry_drain(bench.runtime, "d")
    assert (again.state, again.round) == (DrainState.PLANNING, 2)
    record = run_to_end(bench)
    assert record.state is DrainState.EMPTY
    assert names_on(bench, "alpha") == set()


def test_paused_nothing_new_starts(bench: Bench) -> None:
    for number in range(5):
        add(bench, number)
    ask(bench)
    look(bench, 2, deliver=False)
    runs = {run.id: run for run in bench.runtime.store.list_runs()}
    waiting = [run for run in runs.values() if run.state is State.QUEUED]
    assert waiting, "two may leave at a time"
    workflow.pause_drain(bench.runtime, "d")
    workflow.dispatch(bench.runtime)
    assert {bench.runtime.store.load(run.id).waiting_for for run in waiting} == {"drain d is paused"}
    for run in runs.values():
        for name in ("preflight", "prepare", "transfer", "verify", "finish"):
            if run.state is not State.QUEUED:
                bench.step(name, run.id)
    look(bench, 3)
    assert drained(bench).state is DrainState.PAUSED
    assert len(names_on(bench, "alpha")) == len(waiting)
    workflow.resume_drain(bench.runtime, "d")
    assert run_to_end(bench).state is DrainState.EMPTY


def test_cancelled(bench: Bench) -> None:
    for number in range(5):
        add(bench, number)
    ask(bench)
    look(bench, 2, deliver=False)
    workflow.cancel_drain(bench.runtime, "d")
    for _ in range(4):
        look(bench)
        for run in bench.runtime.store.list_runs():
            if not run.is_terminal and run.step is not None:
                for name in ("preflight", "rollback"):
                    bench.step(name, run.id)
    record = drained(bench)
    assert record.state is DrainState.CANCELLED
    assert len(names_on(bench, "alpha")) == 5
    assert {run.state for run in bench.runtime.store.list_runs()} == {State.CANCELLED}
    assert bench.runtime.cordons.find("alpha") is None


def test_a_cordon_that_was_there_before_stays(bench: Bench) -> None:
    add(bench, 1)
    bench.runtime.cordons.put("alpha", "fans")
    ask(bench)
    workflow.cancel_drain(bench.runtime, "d")
    look(bench)
    cordon = bench.runtime.cordons.find("alpha")
    assert cordon is not None
    assert cordon.reason == "fans"


def test_vms_that_appear_join_and_those_that_leave_are_gone(bench: Bench) -> None:
    add(bench, 1)
    add(bench, 2, inside=HOSTDEV)
    ask(bench)
    look(bench, 2, deliver=False)
    add(bench, 3)
    bench.fake.hosts["alpha"].domains.pop(uuid_of(2))
    look(bench, deliver=False)
    assert fates(drained(bench)) == {"vm-1": Fate.MOVING, "vm-2": Fate.GONE, "vm-3": Fate.MOVING}
    for _ in range(3):
        for run in bench.runtime.store.list_runs():
            for name in ("preflight", "prepare", "transfer", "verify", "finish"):
                bench.step(name, run.id)
        look(bench)
    assert run_to_end(bench).state is DrainState.EMPTY
    assert names_on(bench, "alpha") == set()


def test_hosts_that_take_nobody(bench: Bench) -> None:
    add(bench, 1)
    bench.runtime.cordons.put("beta", "new kernel")
    workflow.ask_drain(bench.runtime, {"host": "gamma"}, "g")
    plan = workflow.plan_drain(bench.runtime, {"host": "alpha"})
    (vm,) = plan.vms
    assert vm.fate is Fate.STAYS
    assert vm.others == {"beta": "it is cordoned: new kernel", "gamma": "it is being emptied by drain g"}


def test_a_full_host_and_one_that_does_not_answer(bench: Bench) -> None:
    add(bench, 1)
    beta = bench.fake.hosts["beta"]
    beta.facts = replace(beta.facts, memory_free_kib=32 * 1024)
    with bench.fake.unreachable("gamma"):
        (vm,) = workflow.plan_drain(bench.runtime, {"host": "alpha"}).vms
    assert vm.fate is Fate.STAYS
    assert "memory" in vm.others["beta"]
    assert vm.others["gamma"]


def test_two_drains_share_what_there_is(bench: Bench) -> None:
    """One host has room for three in all; what the first drain has taken the second does not get."""
    for number in range(2):
        add(bench, number)
        add(bench, 10 + number, host="beta")
    gamma = bench.fake.hosts["gamma"]
    reserve = bench.runtime.settings.placement.memory_reserve_mib * 1024
    gamma.facts = replace(gamma.facts, memory_free_kib=reserve + 3 * 65536)
    ask(bench, "a", to=["gamma"])
    workflow.ask_drain(bench.runtime, {"host": "beta", "to": ["gamma"]}, "b")
    workflow.advance_drains(bench.runtime)
    found = [vm.fate for name in ("a", "b") for vm in drained(bench, name).vms]
    assert sorted(found) == [Fate.STAYS, Fate.WAITING, Fate.WAITING, Fate.WAITING]


def test_a_worker_that_dies_between_writing_and_asking(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    add(bench, 1)
    ask(bench)
    look(bench, deliver=False)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tasks.workflow.drains.submit", die)
        with pytest.raises(KeyboardInterrupt):
            workflow.advance_drains(bench.runtime)
    assert fates(drained(bench)) == {"vm-1": Fate.MOVING}
    assert bench.runtime.store.list_runs() == []
    assert run_to_end(bench).state is DrainState.EMPTY
    assert len(bench.runtime.store.list_runs()) == 1


def test_only_one_looks_at_a_time(bench: Bench) -> None:
    add(bench, 1)
    ask(bench)
    token = bench.runtime.turns.take("drains", 60)
    assert token
    assert workflow.advance_drains(bench.runtime) == 0
    bench.runtime.turns.give_back("drains", "another")
    assert workflow.advance_drains(bench.runtime) == 0
    bench.runtime.turns.give_back("drains", token)
    assert workflow.advance_drains(bench.runtime) == 1
    # Whoever died in the middle of it holds nobody up for long.
    assert bench.runtime.turns.take("drains", 0.2)
    assert workflow.advance_drains(bench.runtime) == 0
    time.sleep(0.3)
    assert workflow.advance_drains(bench.runtime) == 1


def test_what_happens_while_somebody_looks_is_looked_at_once_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have happened right after that was looked at, and whoever was sent for it finds the turn taken."""
    add(bench, 1)
    ask(bench)

    def happen(*_: object) -> None:
        for _time in range(3):
            bench.runtime.wake_drains()
        assert workflow.advance_drains(bench.runtime) == 0

    with monkeypatch.context() as patched:
        patched.setattr("tasks.workflow.drains._advance", happen)
        assert workflow.advance_drains(bench.runtime) == 1
    assert bench.messages.advances == 2  # of the first one that happened, and for another look
    monkeypatch.setattr("tasks.workflow.drains._advance", lambda *_: None)
    assert workflow.advance_drains(bench.runtime) == 1
    assert bench.messages.advances == 2
    assert not bench.runtime.turns.is_wanted("drains")


def test_who_cannot_be_told_finds_it_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is away must not make a good migration fail, nor a plan."""

    def away(*_: object, **__: object) -> None:
        raise OSError("the broker is away")

    add(bench, 1)
    ask(bench)
    monkeypatch.setattr(bench.messages, "send_advance", away)
    monkeypatch.setattr(bench.messages, "send_dispatch", away)
    record = run_to_end(bench)
    assert (record.state, record.waiting_for) == (DrainState.EMPTY, None)


def test_a_drain_is_looked_at_as_soon_as_there_is_something_to_see(bench: Bench) -> None:
    """Not only when beat comes by: it goes on when it has been planned, and when one of its migrations has ended."""
    add(bench, 1)
    add(bench, 2, host="beta")
    ask(bench)
    look(bench)
    assert (drained(bench).state, bench.messages.advances) == (DrainState.RUNNING, 1)
    look(bench)
    assert bench.messages.advances == 2
    workflow.submit(bench.runtime, {"vm": "vm-2", "destination": "gamma"}, "another")
    workflow.dispatch(bench.runtime)
    assert bench.deliver_all("another").state is State.SUCCEEDED
    assert bench.messages.advances == 2
    look(bench)
    assert drained(bench).state is DrainState.EMPTY


def test_the_host_itself_does_not_answer(bench: Bench) -> None:
    add(bench, 1)
    ask(bench)
    with bench.fake.unreachable("alpha"):
        look(bench)
    record = drained(bench)
    assert record.state is DrainState.PLANNING
    assert record.waiting_for
    assert run_to_end(bench).state is DrainState.EMPTY


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"host": "nowhere"}, "UNKNOWN_HOST"),
        ({"host": "alpha", "to": ["nowhere"]}, "UNKNOWN_HOST"),
        ({"host": "alpha", "to": ["alpha"]}, "NO_DESTINATION"),
        ({"host": "alpha", "policy": "none"}, "UNKNOWN_POLICY"),
        ({"host": "alpha", "accept": ["NO_SUCH_CODE"]}, "UNKNOWN_FINDING"),
        ({"host": "alpha", "remedies": ["pray"]}, "UNKNOWN_REMEDY"),
        ({"host": "alpha", "shut_off": "kill"}, "INVALID_REQUEST"),
        ({"host": "alpha", "odd": 1}, "INVALID_REQUEST"),
        ({}, "INVALID_REQUEST"),
    ],
)
def test_bad_questions(bench: Bench, values: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        workflow.ask_drain(bench.runtime, values, "d")
    assert refused.value.code == code
    assert refused.value.hint
    assert bench.runtime.drains.newest(9) == []


def test_bad_ids(bench: Bench) -> None:
    for bad in ("", "x" * 49, "a b", "../x"):
        with pytest.raises(InvalidRequest) as refused:
            ask(bench, bad)
        assert refused.value.code == "INVALID_ID"


def test_events_tell_of_drains_too(bench: Bench) -> None:
    add(bench, 1)
    ask(bench, labels={"rack": "4"})
    run_to_end(bench)
    told = [one.event for one in bench.runtime.events.newest(100)]
    own = [(event.previous, event.state) for event in told if event.kind == "drain"]
    assert own == [(None, "planning"), ("planning", "running"), ("running", "empty")]
    assert all(event.labels == {"rack": "4"} for event in told)
    assert {event.drain for event in told if event.kind == "migration"} == {"d"}


# -- and back again ---------------------------------------------------------------------------------------------------


def emptied(bench: Bench, *numbers: int, **values: Any) -> DrainRecord:
    for number in numbers:
        add(bench, number)
    ask(bench, **values)
    record = run_to_end(bench)
    assert record.state is DrainState.EMPTY
    return record


def test_what_a_drain_moved_away_comes_back(bench: Bench) -> None:
    emptied(bench, 1, 2, 3)
    add(bench, 4, host="beta")
    assert workflow.last_drain_of(bench.runtime, "alpha").id == "d"
    ask(bench, "back", returns="d")
    record = run_to_end(bench, "back")
    assert record.state is DrainState.RETURNED, record
    assert record.left == ()
    assert names_on(bench, "alpha") == {"vm-1", "vm-2", "vm-3"}
    assert names_on(bench, "beta") | names_on(bench, "gamma") == {"vm-4"}
    assert bench.runtime.cordons.find("alpha") is None, "it takes VMs again"
    # A drain that brings VMs back is none that could be taken back.
    assert workflow.last_drain_of(bench.runtime, "alpha").id == "d"
    with pytest.raises(InvalidRequest) as refused:
        ask(bench, "again", returns="back")
    assert refused.value.code == "NOTHING_TO_RETURN"


def test_what_is_shut_off_comes_back_as_well(bench: Bench) -> None:
    add(bench, 1, running=False)
    ask(bench, shut_off="move")
    assert run_to_end(bench).state is DrainState.EMPTY
    ask(bench, "back", returns="d")
    assert run_to_end(bench, "back").state is DrainState.RETURNED
    assert names_on(bench, "alpha") == {"vm-1"}


def test_what_does_not_come_back_is_said(bench: Bench) -> None:
    record = emptied(bench, 1, 2, 3)
    lost, moved = record.vms[0], record.vms[1]
    del bench.fake.hosts[str(lost.destination)].domains[lost.uuid]
    plan = workflow.plan_drain(bench.runtime, {"host": "alpha", "returns": "d", "leave": [moved.name]})
    assert fates(plan) == {moved.name: Fate.STAYS, record.vms[2].name: Fate.WAITING}
    ask(bench, "back", returns="d", leave=[moved.name])
    back = run_to_end(bench, "back")
    assert back.state is DrainState.PARTIAL
    assert back.left == (
        f"{moved.name}: it shall stay, as the drain was asked",
        f"{lost.name} is on no host that answers",
    )
    assert names_on(bench, "alpha") == {record.vms[2].name}


def test_a_cordon_of_somebody_else_stays(bench: Bench) -> None:
    emptied(bench, 1)
    bench.runtime.cordons.put("alpha", "broken fan")
    ask(bench, "back", returns="d")
    record = run_to_end(bench, "back")
    assert record.state is DrainState.PARTIAL
    assert "broken fan" in record.vms[0].others["alpha"]
    bench.runtime.cordons.lift("alpha")
    workflow.retry_drain(bench.runtime, "back")
    assert run_to_end(bench, "back").state is DrainState.RETURNED


def test_what_cannot_be_brought_back(bench: Bench) -> None:
    with pytest.raises(UnknownMigration):
        ask(bench, "back", returns="never")
    with pytest.raises(InvalidRequest) as nothing:
        workflow.last_drain_of(bench.runtime, "alpha")
    assert nothing.value.code == "NOTHING_TO_RETURN"
    add(bench, 1)
    ask(bench)
    with pytest.raises(InvalidRequest) as early:
        ask(bench, "back", returns="d")
    assert early.value.code == "NOT_ENDED"
    run_to_end(bench)
    with pytest.raises(InvalidRequest) as other:
        ask(bench, "back", host="beta", returns="d")
    assert other.value.code == "OTHER_HOST"


# -- groups -----------------------------------------------------------------------------------------------------------


def say_groups(bench: Bench, number: int, said: str, host: str = "alpha") -> None:
    """As virsh metadata writes it."""
    metadata = f"<metadata><g:groups xmlns:g='urn:vmferry:groups:1' {said}/></metadata>"
    domain = bench.fake.hosts[host].domains[uuid_of(number)]
    domain.live_xml = domain.inactive_xml = domain.live_xml.replace("<memory ", f"{metadata}<memory ", 1)


def places_of(record: DrainRecord) -> dict[str, str | None]:
    return {vm.name: vm.destination for vm in record.vms}


def test_groups_of_the_configuration_are_kept(redis_server: RedisServer) -> None:
    groups = {
        "db": GroupSettings(vms=["vm-1", uuid_of(2)], keep="apart"),
        "web": GroupSettings(vms=["vm-3", "vm-4"], keep="together"),
    }
    bench = Bench(redis_server.url, groups=groups)
    for number in range(1, 5):
        add(bench, number)
    places = places_of(workflow.plan_drain(bench.runtime, {"host": "alpha"}))
    assert places["vm-1"] != places["vm-2"]
    assert places["vm-3"] == places["vm-4"]


def test_groups_of_metadata_count_those_who_are_there_already(bench: Bench) -> None:
    add(bench, 1, host="beta")
    say_groups(bench, 1, "apart='db' together='web'", "beta")
    add(bench, 2)
    say_groups(bench, 2, "apart='db'")
    add(bench, 3)
    say_groups(bench, 3, "together='web'")
    plan = workflow.plan_drain(bench.runtime, {"host": "alpha"})
    assert places_of(plan) == {"vm-2": "gamma", "vm-3": "beta"}
    apart, together = plan.vms
    assert "kept apart" in apart.others["beta"]
    assert "group is on beta" in together.others["gamma"]


def test_groups_count_those_who_are_on_their_way(bench: Bench) -> None:
    add(bench, 1, host="gamma")
    say_groups(bench, 1, "apart='db'", "gamma")
    workflow.submit(bench.runtime, {"vm": "vm-1", "destination": "beta", "source": "gamma"}, "m")
    workflow.dispatch(bench.runtime)
    add(bench, 2)
    say_groups(bench, 2, "apart='db'")
    plan = workflow.plan_drain(bench.runtime, {"host": "alpha"})
    assert fates(plan) == {"vm-2": Fate.STAYS}, "on gamma it still is, on beta it will be"


# -- VMs that may be shut down ----------------------------------------------------------------------------------------

SHMEM = "<shmem name='frames'><model type='ivshmem-plain'/><size unit='M'>4</size></shmem>"
"""A VM with it cannot move live; shut off it can."""


def test_only_a_vm_that_is_named_is_shut_down(bench: Bench) -> None:
    add(bench, 1)
    add(bench, 2, inside=SHMEM)
    add(bench, 3, inside=SHMEM)
    plan = workflow.plan_drain(bench.runtime, {"host": "alpha", "may_shut_off": ["vm-1", "vm-2"]})
    assert {vm.name: (vm.fate, vm.shut_down) for vm in plan.vms} == {
        "vm-1": (Fate.WAITING, False),
        "vm-2": (Fate.WAITING, True),
        "vm-3": (Fate.STAYS, False),
    }
    chosen = next(vm for vm in plan.vms if vm.name == "vm-2")
    assert "it is shut down for it, since it cannot move live: " in chosen.reason
    ask(bench, may_shut_off=["vm-1", uuid_of(2)])
    record = run_to_end(bench)
    assert record.state is DrainState.PARTIAL
    assert fates(record) == {"vm-1": Fate.MOVED, "vm-2": Fate.MOVED, "vm-3": Fate.STAYS}
    assert record.left == ("vm-3 is running",)
    assert bench.fake.calls.count(("shut_down", "alpha")) == 1
    (moved,) = (view for host in ("beta", "gamma") for view in bench.fake.list_domains(host) if view.name == "vm-2")
    assert moved.active, "it runs again"
    # And back it goes the same way.
    ask(bench, "back", returns="d", may_shut_off=["vm-2"])
    assert run_to_end(bench, "back").state is DrainState.RETURNED


def test_one_that_does_not_shut_down_stays_and_is_listed(redis_server: RedisServer) -> None:
    bench = Bench(redis_server.url, policies={"default": PolicySettings(shut_down_timeout_s=0.2)})
    add(bench, 1)
    add(bench, 2, inside=SHMEM)
    bench.fake.deaf.add(uuid_of(2))
    ask(bench, may_shut_off=["vm-2"])
    for _ in range(4):
        look(bench)
        for run in bench.runtime.store.list_runs():
            if run.state is State.ROLLING_BACK:
                bench.step("rollback", run.id)
    record = run_to_end(bench)
    assert record.state is DrainState.PARTIAL
    assert fates(record) == {"vm-1": Fate.MOVED, "vm-2": Fate.FAILED}
    assert "asked to shut down and still runs" in next(vm.reason for vm in record.vms if vm.name == "vm-2")
    assert names_on(bench, "alpha") == {"vm-2"}


# -- how long it will take --------------------------------------------------------------------------------------------


def test_a_dry_run_tells_how_long_it_takes_and_what_does_not_fit(bench: Bench) -> None:
    """64 MiB each at 64 KiB/s, half or twice of it: about 17 minutes, two at a time."""
    for number in range(4):
        add(bench, number)
    for host in ("beta", "gamma"):
        bench.runtime.rates.note("alpha", host, 64 * 1024)
    plan = workflow.plan_drain(bench.runtime, {"host": "alpha"})
    assert plan.forecast is not None
    assert plan.forecast.expected is not None
    one = plan.vms[0].expected
    assert one is not None
    assert (round(one.seconds), round(one.low_s), round(one.high_s)) == (1026, 514, 2050)
    assert round(plan.forecast.expected.seconds) == 2 * 1026
    assert (plan.forecast.late, plan.forecast.maybe_late, plan.forecast.closes) == (0, 0, None)
    deadline = bench.runtime.store.now() + 3000.0
    plan = workflow.plan_drain(bench.runtime, {"host": "alpha", "deadline": deadline})
    assert plan.forecast is not None
    assert (plan.forecast.late, plan.forecast.closes) == (2, deadline)
    late = [vm for vm in plan.vms if vm.late]
    assert len(late) == 2
    assert "(9 to 34)" in late[0].late
    assert plan.model_dump(mode="json")["vms"][0]["expected"]["high_s"] == one.high_s
    print_drain_plan(plan)


def test_what_is_copied_counts_in_what_is_expected(bench: Bench) -> None:
    """What preflight saw of disks stands in the migration's record, for the decision whether it still fits."""
    add(bench, 1)
    ask(bench)
    workflow.advance_drains(bench.runtime)
    record = drained(bench)
    vm = record.vms[0].model_copy(update={"expected_bytes": 1 << 40})
    bench.runtime.drains.commit(record, record.model_copy(update={"vms": (vm,)}))
    workflow.advance_drains(bench.runtime)
    assert bench.record("d-1").expected_bytes == 1 << 40
    workflow.dispatch(bench.runtime)
    assert bench.record("d-1").expected_bytes == 1 << 40


def test_a_dry_run_says_what_it_does_not_know(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    add(bench, 1)
    plan = workflow.plan_drain(bench.runtime, {"host": "alpha"})
    assert plan.forecast is not None
    assert (plan.forecast.expected, plan.forecast.without_estimate) == (None, 1)
    print_drain_plan(plan)
    shown = capsys.readouterr().out
    assert "no move their way was seen lately" in shown
    assert "unknown" in shown


def test_a_plan_of_one_vm_tells_it_too(bench: Bench) -> None:
    add(bench, 1)
    values = {"vm": "vm-1", "destination": "beta"}
    plan = workflow.plan_migration(bench.runtime, values)
    assert plan.outlook is not None
    assert plan.outlook.expected is None
    bench.runtime.rates.note("alpha", "beta", 1 << 20)
    plan = workflow.plan_migration(bench.runtime, values)
    assert plan.outlook is not None
    assert plan.outlook.expected is not None
    assert plan.outlook.expected.words == "about 1 min (1 to 2)"


# -- definitions that are no VM of the host any more ------------------------------------------------------------------


@pytest.mark.parametrize("shut_off", ["leave", "move"])
def test_a_leftover_definition_stays_and_is_said_to_be_one(bench: Bench, shut_off: str) -> None:
    """Its VM runs elsewhere: moving it would be the start of a second copy, and it keeps no strict drain from going."""
    add(bench, 1)
    add(bench, 2, running=False)
    add(bench, 2, host="gamma")
    ask(bench, shut_off=shut_off, strict=True)
    record = run_to_end(bench)
    assert record.state is DrainState.EMPTY
    assert fates(record) == {"vm-1": Fate.MOVED, "vm-2": Fate.STAYS}
    leftover = next(vm for vm in record.vms if vm.name == "vm-2")
    assert leftover.reason == "it is a leftover definition: the VM runs on gamma"
    assert names_on(bench, "alpha") == {"vm-2"}


def test_every_definition_of_the_host_is_in_the_list(bench: Bench) -> None:
    """Running, shut off, a template that was never started: moved or not, each is listed with the reason."""
    add(bench, 1)
    add(bench, 2, running=False)
    add(bench, 3, running=False)
    plan = workflow.plan_drain(bench.runtime, {"host": "alpha"})
    assert fates(plan) == {"vm-1": Fate.WAITING, "vm-2": Fate.STAYS, "vm-3": Fate.STAYS}
    assert all(vm.reason for vm in plan.vms)
    plan = workflow.plan_drain(bench.runtime, {"host": "alpha", "shut_off": "move", "leave": ["vm-3"]})
    assert fates(plan) == {"vm-1": Fate.WAITING, "vm-2": Fate.WAITING, "vm-3": Fate.STAYS}


# -- asked, paused, cancelled and tried again -------------------------------------------------------------------------


def test_asked_again_while_paused_and_while_cancelling_it_is_the_same(bench: Bench) -> None:
    add(bench, 1)
    ask(bench)
    look(bench, deliver=False)
    workflow.pause_drain(bench.runtime, "d")
    assert ask(bench).state is DrainState.PAUSED
    assert workflow.pause_drain(bench.runtime, "d").state is DrainState.PAUSED
    assert ask(bench, "other").id == "d"
    workflow.cancel_drain(bench.runtime, "d")
    assert ask(bench).state is DrainState.CANCELLING
    look(bench, 2)
    assert ask(bench).state is DrainState.CANCELLED, "asking again is not trying again"


def test_what_appears_while_it_is_paused_joins_afterwards(bench: Bench) -> None:
    add(bench, 1)
    ask(bench)
    look(bench, deliver=False)
    workflow.pause_drain(bench.runtime, "d")
    add(bench, 2)
    look(bench, 3)
    assert set(fates(drained(bench))) == {"vm-1"}
    workflow.resume_drain(bench.runtime, "d")
    assert run_to_end(bench).state is DrainState.EMPTY
    assert fates(drained(bench)) == {"vm-1": Fate.MOVED, "vm-2": Fate.MOVED}


def test_one_that_was_cancelled_is_tried_again_behind_a_cordon(bench: Bench) -> None:
    add(bench, 1)
    ask(bench)
    workflow.cancel_drain(bench.runtime, "d")
    look(bench)
    assert bench.runtime.cordons.find("alpha") is None
    assert workflow.retry_drain(bench.runtime, "d").round == 2
    look(bench, deliver=False)
    assert bench.runtime.cordons.find("alpha") is not None
    assert run_to_end(bench).state is DrainState.EMPTY
    for refused in (workflow.pause_drain, workflow.resume_drain, workflow.cancel_drain):
        with pytest.raises(InvalidRequest):
            refused(bench.runtime, "d")


def test_vms_that_left_again_come_back_when_a_return_is_tried_again(bench: Bench) -> None:
    emptied(bench, 1)
    ask(bench, "back", returns="d")
    assert run_to_end(bench, "back").state is DrainState.RETURNED
    workflow.submit(bench.runtime, {"vm": "vm-1", "destination": "beta"}, "m")
    look(bench, 2)
    assert names_on(bench, "alpha") == set()
    assert workflow.retry_drain(bench.runtime, "back").state is DrainState.PLANNING
    assert run_to_end(bench, "back").state is DrainState.RETURNED
    assert names_on(bench, "alpha") == {"vm-1"}


def test_cordon_and_drain_survive_a_restart_of_redis() -> None:
    with RedisServer() as server:
        bench = Bench(server.url)
        add(bench, 1)
        ask(bench)
        look(bench, deliver=False)
        before = drained(bench)
        time.sleep(1.2)  # it writes to disk each second
        server.restart()
        cordon = bench.runtime.cordons.find("alpha")
        assert cordon is not None
        assert cordon.reason == "drain d"
        assert drained(bench) == before
        assert run_to_end(bench).state is DrainState.EMPTY
