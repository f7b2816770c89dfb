"""What Celery does with results and chains: the ground under the public contract and the chain of steps."""

from __future__ import annotations

import time

import pytest
from celery import chain
from celery.canvas import Signature

from tests.queue.conftest import Facts
from tests.queue.harness import wait_for

pytestmark = pytest.mark.queue

QUIET_S = 0.5
"""How long nothing has to happen before it counts as not happening; a hop takes 5 ms."""


def step(facts: Facts, task: str, *args: object, **options: object) -> Signature:
    return facts.client.signature(task, args=args, immutable=True, queue="vmferry.steps", **options)


def test_a_result_settled_by_somebody_else_reaches_a_waiting_plain_client(facts: Facts) -> None:
    with facts.worker():
        result = facts.send("facts.submit", "hello")
        facts.wait_note("submitted hello")
        time.sleep(QUIET_S)
        assert not result.ready()
        facts.send("facts.settle", result.id, "done")
        assert result.get(timeout=5) == {"text": "done"}


def test_an_error_of_the_submitting_task_itself_is_raised(facts: Facts) -> None:
    with facts.worker(), pytest.raises(ValueError, match="bad is not accepted"):
        facts.send("facts.submit", "bad").get(timeout=5)


def test_exceptions_with_positional_json_arguments_arrive_intact_where_their_class_is_unknown(facts: Facts) -> None:
    with facts.worker():
        result = facts.send("facts.submit", "hello")
        facts.wait_note("submitted hello")
        facts.send("facts.settle", result.id, "refuse")
        with pytest.raises(Exception, match="pool is full") as caught:
            result.get(timeout=5)
    assert type(caught.value).__name__ == "CopyRefused"
    assert caught.value.args == ("NO_SPACE", "pool is full")


def test_a_step_that_cuts_its_chain_and_raises_sends_nothing(facts: Facts) -> None:
    with facts.worker():
        last = chain(step(facts, "facts.cut"), step(facts, "facts.work", "after")).apply_async()
        with pytest.raises(Exception, match="cut on purpose"):
            last.parent.get(timeout=5)
        time.sleep(QUIET_S)
        assert facts.notes() == []
        assert last.state == "PENDING"


def test_ignore_does_not_advance_the_chain(facts: Facts) -> None:
    with facts.worker():
        after = step(facts, "facts.work", "after")
        chain(step(facts, "facts.ignore"), after).on_error(step(facts, "facts.errback", "x")).apply_async()
        facts.wait_note("ignored")
        time.sleep(QUIET_S)
        assert facts.notes() == ["ignored"]


def test_a_second_copy_of_a_step_sends_the_next_one_twice_under_one_id(facts: Facts) -> None:
    """Why claiming a step is a compare-and-set in the record."""
    with facts.worker(concurrency=1):
        first = step(facts, "facts.work", "a", task_id="a-id")
        signature = chain(first, step(facts, "facts.work", "b", task_id="b-id"))
        signature.apply_async()
        signature.apply_async()
        wait_for(lambda: facts.notes().count("end b") == 2, "b ran twice")


def test_a_chain_survives_redis_being_away_at_the_end_of_a_step(facts: Facts) -> None:
    with facts.worker():
        last = chain(step(facts, "facts.end_silently", "a", 0.8), step(facts, "facts.work", "b")).apply_async()
        facts.wait_note("start a")
        facts.server.kill()
        time.sleep(1.5)
        facts.server.start()
        facts.wait_note("end b", timeout_s=15)
        assert last.get(timeout=5) == "b"
        assert last.parent.state == "SUCCESS"
        assert facts.notes().count("start a") == 1


def test_results_are_kept_as_long_as_the_retention_says_failures_too(facts: Facts) -> None:
    with facts.worker(result_expires=500, result_failure_expires=500):
        facts.send("facts.work", "a", task_id="good").get(timeout=5)
        with pytest.raises(ValueError, match="bad"):
            facts.send("facts.submit", "bad", task_id="bad").get(timeout=5)
    for task_id in ("good", "bad"):
        assert 400 < facts.store.ttl(f"celery-task-meta-{task_id}") <= 500
