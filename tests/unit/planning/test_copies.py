"""Where copied disks go, how their volumes are called, and how the storage is chosen."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.model.disks import DiskSize, ImageFile, Volume
from tasks.model.domain import Mark
from tasks.model.finding import Finding
from tasks.model.request import Method, Storage
from tasks.planning.chunks import LARGEST, MIB, MOST_CHUNKS, SMALLEST, chunks_of, size_chunks
from tasks.planning.copies import copies_of
from tasks.planning.domain_xml import parse_domain
from tasks.planning.situation import Situation
from tasks.planning.storage import StorageChoice, choose_storage
from tasks.planning.volume_name import MAX_BYTES, mark_volume_name, parse_volume_mark
from tests.unit.planning.builders import LOCAL_POOL, POOL, SHARED_DISK, domain_xml, facts, file_disk, request, situation

MARK = Mark("m1", 2, 7)
LOCAL_DISK = file_disk("/var/lib/libvirt/images/web.qcow2", target="vdb", inside="<driver type='qcow2'/>")
SIZES = {"vda": DiskSize(1000, 10), "vdb": DiskSize(2000, 20)}
FAST = replace(LOCAL_POOL, name="fast", target="/fast")
VOLUME_DISK = "<disk type='volume'><source pool='default' volume='web.img'/><target dev='vdc'/></disk>"


def copying(devices: str, **changes: object) -> Situation:
    values: dict[str, object] = {"storage": Storage.COPY, "sizes": SIZES | {"vdc": DiskSize(3000, 30)}, "mark": MARK}
    return situation(domain_xml(devices), **(values | changes))  # type: ignore[arg-type]


def test_only_what_is_not_shared_is_copied() -> None:
    (copy,) = copies_of(copying(SHARED_DISK + LOCAL_DISK))
    assert (copy.target, copy.format, copy.capacity_bytes, copy.allocation_bytes) == ("vdb", "qcow2", 2000, 20)
    assert (copy.source, copy.pool) == ("/var/lib/libvirt/images/web.qcow2", "default")
    assert copy.path == "/var/lib/libvirt/images/web.vmferry-m1-2-7-vdb.qcow2"


@pytest.mark.parametrize(
    ("pools", "expected"),
    [
        ({}, {"vdb": "default"}),
        ({"vdb": "fast"}, {"vdb": "fast"}),
        ({"vda": "fast"}, {"vda": "fast", "vdb": "default"}),
        ({"*": "fast"}, {"vda": "fast", "vdb": "fast"}),
        ({"*": "fast", "vdb": "default"}, {"vda": "fast", "vdb": "default"}),
    ],
)
def test_pools_that_were_named(pools: dict[str, str], expected: dict[str, str]) -> None:
    there = facts("beta", pools=(POOL, LOCAL_POOL, FAST))
    s = copying(SHARED_DISK + LOCAL_DISK, request=request(pools=pools), destination=there)
    assert {copy.target: copy.pool for copy in copies_of(s)} == expected


def test_a_pool_of_another_name_with_the_same_directory_will_do() -> None:
    there = facts("beta", pools=(replace(LOCAL_POOL, name="images"),))
    assert [copy.pool for copy in copies_of(copying(LOCAL_DISK, destination=there))] == ["images"]


def test_a_volume_disk() -> None:
    (copy,) = copies_of(copying(VOLUME_DISK))
    assert (copy.source, copy.pool, copy.volume) == ("default/web.img", "default", "web.vmferry-m1-2-7-vdc.img")


def test_nothing_is_copied_with_shared_storage() -> None:
    assert copies_of(replace(copying(LOCAL_DISK), storage=Storage.SHARED)) == ()


@pytest.mark.parametrize(
    ("devices", "asked", "expected"),
    [
        (SHARED_DISK, {}, Storage.SHARED),
        ("", {}, Storage.SHARED),
        (SHARED_DISK + LOCAL_DISK, {}, Storage.COPY),
        (VOLUME_DISK, {}, Storage.COPY),
        (LOCAL_DISK, {"storage": "shared"}, Storage.SHARED),
        (SHARED_DISK, {"storage": "copy"}, Storage.COPY),
        (SHARED_DISK, {"pools": {"vda": "default"}}, Storage.COPY),
        (file_disk("/isos/a.iso", device="cdrom"), {}, Storage.SHARED),
    ],
)
def test_storage_is_chosen(devices: str, asked: dict[str, object], expected: Storage) -> None:
    domain = parse_domain(domain_xml(devices))
    choice = choose_storage(request(**asked), Method.LIVE, (domain,), facts("alpha"), facts("beta"))
    assert isinstance(choice, StorageChoice)
    assert choice.storage is expected
    assert choice.reason


@pytest.mark.parametrize(
    ("method", "asked"),
    [
        (Method.SAVED, {"storage": "incremental"}),
    ],
)
def test_storage_that_the_method_cannot_do(method: Method, asked: dict[str, object]) -> None:
    domain = parse_domain(domain_xml(LOCAL_DISK))
    finding = choose_storage(request(**asked), method, (domain,), facts("alpha"), facts("beta"))
    assert isinstance(finding, Finding)
    assert finding.code == "STORAGE_NOT_SUPPORTED"
    assert finding.hint


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("/images/web.qcow2", "web.vmferry-m1-2-7-vda.qcow2"),
        ("/images/web", "web.vmferry-m1-2-7-vda"),
        ("pool/web.img", "web.vmferry-m1-2-7-vda.img"),
        ("/images/web.vmferry-other-run-1-3-sda.qcow2", "web.vmferry-m1-2-7-vda.qcow2"),
        ("/images/.hidden", ".hidden.vmferry-m1-2-7-vda"),
        ("/images/", "vda.vmferry-m1-2-7-vda"),
        ("/images/debian-12.5", "debian-12.vmferry-m1-2-7-vda.5"),
    ],
)
def test_names_bear_the_mark(source: str, expected: str) -> None:
    assert mark_volume_name(source, "vda", MARK) == expected
    assert parse_volume_mark(expected) == MARK


IMAGES = "/var/lib/libvirt/images"
TOP = ImageFile(f"{IMAGES}/web.qcow2", "qcow2", 2000, 20, 77, "1.5")
MIDDLE = ImageFile(f"{IMAGES}/mid.qcow2", "qcow2", 2000, 20, 66, "1.4")
LOWEST = ImageFile(f"{IMAGES}/base.img", "raw", 2000, 2000, 55, "1.3")
CHAINED: dict[str, object] = {"sizes": {"vdb": DiskSize(2000, 20)}, "chains": {"vdb": (TOP, MIDDLE, LOWEST)}}


def test_a_vm_that_is_shut_off_is_copied_byte_for_byte() -> None:
    (copy,) = copies_of(copying(LOCAL_DISK, offline=True, sizes={}, chains={"vdb": (TOP,)}))
    assert (copy.capacity_bytes, copy.length_bytes, copy.modified) == (2000, 77, "1.5")
    assert (copy.source_path, copy.format) == ("/var/lib/libvirt/images/web.qcow2", "qcow2")


def test_every_file_of_a_chain_is_copied_lowest_first_and_names_the_one_below_it() -> None:
    (copy,) = copies_of(copying(LOCAL_DISK, offline=True, **CHAINED))
    names = [f"{IMAGES}/{stem}.vmferry-m1-2-7-{key}" for stem, key in (("base", "vdb_2"), ("mid", "vdb_1"))]
    paths = [f"{names[0]}.img", f"{names[1]}.qcow2", copy.path]
    assert [file.path for file in copy.files] == paths
    assert [file.below for file in copy.files] == [None, *paths[:2]]
    assert [file.length_bytes for file in copy.files] == [55, 66, 77]
    assert [file.key for file in copy.files] == ["vdb_2", "vdb_1", "vdb"]


def test_a_running_vms_disk_becomes_one_file_unless_only_its_top_is_asked_for() -> None:
    (whole,) = copies_of(copying(LOCAL_DISK, **CHAINED))
    assert (whole.backing, whole.files) == ((), ())
    (top,) = copies_of(copying(LOCAL_DISK, **CHAINED, storage=Storage.INCREMENTAL))
    assert [b.how for b in top.backing] == ["copied", "copied"]
    assert [file.key for file in top.files] == ["vdb_2", "vdb_1"]


def test_what_the_destination_has_is_used_only_when_it_is_asked_for_and_of_the_same_length() -> None:
    there = Volume("base.img", LOWEST.path, 55, 55, length_bytes=55)
    asked = copying(LOCAL_DISK, **CHAINED, bases={LOWEST.path: there}, storage=Storage.INCREMENTAL)
    assert [b.how for b in copies_of(asked)[0].backing] == ["copied", "present"]
    (file,) = copies_of(asked)[0].files
    assert (file.key, file.below) == ("vdb_1", LOWEST.path)
    other = replace(asked, bases={LOWEST.path: replace(there, length_bytes=54)})
    assert [b.how for b in copies_of(other)[0].backing] == ["copied", "copied"]
    assert copies_of(other)[0].backing[1].copied() == copies_of(other)[0].backing[1]


@given(st.integers(0, 10 * 1024**4), st.one_of(st.just(0), st.integers(1, 2 * LARGEST)))
def test_chunks_cover_a_file_without_gaps_and_are_not_many(length: int, each: int) -> None:
    chunks = chunks_of(length, each)
    assert sum(size for _, size in chunks) == length
    assert [offset for offset, _ in chunks] == [sum(size for _, size in chunks[:n]) for n in range(len(chunks))]
    assert all(size > 0 for _, size in chunks)
    assert len(chunks) <= MOST_CHUNKS


@pytest.mark.parametrize(
    ("length_mib", "allocation_mib", "expected_mib"),
    [
        (4096, 4096, 64),
        (4096, 8192, 64),
        (4096, 2048, 128),
        (4096, 300, 256),
        (4096, 0, 256),
        (0, 0, 64),
        (10, 10, 64),
    ],
)
def test_pieces_of_a_sparse_file_are_longer(length_mib: int, allocation_mib: int, expected_mib: int) -> None:
    assert size_chunks(length_mib * MIB, allocation_mib * MIB) == expected_mib * MIB


@given(st.integers(0, 10 * 1024**4), st.integers(0, 10 * 1024**4))
def test_pieces_are_neither_tiny_nor_endless(length: int, allocation: int) -> None:
    assert SMALLEST <= size_chunks(length, allocation) <= LARGEST


def test_a_copy_keeps_the_pieces_that_it_was_planned_with() -> None:
    """Of its disk and of what is below; what says nothing of them has those of a file without holes."""
    (copy,) = copies_of(copying(LOCAL_DISK, offline=True, **CHAINED))
    sizes = [size_chunks(image.length_bytes, image.allocation_bytes) for image in (TOP, MIDDLE, LOWEST)]
    assert [copy.chunk_bytes, *(base.chunk_bytes for base in copy.backing)] == sizes
    planned = copy.model_copy(update={"chunk_bytes": 3 * SMALLEST})
    planned = planned.model_copy(
        update={"backing": tuple(b.model_copy(update={"chunk_bytes": 5 * SMALLEST}) for b in copy.backing)}
    )
    assert [f.chunk_bytes for f in planned.files] == [5 * SMALLEST] * (len(planned.files) - 1) + [3 * SMALLEST]
    assert chunks_of(100 * SMALLEST)[0] == chunks_of(100 * SMALLEST, SMALLEST)[0] == (0, SMALLEST)


@given(st.text(min_size=1, max_size=400), st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True))
def test_any_name_fits_and_keeps_its_mark(source: str, run_id: str) -> None:
    mark = Mark(run_id, 3, 123456)
    name = mark_volume_name(source.replace("\n", " "), "vda", mark)
    assert len(name.encode()) <= MAX_BYTES
    assert "/" not in name
    assert parse_volume_mark(name) == mark
    assert mark_volume_name(name, "vda", mark) == name


@pytest.mark.parametrize("name", ["web.qcow2", "web.vmferry-m1.qcow2", "vmferry-m1-1-1-vda", "web.vmferry-m1-1-1-"])
def test_other_names_bear_none(name: str) -> None:
    assert parse_volume_mark(name) is None
