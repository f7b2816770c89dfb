"""``source_disks``: what stays behind is deleted at the end when that is asked for, and only when nobody uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.model.run import State
from tests.lab import Guest, Lab
from tests.lab.shell import run
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(lab, tmp_path_factory.mktemp("source-disks")) as made:
        made.start()
        yield made


def source_file(lab: Lab, guest: Guest) -> Path:
    return lab.host("alpha").root / f"var/lib/libvirt/images/{guest.volume}"


@pytest.mark.parametrize("start", ["off", "running"])
def test_deleted_after_it_has_arrived(running: Stack, lab: Lab, make_guest: Callable[..., Guest], start: str) -> None:
    guest = make_guest(f"left-{start}", start=start, disk="local", disk_mib=32)
    if start == "running":
        guest.wait_ticking()
    values = {"vm": guest.name, "destination": "beta", "storage": "copy", "source_disks": "delete"}
    record = running.wait_end(running.client.submit(values).id)
    assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
    check_invariants(running, guest, record, was_running=start == "running", autostart=False)
    assert not source_file(lab, guest).exists()
    assert record.kept == ()
    assert record.deleted == (f"/var/lib/libvirt/images/{guest.volume} (vda) on alpha",)


def test_a_file_that_others_lie_on_stays(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    guest = make_guest("left-below", start="off", disk="local", disk_mib=32)
    file = source_file(lab, guest)
    clone = f"/var/lib/libvirt/images/{guest.name}-clone.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]
    lab.host("alpha").run([*create, f"/var/lib/libvirt/images/{guest.volume}", clone])
    try:
        values = {"vm": guest.name, "destination": "beta", "storage": "copy", "source_disks": "delete"}
        record = running.wait_end(running.client.submit(values).id)
        assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
        assert file.exists()
        assert record.deleted == ()
        assert record.kept == (f"/var/lib/libvirt/images/{guest.volume} (vda) on alpha: {clone} lies on it",)
    finally:
        run("rm", "-f", str(lab.host("alpha").root / clone.lstrip("/")))


def test_a_file_that_another_vm_names_stays(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    guest = make_guest("left-used", start="off", disk="local", disk_mib=32)
    path = f"/var/lib/libvirt/images/{guest.volume}"
    disk = f"<disk type='file' device='disk'><source file='{path}'/><target dev='vdz' bus='virtio'/></disk>"
    make_guest("left-user", start="off", extra_xml=disk)
    values = {"vm": guest.name, "destination": "beta", "storage": "copy", "source_disks": "delete"}
    record = running.wait_end(running.client.submit(values).id)
    assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
    assert source_file(lab, guest).exists()
    assert record.kept == (f"{path} (vda) on alpha: in use by left-user on alpha",)


def test_nothing_is_deleted_when_it_did_not_arrive(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    guest = make_guest("left-failed", start="off", disk="local", disk_mib=32)
    running.fail("verify.claimed")
    values = {"vm": guest.name, "destination": "beta", "storage": "copy", "source_disks": "delete"}
    record = running.wait_end(running.client.submit(values).id)
    running.check_failed()
    assert record.state is State.FAILED, running.diagnosis(record.id)
    assert source_file(lab, guest).exists()
    assert record.deleted == ()


@pytest.mark.parametrize("point", ["journaled-source_file", "effected-source_file"])
def test_kill9_while_it_is_deleted(running: Stack, lab: Lab, make_guest: Callable[..., Guest], point: str) -> None:
    guest = make_guest(f"left-{point.partition('-')[0]}", start="off", disk="local", disk_mib=32)
    running.hold(f"finish.{point}")
    values = {"vm": guest.name, "destination": "beta", "storage": "copy", "source_disks": "delete"}
    record = running.client.submit(values)
    running.wait_held()
    for worker in running.steps_workers:
        worker.kill9()
    running.steps_worker()
    ended = running.wait_end(record.id)
    assert ended.state is State.SUCCEEDED, running.diagnosis(record.id)
    assert not source_file(lab, guest).exists()
    assert len(ended.deleted) == 1
