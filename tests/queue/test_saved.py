"""VMs that go with their memory in a file, on a fake hypervisor: the memory is never lost without a word."""

from __future__ import annotations

import pytest

from tasks import workflow
from tasks.model.domain import DomainState
from tasks.model.errors import OperatorMustFix, OutcomeUnknown
from tasks.model.run import State
from tasks.workflow import Handled
from tests.fakes.domain import FakeDomain
from tests.fakes.hypervisor import SAVE_DIRECTORY
from tests.queue.workbench import AT_SOURCE, MOVED, UUID, Bench

pytestmark = pytest.mark.queue

REBOOTED, SHUT_DOWN, DESTROYED, CRASHED = 0, 1, 2, 3
"""Why a VM is shut off: what libvirt shows."""
BEFORE_FINISH = ("preflight", "prepare", "transfer", "verify")


def saved(bench: Bench, *, paused: bool = False, steps: tuple[str, ...] = BEFORE_FINISH) -> None:
    """A migration whose VM stands paused on the destination."""
    bench.vm()
    if paused:
        bench.fake.suspend("alpha", UUID)
    bench.submit(method="saved")
    for name in steps:
        assert bench.step(name) is Handled.ADVANCED, bench.record().error
    assert on(bench, "beta").state is DomainState.PAUSED


def on(bench: Bench, host: str) -> FakeDomain:
    return bench.fake.hosts[host].domains[UUID]


def lose(bench: Bench, reason: int) -> None:
    """It is off on the destination."""
    on(bench, "beta").state, on(bench, "beta").reason = DomainState.SHUTOFF, reason


def images(bench: Bench) -> list[str]:
    """Hosts that have an image of its memory."""
    return [name for name, host in bench.fake.hosts.items() if any(SAVE_DIRECTORY in path for path in host.contents)]


def go_on(bench: Bench) -> None:
    """Deliver what was sent last, and all that follows."""
    bench.messages.sent[:] = bench.messages.sent[-1:]
    bench.deliver_all()


@pytest.mark.parametrize("paused", [False, True])
def test_it_goes_on_where_it_was(bench: Bench, paused: bool) -> None:
    bench.vm()
    if paused:
        bench.fake.suspend("alpha", UUID)
    bench.submit(method="saved")
    record = bench.deliver_all()
    assert record.state is State.SUCCEEDED, record.error
    assert bench.where() == MOVED
    assert on(bench, "beta").state is (DomainState.PAUSED if paused else DomainState.RUNNING)
    assert (on(bench, "beta").started, images(bench)) == (0, [])


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("reason", [REBOOTED, DESTROYED, CRASHED])
@pytest.mark.parametrize("step", ["verify", "finish"])
def test_lost_on_the_destination_it_goes_back_with_its_memory(
    bench: Bench, step: str, reason: int, paused: bool
) -> None:
    """Before it has gone on the source has all of it: nothing is let go of, and it is taken up again there."""
    saved(bench, paused=paused, steps=BEFORE_FINISH[: 4 if step == "finish" else 3])
    lose(bench, reason)
    assert bench.step(step) is Handled.FAILED
    bench.step("rollback")
    record = bench.record()
    assert (record.state, record.error and record.error.code) == (State.FAILED, "VERIFY_FAILED")
    assert bench.where() == AT_SOURCE
    assert on(bench, "alpha").state is (DomainState.PAUSED if paused else DomainState.RUNNING)
    assert (on(bench, "alpha").started, images(bench)) == (1, [])
    assert not any(call == "remove_save" for call, _ in bench.fake.calls)


def test_the_sources_memory_is_removed_last(bench: Bench) -> None:
    """What fails before that leaves a VM that can go back."""
    saved(bench)
    with bench.fake.failing("remove_save", OperatorMustFix("ACCESS_DENIED", "not allowed")):
        assert bench.step("finish") is Handled.FAILED
    assert images(bench) == ["alpha"]
    lose(bench, REBOOTED)
    bench.step("rollback")
    assert bench.record().state is State.FAILED, bench.record().error
    assert bench.where() == AT_SOURCE
    assert on(bench, "alpha").started == 1


def test_lost_without_its_memory_it_is_left_to_a_person(bench: Bench) -> None:
    """Neither booted anew nor removed anywhere; whoever boots it decides where it is."""
    saved(bench)
    with bench.fake.failing("resume", OperatorMustFix("BROKEN", "no")):
        assert bench.step("finish") is Handled.FAILED
    lose(bench, REBOOTED)
    before = list(bench.fake.calls)
    bench.step("rollback")
    record = bench.record()
    assert (record.state, record.error and record.error.code) == (State.NEEDS_ATTENTION, "NEEDS_ATTENTION_UNCLEAR")
    assert record.error is not None
    assert f"virsh start {UUID}" in record.error.hint
    assert bench.fake.calls == before
    bench.fake.start("beta", UUID)
    workflow.retry(bench.runtime, "m")
    go_on(bench)
    assert bench.record().state is State.SUCCEEDED, bench.record().error
    assert bench.where() == MOVED


