"""Shut off, with disks that only the source has: copied byte for byte through the worker, read again, then defined."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.model.run import State
from tests.lab import Guest, Lab, check_unchanged, snapshot
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("offline-copy")
    with stack(lab, folder, policies={"slow": {"bandwidth_mib_s": 8}}) as made:
        made.start()
        yield made


def image(lab: Lab, host: str, path: str) -> Path:
    return lab.host(host).root / path.lstrip("/")


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("format_", ["qcow2", "raw"])
def test_the_file_arrives_as_it_is(running: Stack, lab: Lab, make_guest: Callable[..., Guest], format_: str) -> None:
    guest = make_guest(
        f"off-{format_}", disk="local", disk_format=format_, disk_mib=200, write_kib_s=8192, write_stop=512
    )
    guest.wait_verified(1)
    guest.stop()
    source = image(lab, "alpha", f"/var/lib/libvirt/images/{guest.volume}")
    record = running.wait_end(running.client.submit({"vm": guest.name, "destination": "beta"}).id)
    assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
    assert (record.method, record.storage) == ("offline", "copy")
    (copy,) = record.copies
    there = image(lab, "beta", copy.path)
    assert digest(there) == digest(source)
    assert there.stat().st_blocks <= source.stat().st_blocks * 1.1 + 256
    check_invariants(running, guest, record, was_running=False, autostart=False)
    guest.start("beta")
    guest.wait_verified(1, "beta")


@pytest.mark.parametrize("point", ["transfer.journaled-destination_definition", "transfer.moving", "verify.claimed"])
def test_kill9_and_another_worker_goes_on(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest], point: str
) -> None:
    """What had arrived is not copied again, and what was half written is written over as a whole."""
    guest = make_guest("off-crash", start="off", disk="local", disk_format="raw", disk_mib=200)
    source = image(lab, "alpha", f"/var/lib/libvirt/images/{guest.volume}")
    with source.open("r+b") as file:
        for offset in (0, 70 << 20, 150 << 20):
            file.seek(offset)
            file.write(os.urandom(3 << 20))
    running.hold(point)
    record = running.client.submit({"vm": guest.name, "destination": "beta", "policy": "slow"})
    running.wait_held()
    running.workers[1].kill9()
    running.steps_worker()
    running.workers.pop(1)
    ended = running.wait_end(record.id)
    assert ended.state is State.SUCCEEDED, running.diagnosis(record.id)
    assert digest(image(lab, "beta", ended.copies[0].path)) == digest(source)
    check_invariants(running, guest, ended, was_running=False, autostart=False)


def test_cancelled_in_the_middle(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    guest = make_guest("off-cancel", start="off", disk="local", disk_format="raw", disk_mib=64)
    source = image(lab, "alpha", f"/var/lib/libvirt/images/{guest.volume}")
    source.write_bytes(os.urandom(64 << 20))
    before = digest(source)
    record = running.client.submit({"vm": guest.name, "destination": "beta", "policy": "slow"})
    running.wait_state(record.id, State.TRANSFERRING)
    running.client.cancel(record.id)
    ended = running.wait_end(record.id)
    assert ended.state is State.CANCELLED, running.diagnosis(record.id)
    check_invariants(running, guest, ended, was_running=False, autostart=False)
    assert digest(source) == before


@pytest.mark.parametrize("what", ["started", "written"])
def test_a_source_that_changes_meanwhile_is_noticed(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest], what: str
) -> None:
    guest = make_guest(f"off-{what}", start="off", disk="local", disk_format="raw", disk_mib=64)
    source = image(lab, "alpha", f"/var/lib/libvirt/images/{guest.volume}")
    source.write_bytes(os.urandom(64 << 20))
    record = running.client.submit({"vm": guest.name, "destination": "beta", "policy": "slow"})
    running.wait_state(record.id, State.TRANSFERRING)
    if what == "started":
        guest.start()
    else:
        with source.open("r+b") as file:
            file.write(b"another boot loader")
    ended = running.wait_end(record.id)
    assert ended.state is State.FAILED, running.diagnosis(record.id)
    assert ended.error is not None
    assert ended.error.code == {"started": "VM_STARTED", "written": "SOURCE_CHANGED"}[what]
    check_invariants(running, guest, ended, was_running=what == "started", autostart=False)


@pytest.mark.parametrize("point", ["verify.claimed", "finish.claimed"])
def test_a_source_that_is_used_after_the_copy_stays(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest], point: str
) -> None:
    """It was off before and is off after, and its disk is another one than what was copied."""
    guest = make_guest(f"off-used-{point[:3]}", start="off", disk="local", disk_format="raw", disk_mib=32)
    running.hold(point)
    record = running.client.submit({"vm": guest.name, "destination": "beta"})
    running.wait_held()
    with image(lab, "alpha", f"/var/lib/libvirt/images/{guest.volume}").open("r+b") as file:
        file.write(b"another boot loader")
    running.release()
    ended = running.wait_end(record.id)
    assert ended.state is State.FAILED, running.diagnosis(record.id)
    assert ended.error is not None
    assert "was written to since it was copied" in ended.error.message
    check_invariants(running, guest, ended, was_running=False, autostart=False)


UEFI = (
    "<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader>"
    "<nvram>/var/lib/libvirt/qemu/nvram/{}_VARS.fd</nvram>"
)


@pytest.mark.parametrize("point", ["", "transfer.moving", "verify.claimed"])
@pytest.mark.parametrize("disk", ["local", "shared"])
def test_uefi_variables_go_along(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest], disk: str, point: str
) -> None:
    """Under a name of their own; the source's file stays, and goes nowhere when the move is undone."""
    guest = make_guest(f"uefi-{disk}", start="off", disk=disk, os_xml=UEFI.format(f"uefi-{disk}"))
    folders = {host: lab.host(host).root / "var/lib/libvirt/qemu/nvram" for host in ("alpha", "beta")}
    folders["alpha"].mkdir(parents=True, exist_ok=True)
    variables = folders["alpha"] / f"uefi-{disk}_VARS.fd"
    variables.write_bytes(os.urandom(540 << 10))
    before = snapshot(lab, "beta")
    pools = {host: lab.host(host).virsh("pool-list", "--all", "--name").split() for host in folders}
    if point:
        running.fail(point)
    record = running.wait_end(running.client.submit({"vm": guest.name, "destination": "beta"}).id)
    assert {host: lab.host(host).virsh("pool-list", "--all", "--name").split() for host in folders} == pools
    check_invariants(running, guest, record, was_running=False, autostart=False)
    if point:
        assert record.state is State.FAILED, running.diagnosis(record.id)
        check_unchanged(lab, before, "beta")
        return
    assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
    moved = next(path for path in folders["beta"].glob("*") if record.id in path.name)
    assert digest(moved) == digest(variables)
    seen = lab.states(guest.uuid)["beta"]
    assert seen is not None
    assert f">/var/lib/libvirt/qemu/nvram/{moved.name}</nvram>" in seen.xml
    assert any("nvram" in words for words in record.kept)


