"""Shut off, with disks that go from host to host: started paused, mirrored, ended there, and compared."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.model.run import RunRecord, State
from tests.lab import Guest, Lab, check_unchanged, snapshot
from tests.lab.faults import libvirtd_killed
from tests.lab.host import LOCAL_PATH
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack

pytestmark = pytest.mark.lab

HOSTS = {"data_path": "hosts"}
OFF = {"start": "off", "disk": "local", "disk_format": "raw", "disk_mib": 160}
PIECES = ((0, 2), (70, 2), (140, 2))


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("hosts-path")
    with stack(lab, folder, policies={"slow": {"bandwidth_mib_s": 4}}) as made:
        made.start()
        yield made


def image(lab: Lab, host: str, path: str) -> Path:
    return lab.host(host).root / path.lstrip("/")


def state_of(file: Path) -> tuple[str, int]:
    """Checksum and time of the last change."""
    return hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns


def move(running: Stack, guest: Guest, **more: Any) -> RunRecord:
    request = {"vm": guest.name, "destination": "beta", **HOSTS, **more}
    return running.wait_end(running.client.submit(request).id)


@pytest.mark.parametrize("format_", ["qcow2", "raw"])
def test_what_the_guest_sees_arrives(running: Stack, lab: Lab, make_guest: Callable[..., Guest], format_: str) -> None:
    guest = make_guest(
        f"hosts-{format_}",
        disk="local",
        second_disk="local",
        disk_format=format_,
        disk_mib=200,
        write_kib_s=8192,
        write_stop=512,
        network=True,
        autostart=True,
    )
    guest.wait_verified(1)
    guest.stop()
    source = image(lab, "alpha", f"{LOCAL_PATH}/{guest.volume}")
    before, visible = state_of(source), guest.guest_visible("alpha")
    with guest.watch() as watch:
        record = move(running, guest)
        assert watch.ticks() == [], "the guest ran, which it must not"
    assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
    assert (record.method, record.storage, record.data_path) == ("offline", "copy", "hosts")
    assert [e.kind for e in record.journal if e.kind in ("source_start", "transfer", "destination_end")] == [
        "source_start",
        "transfer",
        "destination_end",
    ]
    assert state_of(source) == before, "the source's disk was touched"
    assert guest.guest_visible("beta") == visible
    there = image(lab, "beta", record.copies[0].path)
    assert there.stat().st_blocks <= source.stat().st_blocks * 1.1 + 512
    check_invariants(running, guest, record, was_running=False, autostart=True)
    guest.start("beta")
    guest.wait_verified(1, "beta")


def off_guest(make_guest: Callable[..., Guest], name: str, **options: Any) -> Guest:
    guest = make_guest(name, autostart=True, **(OFF | options))
    guest.fill_disk(PIECES)
    return guest


def there_is_nothing(lab: Lab, guest: Guest) -> None:
    assert lab.states(guest.uuid)["beta"] is None
    assert [name for place, name in guest.volumes() if place == "beta"] == []


@pytest.mark.parametrize(
    "point",
    [
        "prepare.effected-destination_volume",
        "transfer.effected-source_start",
        "transfer.moving",
        "transfer.journaled-destination_end",
        "transfer.effected-destination_end",
        "verify.done",
    ],
)
def test_both_hosts_are_what_they_were(running: Stack, lab: Lab, make_guest: Callable[..., Guest], point: str) -> None:
    """Definitions, volumes with their contents, processes, ports: all that can be compared is the same again, but for
    what libvirt says of how the VM was shut off last."""
    guest = off_guest(make_guest, "hosts-undone", network=True)
    before = snapshot(lab)
    running.fail(point)
    record = move(running, guest, policy="slow" if point == "transfer.moving" else "default")
    running.check_failed()
    assert record.state is State.FAILED, running.diagnosis(record.id)
    seen, key = lab.states(guest.uuid)["alpha"], f"alpha: domain {guest.uuid}"
    assert seen is not None
    name, state, *rest = before[key]
    before[key] = (name, [state[0], seen.reason], *rest)
    check_unchanged(lab, before)


@pytest.mark.parametrize(
    ("point", "commands"),
    [
        ("transfer.journaled-source_start", ["start"]),
        ("transfer.journaled-source_start", ["start --paused"]),
        ("transfer.effected-source_start", ["resume"]),
        ("transfer.effected-source_start", ["resume", "suspend"]),
    ],
)
def test_whoever_lets_it_run_on_the_source_keeps_it(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest], point: str, commands: list[str]
) -> None:
    """It is not moved, never ended, and nothing is left of the attempt but what the person has."""
    guest = off_guest(make_guest, "hosts-resumed")
    running.hold(point)
    asked = running.client.submit({"vm": guest.name, "destination": "beta", **HOSTS})
    running.wait_held()
    for command in commands:
        lab.host("alpha").virsh(*command.split(), guest.name)
        if command == "resume":
            guest.wait_ticking("alpha")
    running.release()
    record = running.wait_end(asked.id)
    assert record.state is State.FAILED, running.diagnosis(record.id)
    assert record.error is not None
    assert record.error.code == "VM_STARTED"
    assert any("left alone" in words for words in record.kept), record.kept
    there_is_nothing(lab, guest)
    check_invariants(running, guest, record, was_running=True, autostart=True)
    wanted = "running" if commands[-1] in ("start", "resume") else "paused"
    assert lab.host("alpha").virsh("domstate", guest.name).strip() == wanted
    moved = running.wait_end(running.client.submit({"vm": guest.name, "destination": "beta"}).id)
    assert moved.state is (State.REFUSED if commands == ["start --paused"] else State.SUCCEEDED)


def test_a_resume_that_waits_for_the_transfers_end(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    """libvirt lets it wait; when the transfer is aborted, the VM runs, and is that person's."""
    guest = off_guest(make_guest, "hosts-waiting")
    running.hold("transfer.moving")
    asked = running.client.submit({"vm": guest.name, "destination": "beta", "policy": "slow", **HOSTS})
    running.wait_held()
    resume = subprocess.Popen([*lab.host("alpha").prefix(), "virsh", "resume", guest.name])
    time.sleep(1.0)
    assert resume.poll() is None, "libvirt let somebody resume a VM that is being migrated"
    running.client.cancel(asked.id)
    running.release()
    record = running.wait_end(asked.id)
    assert resume.wait(40) == 0
    assert record.state is State.CANCELLED, running.diagnosis(record.id)
    there_is_nothing(lab, guest)
    # Whether it was resumed before rollback looked, or ended first, is a race that either may win.
    seen = lab.states(guest.uuid)["alpha"]
    assert seen is not None
    assert seen.active is any("left alone" in words for words in record.kept)
    check_invariants(running, guest, record, was_running=seen.active, autostart=True)


