"""A transfer's call that is late: it never starts what nobody watches any more. On a fake hypervisor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tasks import workflow
from tasks.model.run import State, StepName
from tests.queue.workbench import AT_SOURCE, MOVED, UUID, Bench

pytestmark = pytest.mark.queue


@pytest.fixture
def prepared(bench: Bench) -> Bench:
    bench.vm()
    bench.submit()
    for step in ("preflight", "prepare"):
        bench.step(step)
    return bench


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.01)


def calls() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"transfer-{UUID}"]


def transferring(bench: Bench) -> threading.Thread:
    """The step, whose call is under way."""
    step = threading.Thread(target=bench.step, args=("transfer",))
    step.start()
    until(calls)
    return step


def ended(step: threading.Thread) -> bool:
    step.join(15)
    return not step.is_alive()


def transfers(bench: Bench) -> int:
    """How often one was started, now that no call is left."""
    until(lambda: not calls())
    return bench.fake.calls.count(("transfer", "alpha"))


def test_cancelled_before_the_call_was_sent(prepared: Bench) -> None:
    with prepared.fake.transfers_late(sent=False):
        step = transferring(prepared)
        workflow.cancel(prepared.runtime, "m")
        assert ended(step)
        prepared.step("rollback")
        assert prepared.record().state is State.CANCELLED
        assert prepared.where() == AT_SOURCE
    assert transfers(prepared) == 0
    assert prepared.where() == AT_SOURCE


def test_cancelled_when_it_was_sent_and_has_not_begun(prepared: Bench) -> None:
    """Both hosts look as if there were no transfer: it is waited for, and then ended."""
    with prepared.fake.transfers_held():
        with prepared.fake.transfers_late(sent=True):
            step = transferring(prepared)
            workflow.cancel(prepared.runtime, "m")
            step.join(2)
            assert step.is_alive()
            assert prepared.record().state is State.TRANSFERRING
        assert ended(step)
        prepared.step("rollback")
        assert prepared.record().state is State.CANCELLED
        assert ("abort_job", "alpha") in prepared.fake.calls
    assert transfers(prepared) == 1
    assert prepared.where() == AT_SOURCE


@pytest.mark.parametrize("sent", [False, True])
def test_a_worker_that_stops_leaves_no_call_behind_that_another_one_does_not_see(prepared: Bench, sent: bool) -> None:
    with prepared.fake.transfers_held():
        with prepared.fake.transfers_late(sent=sent):
            step = transferring(prepared)
            prepared.runtime.stopping.set()
            step.join(2)
            assert step.is_alive() is sent
        assert ended(step)
        prepared.runtime.stopping.clear()
        if not sent:
            assert transfers(prepared) == 0
    assert prepared.deliver_all().state is State.SUCCEEDED
    assert transfers(prepared) == 1
    assert prepared.where() == MOVED


def test_a_worker_that_lost_its_lease_sends_nothing(prepared: Bench) -> None:
    """Another one took over and rolls back, while the call still waits for its connection."""
    with prepared.fake.transfers_late(sent=False):
        step = transferring(prepared)
        record = prepared.record()
        prepared.runtime.store.commit(record, record.model_copy(update={"owner": ""}), guard="rev", deadline_in=0)
        thief = prepared.runtime.store.claim("m", attempt=1, step=StepName.TRANSFER, owner="thief", lease_s=9)
        assert thief is not None
        assert ended(step)
    assert transfers(prepared) == 0
    assert prepared.where() == {"alpha": (True, False, True)}
