"""What the tables of images say that the guest sees, compared with what qemu-img says."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tasks.model.disks import ImagePiece
from tasks.planning.qcow2 import HEADER_BYTES
from tasks.planning.qcow2_map import Layout, parse_layout, parse_tables, pieces_of
from tests.fakes.domain import hash_pieces

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img makes the images")

MIB = 1 << 20


def qemu(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


def layout_of(image: Path) -> Layout | None:
    return parse_layout(image.read_bytes()[:HEADER_BYTES])


def pieces_from(image: Path, step: int) -> list[ImagePiece]:
    """Of the whole image, taken in steps of so many bytes."""
    layout, data = layout_of(image), image.read_bytes()
    assert layout is not None
    tables = parse_tables(data[layout.table_offset : layout.table_offset + 8 * layout.table_entries])
    found: list[ImagePiece] = []
    for begin in range(0, layout.capacity_bytes, step):
        start, end = begin, min(begin + step, layout.capacity_bytes)
        while start < end:
            number = start // layout.reach_bytes
            until = min(end, (number + 1) * layout.reach_bytes)
            offset = tables[number]
            found += pieces_of(layout, data[offset : offset + layout.cluster_bytes] if offset else None, start, until)
            start = until
    return found


def check(image: Path, raw: bytes, step: int = 256 * MIB) -> list[ImagePiece]:
    pieces = pieces_from(image, step)
    assert sum(piece.length for piece in pieces) == len(raw)
    seen = hash_pieces(image.read_bytes(), pieces, lambda _: None)
    assert seen == hash_pieces(raw, [ImagePiece(len(raw), 0)], lambda _: None)
    return pieces


def scattered(folder: Path, size: int, seed: int) -> bytes:
    """Data of all lengths in random places, some of it zeros; as a raw file in the folder."""
    rng, data = random.Random(seed), bytearray(size)
    for _ in range(40):
        start = rng.randrange(size)
        length = min(rng.choice((1, 512, 4096, 70_000, 300_000)), size - start)
        data[start : start + length] = rng.randbytes(length) if rng.random() < 0.8 else bytes(length)
    (folder / "raw").write_bytes(data)
    return bytes(data)


@pytest.mark.parametrize("options", ["compat=0.10", "compat=1.1", "cluster_size=512", "cluster_size=2M"])
@pytest.mark.parametrize("packed", [False, True])
def test_all_that_the_guest_sees_is_found(tmp_path: Path, options: str, packed: bool) -> None:
    for seed in range(3):
        size = 9 * MIB + seed * 512 * 7
        raw = scattered(tmp_path, size, seed)
        image = tmp_path / f"{seed}.qcow2"
        qemu("qemu-img", "convert", *(["-c"] if packed else []), "-O", "qcow2", "-o", options, tmp_path / "raw", image)
        for step in (256 * MIB, 4 * MIB):
            pieces = check(image, raw, step)
        assert any(piece.deflated_bytes for piece in pieces) is packed


def test_written_out_of_order_and_zeroed_again(tmp_path: Path) -> None:
    image = tmp_path / "a.qcow2"
    qemu("qemu-img", "create", "-f", "qcow2", image, "64M")
    writes = ["write -P 3 40M 3M", "write -P 4 1M 3M", "write -P 5 8M 100k", "write -z -u 41M 1M", "write -P 6 63M 1M"]
    qemu("qemu-io", "-f", "qcow2", *(word for one in writes for word in ("-c", one)), image)
    qemu("qemu-img", "convert", "-O", "raw", image, tmp_path / "raw")
    check(image, (tmp_path / "raw").read_bytes())


def test_neighbours_become_one_piece(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"x" * 8 * MIB)
    qemu("qemu-img", "convert", "-O", "qcow2", tmp_path / "raw", tmp_path / "a.qcow2")
    assert len(pieces_from(tmp_path / "a.qcow2", 256 * MIB)) == 1
    qemu("qemu-img", "create", "-f", "qcow2", tmp_path / "empty.qcow2", "2G")
    assert [p.offset for p in pieces_from(tmp_path / "empty.qcow2", 256 * MIB)] == [None] * 8


@pytest.mark.parametrize("options", ["extended_l2=on", "compression_type=zstd"])
def test_what_it_cannot_read_it_says(tmp_path: Path, options: str) -> None:
    qemu("qemu-img", "create", "-f", "qcow2", "-o", options, tmp_path / "a.qcow2", "4M")
    assert layout_of(tmp_path / "a.qcow2") is None


def test_nothing_below_it(tmp_path: Path) -> None:
    qemu("qemu-img", "create", "-f", "raw", tmp_path / "base", "4M")
    qemu("qemu-img", "create", "-f", "qcow2", "-b", tmp_path / "base", "-F", "raw", tmp_path / "a.qcow2")
    assert layout_of(tmp_path / "a.qcow2") is None
    assert parse_layout(b"no image") is None
