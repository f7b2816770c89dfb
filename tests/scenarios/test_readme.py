"""The README's examples, run as they stand, against the lab's hosts."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab import Guest, Lab
from tests.scenarios.stack import REPOSITORY

pytestmark = pytest.mark.lab

TIMEOUT_S = 150


def example(name: str) -> str:
    """The code block below a marking comment."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found, f"the README has no example called {name}"
    return found[1]


def test_quick_start_plain_celery_and_a_drain(lab: Lab, make_guest: Callable[..., Guest], tmp_path: Path) -> None:
    guest = make_guest("web-1")
    guest.wait_ticking()
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    (tmp_path / "plain.py").write_text(example("plain celery"), encoding="utf-8")
    script = f"set -e\n{example('quick start')}\npython plain.py\n{example('drain')}\nvmferry list\n"
    command = [*lab.desk_prefix(), "bash", "-c", script]
    env = {name: value for name, value in os.environ.items() if not name.startswith("VMFERRY")}
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines: list[str] = []
    assert process.stdout is not None
    timer = _kill_later(process)
    try:
        for line in process.stdout:
            lines.append(line)
            if line.startswith("ID\tVM\t"):
                break
        output = "".join(lines)
        assert "web-1: alpha → beta: would be moved" in output, output
        assert re.search(r"web-1: alpha → beta: succeeded after", output), output
        assert "succeeded beta → alpha" in output, output
        assert "1 of 1 VMs would move" in output, output
        assert "alpha: empty: 1 moved" in output, output
        assert "alpha: returned: 1 moved" in output, output
        assert re.search(r"morning\talpha\treturned\t1\t1\t.*\ntonight\talpha\tempty\t1\t1\t", output), output
        assert "alpha is empty: safe to reboot" in (tmp_path / "tonight.html").read_text(encoding="utf-8")
    finally:
        timer.cancel()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    guest.wait_ticking("alpha")


def _kill_later(process: subprocess.Popen[str]) -> threading.Timer:
    timer = threading.Timer(TIMEOUT_S, lambda: os.killpg(process.pid, signal.SIGKILL))
    timer.start()
    return timer
