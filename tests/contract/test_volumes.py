"""The contract of ``tasks.model.ports.Hypervisor``: volumes, and what is in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.model.disks import ChunkOrder, DiskSize, VolumeOrder
from tasks.model.errors import HypervisorError, OperatorMustFix
from tests.contract.acting import code_of
from tests.contract.rigs import Rig, new_identity

MIB = 1024**2


def pool_of(rig: Rig, host: str) -> tuple[str, Path]:
    """Name and directory of a new pool."""
    folder = rig.make_pool(host)
    return folder.name, folder


def order(pool: str, name: str = "new.raw", format_: str = "raw", size: int = 3 * MIB) -> VolumeOrder:
    return VolumeOrder(pool, name, format_, size)


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_a_new_volume_is_sparse_and_of_exactly_the_size(rig: Rig, format_: str) -> None:
    pool, folder = pool_of(rig, rig.destination)
    made = rig.hypervisor.create_volume(rig.destination, order(pool, f"new.{format_}", format_))
    assert (made.name, made.path) == (f"new.{format_}", str(folder / f"new.{format_}"))
    assert (made.capacity_bytes, made.format) == (3 * MIB, format_)
    assert made.allocation_bytes < MIB
    assert rig.hypervisor.find_volume(rig.destination, pool, made.name) == made
    at = rig.hypervisor.find_volume_at(rig.destination, made.path)
    assert at is not None
    assert (at.name, at.capacity_bytes) == (made.name, made.capacity_bytes)


def test_nothing_existing_is_used(rig: Rig) -> None:
    pool, folder = pool_of(rig, rig.destination)
    rig.hypervisor.create_volume(rig.destination, order(pool))
    again = order(pool, size=MIB)
    assert code_of(lambda: rig.hypervisor.create_volume(rig.destination, again), OperatorMustFix) == "VOLUME_EXISTS"
    found = rig.hypervisor.find_volume(rig.destination, pool, "new.raw")
    assert found is not None
    assert found.capacity_bytes == 3 * MIB
    assert folder.name == pool


def test_what_came_behind_its_back_is_seen(rig: Rig) -> None:
    pool, folder = pool_of(rig, rig.destination)
    rig.put_file(rig.destination, folder / "foreign.raw")
    foreign = order(pool, "foreign.raw")
    assert code_of(lambda: rig.hypervisor.create_volume(rig.destination, foreign), OperatorMustFix) == "VOLUME_EXISTS"
    rig.remove_file(rig.destination, folder / "foreign.raw")
    assert rig.hypervisor.find_volume(rig.destination, pool, "foreign.raw") is None


def test_deleting_twice_is_no_error(rig: Rig) -> None:
    pool, _ = pool_of(rig, rig.destination)
    rig.hypervisor.create_volume(rig.destination, order(pool))
    for _ in range(2):
        rig.hypervisor.delete_volume(rig.destination, pool, "new.raw")
        assert rig.hypervisor.find_volume(rig.destination, pool, "new.raw") is None


def test_deleting_by_path(rig: Rig) -> None:
    pool, folder = pool_of(rig, rig.destination)
    made = rig.hypervisor.create_volume(rig.destination, order(pool))
    rig.hypervisor.create_volume(rig.destination, order(pool, "other.raw"))
    for _ in range(2):
        rig.hypervisor.delete_file(rig.destination, made.path)
        assert rig.hypervisor.find_volume(rig.destination, pool, "new.raw") is None
    rig.hypervisor.delete_file(rig.destination, "/nonexistent/folder/disk.raw")
    assert rig.hypervisor.find_volume(rig.destination, pool, "other.raw") is not None
    assert folder.name == pool


def test_what_lies_on_a_file(rig: Rig) -> None:
    pool, _ = pool_of(rig, rig.destination)
    base = rig.hypervisor.create_volume(rig.destination, order(pool, "base.qcow2", "qcow2"))
    assert not rig.hypervisor.find_overlays(rig.destination, base.path)
    above = VolumeOrder(pool, "above.qcow2", "qcow2", 3 * MIB, backing=base.path, backing_format="qcow2")
    made = rig.hypervisor.create_volume(rig.destination, above)
    assert tuple(rig.hypervisor.find_overlays(rig.destination, base.path)) == (made.path,)
    assert not rig.hypervisor.find_overlays(rig.destination, made.path)


def test_a_pool_that_is_not_there(rig: Rig) -> None:
    for call in (
        lambda: rig.hypervisor.refresh_pool(rig.destination, "none"),
        lambda: rig.hypervisor.find_volume(rig.destination, "none", "v"),
        lambda: rig.hypervisor.create_volume(rig.destination, order("none")),
        lambda: rig.hypervisor.delete_volume(rig.destination, "none", "v"),
    ):
        assert code_of(call, OperatorMustFix) == "NO_STORAGE_POOL"


def test_a_refreshed_pool_tells_its_free_space(rig: Rig) -> None:
    pool, folder = pool_of(rig, rig.destination)
    seen = rig.hypervisor.refresh_pool(rig.destination, pool)
    assert (seen.name, seen.type, seen.active, seen.target) == (pool, "dir", True, str(folder))


def test_no_pool_no_volume(rig: Rig) -> None:
    assert rig.hypervisor.find_volume_at(rig.source, "/nonexistent/folder/disk.raw") is None


def test_sizes_of_disks(rig: Rig) -> None:
    pool, folder = pool_of(rig, rig.source)
    rig.hypervisor.create_volume(rig.source, order(pool, "disk.raw"))
    disk = (
        f"<disk type='file' device='disk'><source file='{folder / 'disk.raw'}'/><target dev='vdx' bus='virtio'/></disk>"
    )
    name, uuid = new_identity()
    rig.hypervisor.define(rig.source, rig.xml(name, uuid, inside=disk))
    sizes = rig.hypervisor.fetch_disk_sizes(rig.source, uuid, ["vdx", "vdz"])
    rig.hypervisor.undefine(rig.source, uuid)
    assert set(sizes) == {"vdx"}
    assert isinstance(sizes["vdx"], DiskSize)
    assert sizes["vdx"].capacity_bytes == 3 * MIB


class TestContents:
    def prepare(self, rig: Rig, contents: bytes) -> tuple[str, ChunkOrder]:
        """A source file and an empty volume as long; the source's path, and an order for the whole of it."""
        _, folder = pool_of(rig, rig.source)
        there, _ = pool_of(rig, rig.destination)
        rig.write_file(rig.source, folder / "source.raw", contents)
        assert rig.hypervisor.find_volume_at(rig.source, str(folder / "source.raw")) is not None
        made = rig.hypervisor.create_volume(rig.destination, order(there, size=len(contents)))
        path = str(folder / "source.raw")
        return path, ChunkOrder(rig.source, path, rig.destination, made.path, 0, len(contents), True)

    def test_what_is_copied_has_the_same_checksum(self, rig: Rig) -> None:
        contents = b"a" * 100_000 + bytes(MIB) + b"b" * 300_000 + bytes(2 * MIB - 400_000)
        path, whole = self.prepare(rig, contents)
        told: list[int] = []
        checksum = rig.hypervisor.copy_chunk(whole, told.append)
        assert sum(told) > 0
        made = rig.hypervisor.find_volume_at(rig.destination, whole.destination_path)
        assert made is not None
        for host, place in ((rig.source, path), (rig.destination, made.path)):
            assert rig.hypervisor.hash_chunk(host, place, 0, len(contents), told.append) == checksum
        assert rig.read_file(rig.destination, Path(made.path)) == contents

    @pytest.mark.parametrize("at_once", [65_536, 300_001])
    def test_asked_for_slice_by_slice_it_is_the_same(self, rig: Rig, at_once: int) -> None:
        contents = b"a" * 100_000 + bytes(MIB) + b"b" * 300_000 + bytes(2 * MIB - 400_000)
        path, whole = self.prepare(rig, contents)
        checksum = rig.hypervisor.copy_chunk(replace(whole, at_once=at_once), lambda _: None)
        assert rig.hypervisor.hash_chunk(rig.source, path, 0, len(contents), lambda _: None) == checksum
        assert rig.read_file(rig.destination, Path(whole.destination_path)) == contents

    def test_pieces_make_the_whole(self, rig: Rig) -> None:
        contents = bytes(range(256)) * 4 * 1024
        _, whole = self.prepare(rig, contents)
        for offset in range(0, len(contents), 300_000):
            length = min(300_000, len(contents) - offset)
            rig.hypervisor.copy_chunk(replace(whole, offset=offset, length=length), lambda _: None)
        made = rig.hypervisor.find_volume_at(rig.destination, whole.destination_path)
        assert made is not None
        assert rig.read_file(rig.destination, Path(made.path)) == contents

    def test_a_piece_that_was_begun_before_is_written_over(self, rig: Rig) -> None:
        """Holes are written as zeros where something may have been left."""
        contents = b"x" * MIB + bytes(MIB)
        _, whole = self.prepare(rig, contents)
        made = rig.hypervisor.find_volume_at(rig.destination, whole.destination_path)
        assert made is not None
        rig.write_file(rig.destination, Path(made.path), b"stale" * (2 * MIB // 5) + b"stal"[: 2 * MIB % 5])
        rig.hypervisor.copy_chunk(replace(whole, fresh=False), lambda _: None)
        assert rig.read_file(rig.destination, Path(made.path)) == contents

    def test_what_was_begun_before_stays_sparse(self, rig: Rig) -> None:
        """What an owner left that died half-way is of the same file: nothing is filled that is a hole on both sides."""
        contents = b"x" * 70_000 + bytes(8 * MIB - 70_000) + b"y" * MIB
        _, whole = self.prepare(rig, contents)
        rig.hypervisor.copy_chunk(replace(whole, length=50_000), lambda _: None)
        rig.hypervisor.copy_chunk(replace(whole, fresh=False), lambda _: None)
        assert rig.read_file(rig.destination, Path(whole.destination_path)) == contents
        made = rig.hypervisor.find_volume_at(rig.destination, whole.destination_path)
        assert made is not None
        assert made.allocation_bytes < 2 * MIB

    def test_another_beginning(self, rig: Rig) -> None:
        """What is written is what the checksum is of; the rest stays as it is."""
        contents = bytes(range(256)) * 4096
        _, whole = self.prepare(rig, contents)
        checksum = rig.hypervisor.copy_chunk(replace(whole, head=b"another beginning"), lambda _: None)
        made = rig.hypervisor.find_volume_at(rig.destination, whole.destination_path)
        assert made is not None
        assert rig.read_file(rig.destination, Path(made.path)) == b"another beginning" + contents[17:]
        assert rig.hypervisor.hash_chunk(rig.destination, made.path, 0, len(contents), lambda _: None) == checksum

    def test_a_piece_is_read_with_its_holes(self, rig: Rig) -> None:
        contents = b"a" * 70_000 + bytes(MIB) + b"b" * 70_000
        path, _ = self.prepare(rig, contents)
        for offset, length in ((0, 16), (60_000, 100_000), (len(contents) - 10, 10)):
            assert rig.hypervisor.read_piece(rig.source, path, offset, length) == contents[offset : offset + length]

    def test_who_is_told_may_end_it(self, rig: Rig) -> None:
        _, whole = self.prepare(rig, b"y" * MIB)

        def stop(_: int) -> None:
            raise KeyError("enough")

        with pytest.raises(KeyError, match="enough"):
            rig.hypervisor.copy_chunk(whole, stop)
        rig.hypervisor.copy_chunk(replace(whole, fresh=False), lambda _: None)

    def test_a_volume_that_is_not_there(self, rig: Rig) -> None:
        _, whole = self.prepare(rig, b"z" * 1000)
        gone = replace(whole, destination_path="/none.raw")
        with pytest.raises(HypervisorError) as refused:
            rig.hypervisor.copy_chunk(gone, lambda _: None)
        assert refused.value.code == "NO_STORAGE_VOL"
