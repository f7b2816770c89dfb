"""Live, with disks that only the source has: copied while the VM runs, and still the guest's own disk afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.model.run import State
from tests.lab import Guest, Lab
from tests.lab.faults import disk_full, pool_inactive, small_pool
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(lab, tmp_path_factory.mktemp("copy")) as made:
        made.start()
        yield made


@pytest.mark.parametrize("transport", ["tcp", "ssh"])
def test_what_the_guest_wrote_is_there(
    lab: Lab, tmp_path: Path, make_guest: Callable[..., Guest], transport: str
) -> None:
    """It reads its disk all the time, from before the move until after it."""
    guest = make_guest("files-1", disk="local", disk_mib=256, write_kib_s=16384, write_stop=16 * 256, autostart=True)
    guest.wait_verified(1)
    with stack(lab, tmp_path, transport=transport) as own, guest.watch() as watch:
        own.start()
        record = own.wait_end(own.client.submit({"vm": guest.name, "destination": "beta"}).id)
        assert record.state is State.SUCCEEDED, own.diagnosis(record.id)
        assert (record.method, record.storage) == ("live", "copy")
        assert record.progress.disk.total_bytes >= 16 << 20
        guest.wait_verified(2, "beta")
        check_invariants(own, guest, record, was_running=True, autostart=True, watch=watch)
        watch.check_continued()


@pytest.mark.parametrize("format_", ["qcow2", "raw"])
def test_what_the_guest_writes_meanwhile_arrives(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest], format_: str
) -> None:
    """It never stops writing; every block that it reads back holds what was written last."""
    guest = make_guest(f"busy-{format_}", disk="local", disk_format=format_, disk_mib=32, write_kib_s=2048)
    guest.wait_written(64)
    with guest.watch() as watch:
        record = running.wait_end(running.client.submit({"vm": guest.name, "destination": "beta"}).id)
        assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
        guest.wait_written(256, "beta")
        check_invariants(running, guest, record, was_running=True, autostart=False, watch=watch)
    (copy,) = record.copies
    assert (copy.format, copy.capacity_bytes) == (format_, 32 << 20)
    seen = lab.host("beta").run(["qemu-img", "info", "-U", "--output=json", copy.path])
    assert (json.loads(seen)["format"], json.loads(seen)["virtual-size"]) == (format_, 32 << 20)


def test_the_copy_takes_no_more_space_than_the_data(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    guest = make_guest("thin-1", disk="local", disk_mib=1024, write_kib_s=16384, write_stop=8 * 256)
    guest.wait_verified(1)
    record = running.wait_end(running.client.submit({"vm": guest.name, "destination": "beta"}).id)
    assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
    (copy,) = record.copies
    allocated = lab.host("beta").run(["du", "--block-size=1", copy.path]).split()[0]
    assert int(allocated) <= 1.1 * copy.allocation_bytes


def test_there_and_back_again(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    """The source's disk is kept, is never used again, and the volume that comes back is another one."""
    guest = make_guest("boomerang", disk="local", write_kib_s=4096, write_stop=256)
    guest.wait_verified(1)
    first = running.wait_end(running.client.submit({"vm": guest.name, "destination": "beta"}).id)
    assert first.kept == (f"/var/lib/libvirt/images/{guest.volume} (vda) on alpha",)
    before = (lab.host("alpha").root / "var/lib/libvirt/images" / guest.volume).read_bytes()
    second = running.wait_end(running.client.submit({"vm": guest.name, "destination": "alpha"}).id)
    assert (first.state, second.state) == (State.SUCCEEDED, State.SUCCEEDED), running.diagnosis(second.id)
    assert (lab.host("alpha").root / "var/lib/libvirt/images" / guest.volume).read_bytes() == before
    assert second.copies[0].volume == f"{guest.name}.vmferry-{second.id}-1-1-vda.qcow2"
    check_invariants(running, guest, second, was_running=True, autostart=False)
    guest.wait_verified_anew("alpha")


