"""What Celery on Redis does with messages when connections, Redis or workers fail: the ground under the design."""

from __future__ import annotations

import pytest

from config.celery import STEPS_QUEUE
from tests.queue.conftest import Facts
from tests.queue.harness import wait_for

pytestmark = pytest.mark.queue

UNACKED = "vmferry:unacked"


def test_acknowledged_early_a_lost_connection_reruns_nothing(facts: Facts) -> None:
    with facts.worker(concurrency=2) as worker:
        results = [facts.send("facts.work", name, 1.5) for name in ("a", "b")]
        facts.wait_note("start a")
        facts.wait_note("start b")
        facts.server.client_kill_all()
        worker.wait_log("Connection to broker lost")
        assert [result.get(timeout=10) for result in results] == ["a", "b"]
        facts.send("facts.work", "c").get(timeout=10)
        assert sorted(facts.notes()) == ["end a", "end b", "end c", "start a", "start b", "start c"]


def test_acknowledged_late_a_lost_connection_runs_the_task_twice(facts: Facts) -> None:
    """Why steps acknowledge early: the same blip, the other way."""
    with facts.worker(concurrency=2):
        facts.send("facts.late", "a", 1.5)
        facts.wait_note("start a")
        facts.server.client_kill_all()
        wait_for(lambda: facts.notes().count("start a") == 2, "second start")
        assert "end a" not in facts.notes()


def test_a_full_worker_leaves_messages_in_the_queue(facts: Facts) -> None:
    with facts.worker(concurrency=2, name="full"):
        for number in range(6):
            facts.send("facts.work", str(number), 2.0)
        wait_for(lambda: len(facts.notes()) == 2, "both slots taken")
        assert facts.store.llen(STEPS_QUEUE) == 4
        assert facts.store.hlen(UNACKED) == 0
        with facts.worker(concurrency=4, name="idle"):
            wait_for(
                lambda: len([n for n in facts.notes() if n.startswith("start")]) == 6, "the idle worker takes them"
            )
            assert facts.store.llen(STEPS_QUEUE) == 0


def test_with_prefetch_a_full_worker_hoards_messages(facts: Facts) -> None:
    """Why prefetching is disabled: the same worker with Celery's default."""
    with facts.worker(concurrency=2, worker_disable_prefetch=False):
        for number in range(6):
            facts.send("facts.work", str(number), 1.0)
        wait_for(lambda: facts.store.hlen(UNACKED) == 2, "two prefetched")
        assert facts.store.llen(STEPS_QUEUE) == 2


def test_a_killed_worker_loses_an_early_acknowledged_task_for_good(facts: Facts) -> None:
    """Why there is a reconciler."""
    with facts.worker() as worker:
        facts.send("facts.work", "lost", 30.0)
        facts.wait_note("start lost")
        wait_for(lambda: facts.store.hlen(UNACKED) == 0, "acknowledged")
        worker.kill9()
    with facts.worker():
        facts.send("facts.work", "next").get(timeout=10)
    assert facts.notes() == ["start lost", "start next", "end next"]


def test_redis_may_be_killed_in_the_middle_of_a_task(facts: Facts) -> None:
    with facts.worker() as worker:
        facts.send("facts.work", "a", 2.0)
        facts.wait_note("start a")
        facts.server.restart(away_s=0.5)
        facts.wait_note("end a")
        assert facts.send("facts.work", "b").get(timeout=10) == "b"
        assert facts.notes().count("start a") == 1
        assert worker.running


@pytest.mark.parametrize(("own_thread", "seconds"), [(True, 60.0), (False, 3.0)])
def test_sigterm_waits_for_the_pools_threads_only(facts: Facts, own_thread: bool, seconds: float) -> None:
    """Why a step's blocking call has a thread of its own."""
    with facts.worker() as worker:
        facts.send("facts.block", own_thread, seconds)
        facts.wait_note("blocking")
        worker.term(timeout_s=40)
        assert ("unblocked" in facts.notes()) is not own_thread


def test_an_overridden_revoke_sees_running_and_undelivered_tasks_and_poisons_no_later_send(facts: Facts) -> None:
    with facts.worker(concurrency=1, override_revoke=True):
        facts.send("facts.work", "running", 1.5, task_id="running-id")
        facts.send("facts.work", "waiting", task_id="waiting-id")
        facts.wait_note("start running")
        facts.client.control.revoke("running-id", terminate=True)
        facts.client.control.revoke("waiting-id")
        facts.wait_note("revoke running-id terminate=True")
        facts.wait_note("revoke waiting-id terminate=False")
        facts.wait_note("end waiting")
        facts.send("facts.work", "again", task_id="waiting-id")
        facts.wait_note("end again")
        assert "end running" in facts.notes()


def test_celerys_own_revoke_discards_every_later_send_of_the_id(facts: Facts) -> None:
    """Why revoke is overridden."""
    with facts.worker(concurrency=1) as worker:
        facts.client.control.revoke("reused-id", reply=True, timeout=2.0)
        facts.send("facts.work", "reused", task_id="reused-id")
        worker.wait_log("Discarding revoked task")
        assert facts.notes() == []