@pytest.mark.parametrize("point", ["", "transfer.effected-destination_snapshot", "verify.claimed"])
@pytest.mark.parametrize("disk", ["local", "shared"])
def test_internal_snapshots_go_along(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest], disk: str, point: str
) -> None:
    """With their data, in the same order, with the same current one; and one can go back to them there."""
    guest = make_guest(f"snap-{disk}", start="off", disk=disk, autostart=True)
    for name in ("first", "second"):
        lab.host("alpha").virsh("snapshot-create-as", guest.name, name)
    before = snapshot(lab, "beta")
    if point:
        running.fail(point)
    record = running.wait_end(running.client.submit({"vm": guest.name, "destination": "beta"}).id)
    check_invariants(running, guest, record, was_running=False, autostart=True)
    if point:
        check_unchanged(lab, before, "beta")
    here = "alpha" if point else "beta"
    assert record.state is (State.FAILED if point else State.SUCCEEDED), running.diagnosis(record.id)
    host = lab.host(here)
    assert host.virsh("snapshot-list", guest.name, "--name", "--topological").split() == ["first", "second"]
    assert host.virsh("snapshot-current", guest.name, "--name").strip() == "second"
    assert host.virsh("snapshot-parent", guest.name, "second").strip() == "first"
    host.virsh("snapshot-revert", guest.name, "first")
    for name in ("second", "first"):
        host.virsh("snapshot-delete", guest.name, name)


def test_external_snapshots_are_refused(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    guest = make_guest("snap-external", start="off", disk="shared")
    lab.host("alpha").virsh("snapshot-create-as", guest.name, "outside", "--disk-only")
    record = running.wait_end(running.client.submit({"vm": guest.name, "destination": "beta"}).id)
    assert record.state is State.REFUSED, running.diagnosis(record.id)
    assert "HAS_SNAPSHOTS" in [finding.code for finding in record.findings]
