"""A whole vmferry on a lab: its own Redis, worker processes, beat, configuration and CLI, all inside the lab's hub."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from celery import Celery

from config.settings import Settings, load_settings
from tasks.client import Client
from tasks.messages import CeleryMessenger
from tasks.model.run import RunRecord, State, StepName
from tests.lab import Lab
from tests.queue.harness import Beat, RedisServer, Worker

STEPS = "vmferry.steps"
REPOSITORY = Path(__file__).parents[2]
FAST = {
    "lease_s": 3.0,
    "reconcile_period_s": 0.5,
    "hand_over_s": 3.0,
    "connect_timeout_s": 5.0,
    "unreachable_timeout_s": 20.0,
}
"""Timers short enough for tests; the proportions are those of the defaults."""


def to_toml(settings: Mapping[str, Any]) -> str:
    """The few kinds of value that the configuration has."""
    plain = [f"{key} = {json.dumps(value)}" for key, value in settings.items() if not isinstance(value, Mapping)]
    for section, entries in settings.items():
        if isinstance(entries, Mapping):
            for name, values in entries.items():
                plain.append(f"\n[{section}.{json.dumps(name)}]")
                plain += [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
    return "\n".join(plain) + "\n"


class Stack:
    """Redis, configuration, workers and beat of one test."""

    def __init__(
        self,
        lab: Lab,
        folder: Path,
        *,
        transport: str = "tcp",
        limits: int = 4,
        redis: RedisServer | None = None,
        **settings: Any,
    ) -> None:
        self.lab = lab
        self.folder = folder
        self.redis = redis or RedisServer()
        self.workers: list[Worker] = []
        self.beat: Beat | None = None
        self._point = "none"
        self._transport, self._limits, self._settings = transport, limits, settings

    def __enter__(self) -> Stack:
        self.redis.start()
        hosts = self.lab.inventory(self._transport, max_outgoing=self._limits, max_incoming=self._limits)
        values = {"broker_url": self.redis.url} | FAST | self._settings | {"hosts": hosts}
        self.hold_folder.mkdir(exist_ok=True)
        self.config.write_text(to_toml(values))
        self.settings: Settings = load_settings(self.config)
        self.client = Client(self.settings)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for worker in self.workers:
            worker.kill9()
        if self.beat is not None:
            self.beat.kill9()
        self.client.close()
        self.redis.stop()

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.folder / "vmferry.toml"

    @property
    def env(self) -> dict[str, str]:
        """Environment of workers and CLI."""
        return os.environ | {"VMFERRY_CONFIG": str(self.config)}

    # -- processes ------------------------------------------------------------------------------------------------

    def start(self, *, steps: int = 1, beat: bool = True) -> None:
        """One control worker, so many steps workers, and beat."""
        self.control_worker()
        for _ in range(steps):
            self.steps_worker()
        if beat:
            self.beat = Beat(self.config, self.folder / "beat")
            self.beat.start()

    def control_worker(self) -> Worker:
        """A worker of the control queue."""
        return self._worker("vmferry", 4)

    def steps_worker(self, *, concurrency: int = 8) -> Worker:
        """A worker of the steps queue that can be held (see ``faultapp``)."""
        return self._worker(STEPS, concurrency, app="tests.scenarios.faultapp")

    def _worker(self, queue: str, concurrency: int, *, app: str = "tasks.app") -> Worker:
        name = f"w{len(self.workers)}"
        worker = Worker(
            self.config,
            queues=queue,
            concurrency=concurrency,
            name=name,
            app=app,
            env={"VMFERRY_TEST_HOLD": str(self.hold_folder)},
            folder=self.folder,
        )
        self.workers.append(worker)
        return worker.start()

    @property
    def steps_workers(self) -> list[Worker]:
        """Those that run."""
        return [worker for worker in self.workers if worker.running and worker.queues == STEPS]

    # -- holding a steps worker at a point ------------------------------------------------------------------------

    @property
    def hold_folder(self) -> Path:
        """Where tests and held workers meet."""
        return self.folder / "hold"

    def hold(self, point: str) -> None:
        """The next step that comes to ``<step>.<point>`` waits there; who waits at an earlier point goes on."""
        earlier, self._point = self._point, point
        for name in ("held", "release"):
            (self.hold_folder / f"{name}.{point}").unlink(missing_ok=True)
        (self.hold_folder / "point").write_text(point)
        if earlier != point:
            (self.hold_folder / f"release.{earlier}").touch()

    def wait_held(self, timeout_s: float = 30.0) -> None:
        """Wait until a worker stands at the point."""
        until((self.hold_folder / f"held.{self._point}").exists, timeout_s, self.logs)

    def fail(self, point: str) -> None:
        """The next step that comes to ``<step>.<point>`` breaks there."""
        (self.hold_folder / "fail").write_text(point)

    def check_failed(self) -> None:
        """It did come there."""
        assert not (self.hold_folder / "fail").exists(), "no step came to the point at which it should have broken"

    def release(self) -> None:
        """Let it go on."""
        (self.hold_folder / "point").unlink(missing_ok=True)
        (self.hold_folder / f"release.{self._point}").touch()

    # -- using it ---------------------------------------------------------------------------------------------------

    def cli(self, *args: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run the ordinary command line."""
        command = [sys.executable, str(REPOSITORY / "cli.py"), *args]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=timeout_s, check=False)

    def plain_celery(self) -> Celery:
        """What another system has: a Celery app that knows two URLs and nothing of vmferry."""
        return Celery("elsewhere", broker=self.redis.url, backend=self.redis.url, set_as_current=False)

    def resend(self, run_id: str, step: str = "") -> None:
        """Deliver the message of the current (or a named) step once more, under the task id that it had."""
        record = self.client.show(run_id)
        names = StepName(step) if step else record.step
        assert names is not None
        CeleryMessenger(self.plain_celery()).send_steps(record, (names,))

    def wait_state(self, run_id: str, *states: State, timeout_s: float = 40.0) -> RunRecord:
        """Wait until the record is in one of the states."""
        until(lambda: self.client.show(run_id).state in states, timeout_s, lambda: self.diagnosis(run_id))
        return self.client.show(run_id)

    def wait_end(self, run_id: str, timeout_s: float = 60.0) -> RunRecord:
        """Wait until nobody works on it any more, and its Celery result is published."""
        until(lambda: self.client.show(run_id).is_terminal, timeout_s, lambda: self.diagnosis(run_id))
        return self.client.show(run_id)

    def diagnosis(self, run_id: str) -> str:
        """What to look at when a wait has failed: the record, and where the workers' threads stand."""
        record = self.client.show(run_id)
        alive = [worker for worker in self.workers if worker.running]
        for worker in alive:
            os.kill(worker.pid, signal.SIGUSR1)  # Celery's "cry": the stacks of all threads
        time.sleep(1.0)
        stacks = "\n".join(f"== {w.name}\n{w.log_tail(40_000)}" for w in alive)
        return f"{stacks}\n{self.logs()}\n{record.model_dump_json(indent=1)}"

    def logs(self) -> str:
        """The ends of the workers' logs."""
        return "\n".join(f"== {w.name}\n{w.log_tail()}" for w in self.workers)


def until(condition: Any, timeout_s: float, what: Any) -> None:
    """Wait for a condition; fail with ``what`` (text, or a function that makes it)."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(what() if callable(what) else what)
        time.sleep(0.05)


@contextmanager
def stack(lab: Lab, folder: Path, **options: Any) -> Iterator[Stack]:
    """A running stack."""
    with Stack(lab, folder, **options) as made:
        yield made