def test_shared_disks_stay_and_pools_can_be_named(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    """One disk on shared storage, one local that goes to the shared pool: both directions of mixing."""
    guest = make_guest("mixed-1", disk="shared", second_disk="local", write_kib_s=4096, write_stop=256)
    guest.wait_verified(1)
    values = {"vm": guest.name, "destination": "beta", "pools": {"vdb": "shared"}}
    record = running.wait_end(running.client.submit(values).id)
    assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
    assert [(copy.target, copy.pool) for copy in record.copies] == [("vdb", "shared")]
    check_invariants(running, guest, record, was_running=True, autostart=False)
    again = running.wait_end(running.client.submit({"vm": guest.name, "destination": "gamma"}).id)
    assert (again.state, again.storage, again.copies) == (State.SUCCEEDED, "shared", ()), running.diagnosis(again.id)
    guest.wait_verified_anew("gamma")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"pools": {"*": "nowhere"}}, "COPY_POOL_MISSING"),
        ({"pools": {"vdz": "local"}}, "POOL_FOR_NO_DISK"),
        ({"storage": "shared"}, "DISK_NOT_SHARED"),
        ({"storage": "incremental"}, "NOTHING_INCREMENTAL"),
    ],
)
def test_refused_before_anything_is_made(
    running: Stack, make_guest: Callable[..., Guest], changes: dict[str, object], code: str
) -> None:
    guest = make_guest("refused-1", disk="local")
    before = guest.volumes()
    ended = running.wait_end(running.client.submit({"vm": guest.name, "destination": "beta"} | changes).id)
    assert ended.state is State.REFUSED
    assert ended.error is not None
    assert (ended.error.code, bool(ended.error.hint)) == (code, True)
    assert guest.volumes() == before


@pytest.mark.parametrize("how", ["by libvirt", "behind its back"])
def test_a_volume_of_the_very_name_is_neither_used_nor_deleted(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest], how: str
) -> None:
    """Nobody should make one, and whoever does keeps it."""
    guest = make_guest(f"clash-{how.replace(' ', '-')}", disk="local")
    running.hold("prepare.claimed")
    record = running.client.submit({"vm": guest.name, "destination": "beta"})
    running.wait_held()
    (copy,) = running.client.show(record.id).copies
    there = lab.host("beta").root / copy.path.lstrip("/")
    if how == "by libvirt":
        lab.host("beta").virsh("vol-create-as", copy.pool, copy.volume, "1M")
    there.write_bytes(b"somebody's data")
    running.release()
    ended = running.wait_end(record.id)
    assert ended.state is State.FAILED, running.diagnosis(record.id)
    assert ended.error is not None
    assert ended.error.code == "VOLUME_EXISTS"
    assert there.read_bytes() == b"somebody's data"


def test_a_pool_that_is_stopped_meanwhile(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    """Before the volume is made nothing has to be undone; after that, a person is asked, and retry settles it."""
    guest = make_guest("stopped-1", disk="local", write_kib_s=4096, write_stop=256)
    guest.wait_verified(1)
    running.hold("prepare.claimed")
    record = running.client.submit({"vm": guest.name, "destination": "beta"})
    running.wait_held()
    with pool_inactive(lab.host("beta"), "local"):
        running.release()
        ended = running.wait_end(record.id)
    assert ended.state is State.FAILED, running.diagnosis(ended.id)
    assert ended.error is not None
    assert ended.error.code == "POOL_INACTIVE"
    check_invariants(running, guest, ended, was_running=True, autostart=False)
    running.hold("prepare.done")
    running.client.retry(record.id)
    running.wait_held()
    with pool_inactive(lab.host("beta"), "local"):
        running.client.cancel(record.id)
        running.release()
        ended = running.wait_end(record.id)
        assert ended.state is State.NEEDS_ATTENTION, running.diagnosis(record.id)
        assert ended.error is not None
        assert "virsh pool-start local" in ended.error.message + ended.error.hint
    running.client.retry(record.id)
    ended = running.wait_end(record.id)
    assert ended.state is State.FAILED, running.diagnosis(record.id)
    check_invariants(running, guest, ended, was_running=True, autostart=False)
    guest.wait_verified_anew("alpha")


def test_a_full_destination(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    """Refused when it is seen beforehand; rolled back when there is no room any more once the data comes."""
    guest = make_guest("full-1", disk="local", disk_mib=256, write_kib_s=16384, write_stop=24 * 256)
    guest.wait_verified(1)
    values = {"vm": guest.name, "destination": "beta", "pools": {"*": "small"}}
    with small_pool(lab.host("beta"), "small", 128) as folder, guest.watch() as watch:
        with disk_full(folder, 16):
            ended = running.wait_end(running.client.submit(values).id)
        assert ended.state is State.REFUSED, running.diagnosis(ended.id)
        assert ended.error is not None
        assert ended.error.code == "COPY_NO_SPACE"
        running.hold("transfer.claimed")
        record = running.client.submit(values)
        running.wait_held()
        with disk_full(folder, 8):
            running.release()
            ended = running.wait_end(record.id)
        assert ended.state is State.FAILED, running.diagnosis(record.id)
        assert ended.error is not None
        assert "No space left" in ended.error.message
        check_invariants(running, guest, ended, was_running=True, autostart=False, watch=watch)
        assert ".vmferry-" not in lab.host("beta").virsh("vol-list", "small")
    guest.wait_verified_anew("alpha")
