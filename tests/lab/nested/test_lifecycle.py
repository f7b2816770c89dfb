"""Labs beside each other, and what becomes of one whose run was killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.nested import NestedLab
from tests.lab.nested.spec import NestedSpec
from tests.lab.shell import recall

pytestmark = [pytest.mark.nested, pytest.mark.timeout(900)]

REPOSITORY = Path(__file__).parents[3]
UP_AND_WAIT = """
import os, sys, time
from tests.lab.nested import NestedLab
from tests.lab.nested.machine import Machine
Machine.wait_booted = lambda self: (print("booting", flush=True), time.sleep(600))
NestedLab.machines = property(lambda self: [self.server])
NestedLab.up(sys.argv[1], owner=os.getpid())
"""
"""One machine of it has to be enough, and it need not come up."""


def test_a_killed_run_is_cleaned_up_and_others_stay(nested: NestedLab, tmp_path: Path) -> None:
    left = NestedLab(NestedSpec(f"k{os.getpid()}"))
    command = [sys.executable, "-c", UP_AND_WAIT, left.spec.name]
    killed = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "booting\n"
        NestedLab.sweep()
        machine = left.server.root / "qemu.pid"
        assert recall(machine) is not None, "it was taken away from a run that lives"
        kept = tmp_path / "qemu.pid"
        shutil.copy(machine, kept)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert recall(machine) is not None
        NestedLab.sweep()
        assert recall(kept) is None
        assert not (Path("/run/netns") / left.spec.netns("hub")).exists()
        assert not left.spec.folder.exists()
        assert all(other.is_up for other in nested.machines)
        assert nested.host("one").run(["hostname"]) == "one\n"
    finally:
        killed.kill()
        killed.wait()
        left.down()