def test_a_paused_one_that_is_lost_with_its_memory_never_counts_as_moved(bench: Bench) -> None:
    """Nothing resumes it, so that only a look can tell."""
    saved(bench, paused=True)
    with bench.fake.failing("undefine", OutcomeUnknown("CONNECTION_LOST", "the connection broke")):
        assert bench.step("finish") is Handled.FAILED
    bench.step("rollback")  # it has moved
    lose(bench, DESTROYED)
    go_on(bench)
    record = bench.record()
    assert record.state is State.NEEDS_ATTENTION
    assert "alpha" in bench.where()


@pytest.mark.parametrize(("reason", "state"), [(SHUT_DOWN, State.SUCCEEDED), (CRASHED, State.NEEDS_ATTENTION)])
def test_gone_on_and_off_since_it_has_moved(bench: Bench, reason: int, state: State) -> None:
    """libvirt let it run, and its owner died before it could say so: its disks have gone on there."""
    saved(bench)
    with bench.fake.failing("resume", OutcomeUnknown("CONNECTION_LOST", "the connection broke")):
        assert bench.step("finish") is Handled.FAILED
    lose(bench, reason)
    go_on(bench)
    record = bench.record()
    assert record.state is state, record.error
    assert "beta" in bench.where()
    assert [call for call, _ in bench.fake.calls].count("undefine") == (1 if state is State.SUCCEEDED else 0)


def test_one_that_somebody_let_run_and_that_shut_down_is_not_taken_back(bench: Bench) -> None:
    """Its disks on the destination are the newer ones."""
    saved(bench)
    bench.fake.resume("beta", UUID)
    lose(bench, SHUT_DOWN)
    assert bench.step("finish") is Handled.FAILED
    bench.step("rollback")
    record = bench.record()
    assert (record.state, record.error and record.error.code) == (State.NEEDS_ATTENTION, "NEEDS_ATTENTION_UNCLEAR")
    assert images(bench) == ["alpha", "beta"]


def test_what_was_saved_is_not_taken_up_beside_a_running_vm(bench: Bench) -> None:
    """Rule 11: one more look at the destination, right before the source takes its memory up again."""
    saved(bench, steps=BEFORE_FINISH[:3])
    lose(bench, REBOOTED)
    assert bench.step("verify") is Handled.FAILED
    delete = bench.fake.delete_volume

    def delete_while_somebody_starts_it(host: str, pool: str, name: str) -> None:
        delete(host, pool, name)
        bench.vm("beta")

    bench.fake.delete_volume = delete_while_somebody_starts_it  # type: ignore[method-assign]
    bench.step("rollback")
    record = bench.record()
    assert (record.state, record.error and record.error.code) == (State.NEEDS_ATTENTION, "UNDO_FAILED")
    assert not on(bench, "alpha").active


@pytest.mark.parametrize("reason", [REBOOTED, DESTROYED])
@pytest.mark.parametrize("step", ["verify", "finish"])
def test_a_live_vm_that_was_ended_when_it_had_moved_does_not_count_as_moved(
    bench: Bench, step: str, reason: int
) -> None:
    """Its definition stays on the source until somebody has looked."""
    bench.vm()
    bench.submit()
    for name in BEFORE_FINISH[: 4 if step == "finish" else 3]:
        bench.step(name)
    lose(bench, reason)
    assert bench.step(step) is Handled.FAILED
    bench.step("rollback")
    record = bench.record()
    assert (record.state, record.error and record.error.code) == (State.NEEDS_ATTENTION, "NEEDS_ATTENTION_MOVED")
    assert set(bench.where()) == {"alpha", "beta"}
    assert record.error is not None
    assert f"'virsh start {UUID}' on beta" in record.error.hint
    bench.fake.start("beta", UUID)
    workflow.retry(bench.runtime, "m")
    go_on(bench)
    assert bench.record().state is State.SUCCEEDED, bench.record().error


def test_a_cancel_that_comes_while_it_is_restored_comes_too_late(bench: Bench) -> None:
    """It is accepted, as the transfer still runs; the VM has moved when it is heard, and goes on there."""
    bench.vm()
    bench.submit(method="saved")
    for name in BEFORE_FINISH[:2]:
        bench.step(name)
    restore = bench.fake.restore

    def cancelled_meanwhile(host: str, path: str, xml: str) -> None:
        assert workflow.cancel(bench.runtime, "m").cancel_requested
        restore(host, path, xml)

    bench.fake.restore = cancelled_meanwhile  # type: ignore[method-assign]
    record = bench.deliver_all()
    assert (record.state, record.forwards) == (State.SUCCEEDED, 0), record.error
    assert bench.where() == MOVED
    assert on(bench, "beta").state is DomainState.RUNNING
