"""Running programs, with argument lists only."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path


class LabUnavailable(Exception):
    """The lab cannot be had on this machine; one line says why."""


class LabError(Exception):
    """Something in the lab did not do what it should."""


def run(*command: str, check: bool = True, timeout_s: float = 60.0) -> str:
    """Run a program; returns what it printed.

    Raises:
        LabError: it failed, with what it printed.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if check and done.returncode != 0:
        raise LabError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def until(condition: Callable[[], object], timeout_s: float, what: str, *, period_s: float = 0.05) -> None:
    """Wait for a condition.

    Raises:
        LabError: it did not come true in time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"after {timeout_s:g} s: {what}")
        time.sleep(period_s)


def start_time(pid: int) -> str:
    """When a process started, in clock ticks since boot: with the pid it names one process for ever."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


def remember(pid: int, file: Path) -> None:
    """Write down a process that the lab started."""
    file.write_text(f"{pid} {start_time(pid)}\n", encoding="ascii")


def recall(file: Path) -> int | None:
    """The pid of a process written down, if it is still that process and lives."""
    try:
        pid, started = file.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return int(pid) if started and start_time(int(pid)) == started and not _is_zombie(int(pid)) else None


def _is_zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return True
    return stat.rsplit(")", 1)[1].split()[0] == "Z"


def kill(file: Path, number: signal.Signals = signal.SIGKILL, *, wait_s: float = 10.0) -> None:
    """End a process written down, and nothing else."""
    pid = recall(file)
    if pid is not None:
        os.kill(pid, number)
        until(lambda: recall(file) is None, wait_s, f"process {pid} does not end")
    file.unlink(missing_ok=True)


def background(command: Sequence[str], log: Path) -> int:
    """Start a program that outlives this one; returns its pid."""
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    return process.pid
