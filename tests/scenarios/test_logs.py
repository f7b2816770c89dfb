"""What real workers write: one JSON object a line, each with the migration that it is about."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tasks.model.run import State
from tests.lab import Guest, Lab
from tests.queue.harness import Program
from tests.scenarios.stack import REPOSITORY, Stack, until

pytestmark = pytest.mark.lab

STEPS = {"preflight", "prepare", "transfer", "verify", "finish"}


def events(worker: Program) -> list[dict[str, Any]]:
    """Everything that it logged."""
    return [json.loads(line) for line in worker.log().splitlines() if line.startswith("{")]


def of(worker: Program, run_id: str) -> list[dict[str, Any]]:
    """What mentions the migration in any way."""
    return [event for event in events(worker) if run_id in json.dumps(event)]


def test_every_line_names_the_migration(lab: Lab, tmp_path: Path, make_guest: Callable[..., Guest]) -> None:
    make_guest("web-1").wait_ticking()
    with Stack(lab, tmp_path, log_format="json") as stack:
        stack.start()
        record = stack.wait_end(stack.client.submit({"vm": "web-1", "destination": "beta"}, run_id="m-1").id)
        assert record.state is State.SUCCEEDED, stack.diagnosis(record.id)
        control, steps = stack.workers
        until(lambda: len([e for e in of(steps, "m-1") if "succeeded in" in e["message"]]) == 5, 10, stack.logs)
        for worker in (control, steps):
            for event in of(worker, "m-1"):
                assert (event["id"], event["attempt"]) == ("m-1", 1), event
                written = datetime.fromisoformat(event["time"])
                assert written.utcoffset() == timedelta(0)
        assert {e["step"] for e in of(steps, "m-1") if "received" in e["message"]} == STEPS
        assert {e["step"] for e in of(steps, "m-1") if "succeeded in" in e["message"]} == STEPS
        assert [e["message"] for e in of(steps, "m-1") if e["logger"] == "tasks.workflow.dispatch"] == ["m-1 succeeded"]


def test_the_thread_of_a_lease_names_its_migration(lab: Lab, tmp_path: Path, make_guest: Callable[..., Guest]) -> None:
    make_guest("web-1", start="off")
    with Stack(lab, tmp_path, log_format="json") as stack:
        stack.start()
        steps = stack.workers[1]
        stack.hold("prepare.claimed")
        stack.client.submit({"vm": "web-1", "destination": "beta"}, run_id="m-2")
        stack.wait_held()
        stack.redis.kill()
        until(lambda: "lease not renewed" in steps.log(), 30, stack.logs)
        stack.redis.start()
        stack.release()
        stack.wait_end("m-2")
        said = next(e for e in events(steps) if "lease not renewed" in e["message"])
        assert (said["id"], said["attempt"], said["step"], said["level"]) == ("m-2", 1, "prepare", "WARNING")


@pytest.mark.parametrize("command", [["worker", "--role", "control"], ["beat"]])
def test_the_programs_write_nothing_but_json(lab: Lab, tmp_path: Path, command: list[str]) -> None:
    """Until they are told to stop: Celery's signal handler then writes a line of its own."""
    with Stack(lab, tmp_path, log_format="json") as stack:
        out = tmp_path / "out"
        with out.open("wb") as file:
            program = subprocess.Popen(
                [sys.executable, str(REPOSITORY / "cli.py"), *command],
                env=stack.env,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:
            until(lambda: " ready." in out.read_text() or "beat: Starting" in out.read_text(), 30, out.read_text)
        finally:
            lines = out.read_text().splitlines()
            program.terminate()
            program.wait(20)
        assert lines
        assert all({"time", "level", "logger", "message"} <= set(json.loads(line)) for line in lines)
