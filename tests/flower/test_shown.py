"""What Flower says of a step is what happened to it, on real hosts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.model.run import RunRecord, State
from tests.lab import Guest, Lab
from tests.queue.harness import FlowerServer
from tests.scenarios.stack import Stack, stack, until

pytestmark = pytest.mark.lab

PREFETCHED = re.compile(r'flower_worker_prefetched_tasks{task="tasks.steps.transfer",worker="[^"]*"} (\S+)')


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(lab, tmp_path_factory.mktemp("shown"), policies={"slow": {"bandwidth_mib_s": 2}}) as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def flower(running: Stack) -> Iterator[FlowerServer]:
    with FlowerServer(running.config) as server:
        yield server


def steps(flower: FlowerServer, record: RunRecord) -> dict[str, dict[str, Any]]:
    """The steps of a migration that Flower knows, by their names."""
    tasks = json.loads(flower.get("/api/tasks?limit=1000")[1])
    return {i.rsplit(".", 1)[1]: task for i, task in tasks.items() if i.startswith(f"{record.id}.")}


def transferring(running: Stack, guest: Guest) -> RunRecord:
    record = running.client.submit({"vm": guest.name, "destination": "beta", "policy": "slow"})
    until(
        lambda: running.client.show(record.id).progress.memory.processed_bytes > 0,
        30,
        lambda: running.diagnosis(record.id),
    )
    return record


def test_a_cancelled_migrations_steps_do_not_look_as_if_they_ran(
    running: Stack, flower: FlowerServer, make_guest: Callable[..., Guest]
) -> None:
    guest = make_guest("shown-1", fill_mib=24)
    guest.wait_ticking()
    record = transferring(running, guest)
    until(lambda: "memory" in str(steps(flower, record).get("transfer")), 10, lambda: str(steps(flower, record)))
    started = steps(flower, record)["transfer"]["started"]
    told = steps(flower, record)["transfer"]["result"]
    until(lambda: steps(flower, record)["transfer"]["result"] != told, 10, "progress does not go on")
    assert steps(flower, record)["transfer"]["started"] == started, "its start has moved"
    assert PREFETCHED.findall(flower.get("/metrics")[1]) == ["0.0"], "each progress was counted as a start"
    running.plain_celery().control.terminate(f"{record.id}.1.1.transfer")
    assert running.wait_end(record.id).state is State.CANCELLED
    wanted = {"preflight": "SUCCESS", "prepare": "SUCCESS", "transfer": "REVOKED", "rollback": "SUCCESS"}
    until(
        lambda: {name: task["state"] for name, task in steps(flower, record).items()} == wanted,
        10,
        lambda: str(steps(flower, record)),
    )


def test_a_refused_migrations_step_has_failed_and_says_why(
    running: Stack, flower: FlowerServer, make_guest: Callable[..., Guest]
) -> None:
    """A passed-through device: nothing but the step itself can find that."""
    disk = '<hostdev mode="subsystem" type="usb"><source><vendor id="0x1"/><product id="0x2"/></source></hostdev>'
    guest = make_guest("shown-2", start="off", disk=None, network=False, extra_xml=disk)
    record = running.client.submit({"vm": guest.name, "destination": "beta"})
    ended = running.wait_end(record.id)
    assert ended.state is State.REFUSED, running.diagnosis(record.id)
    assert ended.error is not None
    until(
        lambda: steps(flower, record).get("preflight", {}).get("state") == "FAILURE",
        10,
        lambda: str(steps(flower, record)),
    )
    assert ended.error.code in steps(flower, record)["preflight"]["exception"]


def test_a_step_that_goes_over_to_another_worker_is_shown_once_as_running(
    running: Stack, flower: FlowerServer, make_guest: Callable[..., Guest]
) -> None:
    guest = make_guest("shown-3", fill_mib=24)
    guest.wait_ticking()
    record = transferring(running, guest)
    running.steps_worker()
    running.workers[1].term()
    until(lambda: running.client.show(record.id).send > 1, 20, lambda: running.diagnosis(record.id))

    def states() -> dict[int, str]:
        """Of the transfer, by the number of the sending; the worker that stops may take its own message once more."""
        tasks = json.loads(flower.get("/api/tasks?limit=1000")[1])
        named = re.compile(rf"{record.id}\.1\.(\d+)\.transfer")
        return {int(found[1]): task["state"] for task_id, task in tasks.items() if (found := named.fullmatch(task_id))}

    def as_it_is() -> bool:
        last = running.client.show(record.id).send
        return states() == {send: "STARTED" if send == last else "SUCCESS" for send in range(1, last + 1)}

    until(as_it_is, 20, lambda: str(states()))
    running.client.cancel(record.id)
    assert running.wait_end(record.id).state is State.CANCELLED


def test_a_flower_that_was_started_late_knows_what_runs(
    running: Stack, make_guest: Callable[..., Guest], tmp_path: Path
) -> None:
    guest = make_guest("shown-4", fill_mib=24)
    guest.wait_ticking()
    record = transferring(running, guest)
    with FlowerServer(running.config, folder=tmp_path) as late:
        until(lambda: "transfer" in steps(late, record), 20, lambda: str(steps(late, record)))
        task = steps(late, record)["transfer"]
        assert (task["name"], task["args"]) == ("tasks.steps.transfer", "(shown-4: alpha → beta)")
        assert 'task=""' not in late.get("/metrics")[1]
        assert late.get(f"/task/{record.id}.1.1.transfer")[0] == 200
    running.client.cancel(record.id)
    assert running.wait_end(record.id).state is State.CANCELLED