@pytest.mark.parametrize("commands", [["resume"], ["resume", "suspend"]])
def test_whoever_lets_it_run_on_the_destination_is_asked(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest], commands: list[str]
) -> None:
    """It has moved, and is not as it was to be: nothing is ended or removed on either host."""
    guest = off_guest(make_guest, "hosts-there")
    running.hold("transfer.journaled-destination_end")
    asked = running.client.submit({"vm": guest.name, "destination": "beta", **HOSTS})
    running.wait_held()
    for command in commands:
        lab.host("beta").virsh(command, guest.name)
        if command == "resume":
            guest.wait_ticking("beta")
    running.release()
    record = running.wait_end(asked.id)
    assert record.state is State.NEEDS_ATTENTION, running.diagnosis(record.id)
    states = lab.states(guest.uuid)
    assert states["alpha"] is not None
    assert not states["alpha"].active
    assert states["beta"] is not None
    assert states["beta"].active
    lab.host("beta").virsh("destroy", guest.name)
    ended = running.client.retry(record.id)
    again = running.wait_end(ended.id)
    assert again.state is State.FAILED, running.diagnosis(record.id)
    check_invariants(running, guest, again, was_running=False, autostart=True)
    guest.check_filled("alpha")


@pytest.mark.parametrize("verify", ["auto", "basic"])
@pytest.mark.parametrize("where", ["alpha", "beta"])
@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_an_image_that_is_changed_before_it_is_compared(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest], where: str, verify: str, format_: str
) -> None:
    """Deep verification reads both; without it, that the source was written to is still seen."""
    guest = make_guest("hosts-changed", autostart=True, **(OFF | {"disk_format": format_}))
    running.hold("verify.claimed")
    asked = running.client.submit({"vm": guest.name, "destination": "beta", "verify": verify, **HOSTS})
    running.wait_held()
    copy = running.client.show(asked.id).copies[0]
    path = copy.source_path if where == "alpha" else copy.path
    lab.host(where).run(["qemu-io", "-f", format_, "-c", "write -P 7 100M 512", path])
    running.release()
    record = running.wait_end(asked.id)
    if (where, verify) == ("beta", "basic"):
        assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
        return
    assert record.state is State.FAILED, running.diagnosis(record.id)
    assert record.error is not None
    assert record.error.code == "VERIFY_FAILED"
    assert copy.source_path in record.error.message
    check_invariants(running, guest, record, was_running=False, autostart=True)
    there_is_nothing(lab, guest)


@pytest.mark.parametrize("host", ["alpha", "beta"])
def test_a_daemon_that_dies_while_it_moves(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest], host: str
) -> None:
    """The transfer ends, the paused instance stays, and rollback ends that too."""
    guest = off_guest(make_guest, "hosts-daemon")
    running.hold("transfer.moving")
    with guest.watch() as watch:
        asked = running.client.submit({"vm": guest.name, "destination": "beta", "policy": "slow", **HOSTS})
        running.wait_held()
        with libvirtd_killed(lab.host(host)):
            running.release()
            time.sleep(2.0)
        record = running.wait_end(asked.id, timeout_s=90)
        assert watch.ticks() == [], "the guest ran, which it must not"
    assert record.state is State.FAILED, running.diagnosis(record.id)
    check_invariants(running, guest, record, was_running=False, autostart=True)
    there_is_nothing(lab, guest)
    guest.check_filled("alpha")


def test_what_only_files_keep_is_refused(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    guest = make_guest("hosts-refused", start="off", disk="local")
    lab.host("alpha").virsh("snapshot-create-as", guest.name, "one")
    record = move(running, guest)
    assert record.state is State.REFUSED, running.diagnosis(record.id)
    assert [f.code for f in record.findings if f.severity == "blocker"] == ["HOSTS_PATH_UNFIT"]
    planned = running.cli("plan", guest.name, "--to", "beta", "--json")
    assert planned.returncode == 0, planned.stderr
    said = json.loads(planned.stdout)
    assert said["data_path"] == "worker"
    assert "1 snapshot(s)" in said["reason"]
    lab.host("alpha").virsh("snapshot-delete", guest.name, "one")
    asked = running.cli("plan", guest.name, "--to", "beta", "--data-path", "hosts")
    assert asked.returncode == 0, asked.stderr
    assert "data path hosts" in asked.stdout
    assert "started paused" in asked.stdout
    assert running.cli("plan", guest.name, "--to", "beta", "--data-path", "pigeon").returncode == 2


def test_sources_are_deleted_when_that_is_asked_for(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    guest = off_guest(make_guest, "hosts-delete")
    record = move(running, guest, source_disks="delete")
    assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
    assert [name for place, name in guest.volumes() if place == "alpha"] == []
    guest.check_filled("beta")
