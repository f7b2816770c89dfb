"""The workflow in post-copy, on a real Redis and a fake hypervisor: safety rule 5."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from config.settings import PolicySettings
from tasks import workflow
from tasks.model.domain import DomainState
from tasks.model.errors import InvalidRequest, OperatorMustFix, OutcomeUnknown, RetryLater
from tasks.model.run import RunRecord, State
from tests.queue.harness import RedisServer
from tests.queue.workbench import AT_SOURCE, MOVED, UUID, Bench

pytestmark = pytest.mark.queue

EAGER = {"post-copy": PolicySettings(completion_timeout_s=0.2, on_timeout="post-copy", post_copy_recovery_s=60)}


@pytest.fixture
def eager(redis_server: RedisServer) -> Bench:
    made = Bench(redis_server.url, policies=EAGER)
    made.vm()
    made.submit(policy="post-copy")
    return made


def wait_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@contextmanager
def delivering(bench: Bench) -> Iterator[None]:
    """All steps run in a thread, and have ended in the end."""
    thread = threading.Thread(target=bench.deliver_all)
    thread.start()
    yield
    thread.join(60)
    assert not thread.is_alive()


def in_post_copy(bench: Bench) -> bool:
    return bench.fake.hosts["alpha"].domains[UUID].in_post_copy


def switches(record: RunRecord) -> list[tuple[bool, bool]]:
    return [(entry.done, entry.undone) for entry in record.journal if entry.kind == "post_copy"]


def test_switched_and_moved(eager: Bench) -> None:
    with delivering(eager), eager.fake.transfers_held():
        wait_until(lambda: in_post_copy(eager))
        wait_until(lambda: switches(eager.record()) == [(True, False)])
    record = eager.record()
    assert record.state is State.SUCCEEDED, record.error
    assert record.progress.post_copy
    assert eager.where() == MOVED


def test_rule_5_no_way_back(eager: Bench) -> None:
    with delivering(eager), eager.fake.transfers_held():
        wait_until(lambda: in_post_copy(eager))
        with pytest.raises(InvalidRequest) as refused:
            workflow.cancel(eager.runtime, "m")
        assert refused.value.code == "TOO_LATE"
    assert eager.record().state is State.SUCCEEDED
    assert ("abort_job", "alpha") not in eager.fake.calls


def test_rule_5_a_cancel_that_came_in_at_that_moment_does_not_turn_it_back(eager: Bench) -> None:
    """The flag is in the record although the switch was made: a write that no check of ours prevents."""
    with delivering(eager), eager.fake.transfers_held():
        wait_until(lambda: switches(eager.record()) == [(True, False)])
        eager.runtime.store.request_cancel(eager.record())
        time.sleep(0.5)
        assert in_post_copy(eager)
    record = eager.record()
    assert (record.state, record.cancel_requested) == (State.SUCCEEDED, True)
    assert ("abort_job", "alpha") not in eager.fake.calls


def test_rule_5_rollback_helps_it_on_and_never_aborts(eager: Bench) -> None:
    """Whatever broke the step: the VM has two halves, and rollback goes forward."""
    with eager.fake.transfers_held():
        for step in ("preflight", "prepare"):
            eager.step(step)
        thread = threading.Thread(target=lambda: eager.step("transfer"))
        thread.start()
        wait_until(lambda: switches(eager.record()) == [(True, False)])
        with eager.fake.failing("find_domain", OperatorMustFix("BROKEN", "the test broke it")):
            thread.join(30)
        assert eager.record().state is State.ROLLING_BACK
        with delivering(eager):
            time.sleep(0.5)
            assert in_post_copy(eager)
            eager.fake._held = False
            with eager.fake._changed:
                eager.fake._changed.notify_all()
    assert eager.record().state is State.SUCCEEDED, eager.record().error
    assert ("abort_job", "alpha") not in eager.fake.calls
    assert eager.where() == MOVED


def test_libvirt_refuses_to_switch(eager: Bench) -> None:
    """It says no, and the hosts show that it meant it: the policy goes on without post-copy, and gives up."""
    with (
        delivering(eager),
        eager.fake.failing("start_post_copy", OperatorMustFix("OPERATION_INVALID", "no such flag")),
        eager.fake.transfers_held(),
    ):
        wait_until(lambda: eager.record().is_terminal)
    record = eager.record()
    assert (record.state, switches(record)) == (State.FAILED, [(False, True)])
    assert record.error is not None
    assert record.error.code == "COMPLETION_TIMEOUT"
    assert eager.where() == AT_SOURCE


def test_nobody_knows_whether_it_was_switched(eager: Bench) -> None:
    """The reply was lost: the intent stays, nothing is cancelled or aborted, and the hosts decide."""
    with delivering(eager), eager.fake.transfers_held():
        with eager.fake.failing("start_post_copy", OutcomeUnknown("CONNECTION_LOST", "the connection broke")):
            wait_until(lambda: switches(eager.record()) == [(False, False)])
            with pytest.raises(InvalidRequest):
                workflow.cancel(eager.runtime, "m")
        wait_until(lambda: switches(eager.record()) == [(True, False)])
    assert eager.record().state is State.SUCCEEDED
    assert eager.where() == MOVED


def test_a_broken_one_is_resumed(eager: Bench) -> None:
    with delivering(eager), eager.fake.transfers_held():
        wait_until(lambda: switches(eager.record()) == [(True, False)])
        eager.fake.break_post_copy("alpha", UUID)
        wait_until(lambda: ("resume_post_copy", "alpha") in eager.fake.calls)
        assert eager.record().converging.forward.tries == 1
    assert eager.record().state is State.SUCCEEDED
    assert eager.where() == MOVED


@pytest.mark.parametrize("lost", ["alpha", "beta"])
def test_a_half_is_lost(eager: Bench, lost: str) -> None:
    """Neither is the source resumed, whose memory is old, nor is the migration taken for done."""
    with delivering(eager), eager.fake.transfers_held():
        wait_until(lambda: switches(eager.record()) == [(True, False)])
        with eager.fake._changed:
            domain = eager.fake.hosts[lost].domains[UUID]
            domain.state, domain.reason = DomainState.SHUTOFF, 3
            eager.fake.hosts["alpha"].domains[UUID].job = type(domain.job)(active=False, is_migration=False)
        before = list(eager.fake.calls)
        wait_until(lambda: eager.record().is_terminal)
        record = eager.record()
        assert record.error is not None
        assert (record.state, record.error.code) == (State.NEEDS_ATTENTION, "NEEDS_ATTENTION_INCOMPLETE")
        assert "beta" in record.error.hint
        assert eager.fake.calls == before


def test_rollback_does_not_switch_what_it_ends(eager: Bench) -> None:
    """The step broke before the policy's time was over, and the abort is not heard at once."""
    with eager.fake.transfers_held():
        for step in ("preflight", "prepare"):
            eager.step(step)
        transfer = threading.Thread(target=lambda: eager.step("transfer"))
        with eager.fake.failing("fetch_job", OperatorMustFix("BROKEN", "the test broke it")):
            transfer.start()
            transfer.join(30)
        assert eager.record().state is State.ROLLING_BACK
        rollback = threading.Thread(target=lambda: eager.step("rollback"))
        with eager.fake.failing("abort_job", RetryLater("JOB_LOCK_TIMEOUT", "busy")):
            rollback.start()
            time.sleep(1)  # five times what the policy allows
            assert not in_post_copy(eager)
        eager.fake.abort_job("alpha", UUID)
        rollback.join(30)
        assert not rollback.is_alive()
    assert (eager.record().state, switches(eager.record())) == (State.FAILED, [])
    assert eager.where() == AT_SOURCE
