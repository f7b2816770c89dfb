"""A lab comes up, comes up again, survives kill -9, and goes without a trace; labs live side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.lab import Lab, LabError, LabUnavailable
from tests.lab.shell import until
from tests.lab.spec import labs_folder

pytestmark = pytest.mark.lab
REPOSITORY = Path(__file__).parents[2]


def _lab_command(action: str, name: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "tests.lab", action, "--name", name, *more]


def _processes(name: str) -> dict[int, str]:
    """Processes that live in a lab's mounts, with their command lines."""
    folder, found = f"{labs_folder() / name}/", {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if folder in (entry / "mountinfo").read_text():
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(entry.name)] = words.decode(errors="replace")[:60]
        except OSError:
            continue
    return found


def _end(name: str) -> None:
    """End what a failed test of this file left, so that it fails alone."""
    for pid in _processes(name):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _leftovers(name: str) -> list[str]:
    """What a lab that is down must not leave."""
    folder = str(labs_folder() / name)
    names = [path.name for path in Path("/run/netns").glob(f"vmferry-{name}-*")]
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{folder}/" in line]
    processes = [f"{pid} {words}" for pid, words in _processes(name).items()]
    return names + mounts + processes + ([folder] if Path(folder).exists() else [])


@pytest.fixture
def second(lab: Lab) -> Iterator[Lab]:
    """Another lab beside the run's own; down again afterwards."""
    made = Lab.up(f"s{os.getpid()}", hosts=("alpha", "beta"), owner=os.getpid())
    try:
        yield made
    finally:
        made.down()


def test_up_again_changes_nothing(lab: Lab) -> None:
    pids = {host: (lab.host(host).pid, lab.host(host).libvirtd_pid) for host in lab.spec.hosts}
    began = time.monotonic()
    again = Lab.up(lab.spec.name, lab.spec.hosts)
    assert time.monotonic() - began < 5
    assert {host: (again.host(host).pid, again.host(host).libvirtd_pid) for host in lab.spec.hosts} == pids


def test_up_starts_a_daemon_that_died(second: Lab) -> None:
    second.host("alpha").stop_libvirtd()
    Lab.up(second.spec.name, second.spec.hosts)
    with closing(second.host("alpha").connect()) as conn:
        assert conn.getHostname() == "alpha"


def test_labs_live_side_by_side_and_go_without_a_trace(lab: Lab, second: Lab) -> None:
    guest = lab.guest("here", "alpha", start="paused", disk=None)
    try:
        assert second.states("here") == {"alpha": None, "beta": None}
        second.guest("there", "alpha", start="paused", disk="shared")
        second.down()
        assert _leftovers(second.spec.name) == []
        assert lab.states("here")["alpha"] is not None
        for host in lab.spec.hosts:
            lab.host(host).virsh("list")
    finally:
        guest.remove()
    second.down()  # harmless when it is down


def test_up_after_the_first_process_of_a_host_was_killed(second: Lab) -> None:
    second.guest("lost", "beta", start="paused", disk=None)
    os.kill(second.host("beta").pid, signal.SIGKILL)
    until(lambda: not second.host("beta").is_up, 10, "the host lives on")
    again = Lab.up(second.spec.name, second.spec.hosts)
    for host in again.spec.hosts:
        with closing(again.host(host).connect()) as conn:
            assert conn.getHostname() == host


@pytest.mark.parametrize("after_s", [0.15, 0.4, 0.8])
def test_down_after_an_up_that_was_killed(lab: Lab, after_s: float) -> None:
    name = f"k{os.getpid()}-{after_s * 1000:.0f}"
    process = subprocess.Popen(_lab_command("up", name), cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    time.sleep(after_s + 0.2)
    process.kill()
    process.wait()
    try:
        subprocess.run(_lab_command("down", name), cwd=REPOSITORY, check=True)
        assert _leftovers(name) == []
    finally:
        _end(name)


def test_a_killed_run_is_cleaned_up_and_others_stay(lab: Lab) -> None:
    name = f"o{os.getpid()}"
    script = f"""
import os, time
from tests.lab import Lab
Lab.up({name!r}, ("alpha",), owner=os.getpid())
print("up", flush=True)
time.sleep(600)
"""
    command = [sys.executable, "-c", script]
    killed = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "up\n"
        Lab.sweep()
        assert Lab.attach(name).is_up, "it was taken away from a run that lives"
        killed.kill()
        killed.wait()
        assert Lab.attach(name).is_up
        Lab.sweep()
        assert _leftovers(name) == []
        assert lab.is_up
    finally:
        killed.kill()
        killed.wait()
        _end(name)


def test_command_line(lab: Lab) -> None:
    status = subprocess.run(
        _lab_command("status", lab.spec.name), cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    assert all(host in status.stdout for host in lab.spec.hosts)


def test_run_takes_a_command_with_options(lab: Lab) -> None:
    words = _lab_command("run", lab.spec.name, "--", "ip", "-brief", "addr", "show", "br0")
    done = subprocess.run(words, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    assert "10.88.0.1/16" in done.stdout


def test_a_lab_that_is_not_there() -> None:
    with pytest.raises(LabError, match="no lab nowhere"):
        Lab.attach("nowhere")


def test_without_root_it_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabUnavailable, match=r"\Athe lab needs root[^\n]*\Z"):
        Lab.up("nobody")
