"""The contract of ``tasks.model.ports.Hypervisor``: what a guest sees of an image, wherever the image has it."""

from __future__ import annotations

import os
import zlib

import pytest

from tasks.model.disks import ImagePiece
from tests.contract.rigs import Rig

KIB = 1024
A, B, C = (os.urandom(64 * KIB) for _ in range(3))


def digest(rig: Rig, contents: bytes, *pieces: ImagePiece) -> str:
    folder = rig.make_pool(rig.source)
    path = folder / "image"
    rig.write_file(rig.source, path, contents)
    assert rig.hypervisor.find_volume_at(rig.source, str(path)) is not None
    return rig.hypervisor.hash_pieces(rig.source, str(path), pieces, lambda _: None)


def at(kib: int, length: int = 64 * KIB) -> ImagePiece:
    return ImagePiece(length, kib * KIB)


def zeros(kib: int) -> ImagePiece:
    return ImagePiece(kib * KIB)


def test_the_same_contents_stored_differently(rig: Rig) -> None:
    """In order, out of order, with zeros that are stored and zeros that are not, in whatever lengths."""
    wanted = digest(rig, A + bytes(64 * KIB) + B + C, at(0, 256 * KIB))
    assert digest(rig, A + B + C, at(0), zeros(64), at(64), at(128)) == wanted
    assert digest(rig, C + A + B, at(64), zeros(32), zeros(32), at(128), at(0)) == wanted
    assert digest(rig, A + bytes(64 * KIB) + B + C, at(0, 96 * KIB), at(96, 40 * KIB), at(136, 120 * KIB)) == wanted
    assert digest(rig, C + B + A, at(128), zeros(64), at(64), at(0, 4 * KIB), at(4, 60 * KIB)) == wanted


def test_another_byte_or_another_order(rig: Rig) -> None:
    wanted = digest(rig, A + B, at(0), at(64))
    assert digest(rig, A + B[:-1] + bytes([B[-1] ^ 1]), at(0), at(64)) != wanted
    assert digest(rig, A + B, at(64), at(0)) != wanted
    assert digest(rig, A + B, at(0), at(64), zeros(64)) != wanted
    assert digest(rig, A + B, zeros(64), at(0), at(64)) != wanted


def test_compressed_clusters(rig: Rig) -> None:
    """Their length is known in sectors only: what follows in the last one is another's."""
    text = (b"something that can be compressed " * 4096)[: 64 * KIB]
    packer = zlib.compressobj(wbits=-12)
    packed = packer.compress(text) + packer.flush()
    sectors = -(-len(packed) // 512) * 512
    wanted = digest(rig, A + text, at(0), at(64))
    compressed = ImagePiece(64 * KIB, 64 * KIB, sectors)
    assert digest(rig, A + packed.ljust(sectors, b"x"), at(0), compressed) == wanted
    assert digest(rig, A + packed, at(0), compressed) == wanted, "the file may end where its last cluster does"


@pytest.mark.parametrize("count", [3])
def test_it_can_be_ended(rig: Rig, count: int) -> None:
    seen: list[int] = []

    def tick(length: int) -> None:
        seen.append(length)
        if len(seen) == count:
            raise KeyError

    folder = rig.make_pool(rig.source)
    rig.write_file(rig.source, folder / "image", A + B + C + A)
    assert rig.hypervisor.find_volume_at(rig.source, str(folder / "image")) is not None
    pieces = (at(0), zeros(64), at(64), at(128), at(192))
    with pytest.raises(KeyError):
        rig.hypervisor.hash_pieces(rig.source, str(folder / "image"), pieces, tick)
    assert seen == [64 * KIB, 0, 64 * KIB]
    assert rig.hypervisor.read_piece(rig.source, str(folder / "image"), 0, 64 * KIB) == A
