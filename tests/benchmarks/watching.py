"""Flower with many finished steps: how long its page of tasks takes, and how much memory it holds."""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

from celery import Celery

from tasks.model.run import StepName
from tests.benchmarks.flight import resident_mib
from tests.benchmarks.report import Figure, spread
from tests.queue.harness import FlowerServer, RedisServer, wait_for
from tests.scenarios.stack import to_toml

STEPS = 10_000
PORTION = 500
REQUESTS = 20
PAGE_S = 1.0
COLUMNS = ("name", "args", "state", "result", "received", "runtime", "worker", "uuid")


@dataclass(frozen=True, slots=True)
class Watching:
    """What was measured; milliseconds and MiB."""

    page_ms: list[float]
    """The page and the request for its rows, one after the other, as a browser sends them."""
    empty_mib: float
    full_mib: float


def measure_watching(steps: int = STEPS) -> Watching:
    """A real Flower on a real Redis, which hears the events of so many steps as workers send them."""
    with tempfile.TemporaryDirectory(prefix="vmferry-bench-") as scratch, RedisServer(Path(scratch)) as server:
        config = Path(scratch) / "vmferry.toml"
        config.write_text(to_toml({"broker_url": server.url}))
        with FlowerServer(config, folder=Path(scratch) / "flower") as flower:
            empty = resident_mib(flower.pid)
            _send_events(server.url, steps, flower)
            took = [_page_ms(flower) for _ in range(REQUESTS)]
            return Watching(took, empty, resident_mib(flower.pid))


def watching_figures(watching: Watching) -> list[Figure]:
    """The page and the memory."""
    name = f"Flower with {STEPS} steps"
    return [
        spread(f"{name}: page of tasks", watching.page_ms, goal=PAGE_S * 1000),
        Figure(f"{name}: resident", watching.full_mib, "MiB", note=f"{watching.empty_mib:.0f} MiB without any"),
    ]


def _send_events(url: str, steps: int, flower: FlowerServer) -> None:
    """Each step was received, started and done; names and ids are of the form that real ones have.

    In portions that Flower has taken in before the next: Redis cuts off whoever is slower than it is told.
    """
    names = [step.value for step in StepName]
    app = Celery("bench", broker=url, set_as_current=False)
    with closing(app), app.connection_for_write() as connection:
        sender = app.events.Dispatcher(connection, hostname="steps@bench")
        while not (known := _total(flower)):  # it listens some time after it answers
            sender.send("task-received", name="tasks.steps.preflight", uuid="0.1.1.preflight", retries=0)
            time.sleep(0.2)
        for number in range(known, steps):
            step = names[number % len(names)]
            told = {"uuid": f"{uuid.uuid4()}.1.1.{step}"}
            args = f"(web-{number // len(names)}: alpha → beta)"
            sender.send("task-received", name=f"tasks.steps.{step}", args=args, kwargs="{}", retries=0, **told)
            sender.send("task-started", **told)
            sender.send("task-succeeded", result="'done'", runtime=0.05, **told)
            if (number + 1) % PORTION == 0:
                wait_for(partial(_knows, flower, number + 1), f"{number + 1} steps in Flower", timeout_s=60)


def _knows(flower: FlowerServer, many: int) -> bool:
    return _total(flower) >= many


def _total(flower: FlowerServer) -> int:
    return int(json.loads(_rows(flower))["recordsTotal"])


def _rows(flower: FlowerServer) -> str:
    query: dict[str, object] = {"draw": 1, "start": 0, "length": 10, "search[value]": ""}
    query |= {"order[0][column]": COLUMNS.index("received"), "order[0][dir]": "desc"}
    query |= {f"columns[{number}][data]": column for number, column in enumerate(COLUMNS)}
    return flower.get(f"/tasks/datatable?{urlencode(query)}")[1]


def _page_ms(flower: FlowerServer) -> float:
    began = time.monotonic()
    status, _ = flower.get("/tasks")
    rows = _rows(flower)
    took = (time.monotonic() - began) * 1000
    assert status == 200
    assert rows.count('"uuid"') >= 10
    return took
