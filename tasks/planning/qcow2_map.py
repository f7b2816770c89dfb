"""Where a qcow2 image has what the guest sees: its two levels of tables, read as they are.

Source: docs/interop/qcow2 of QEMU's documentation. Of an image with nothing below it; what is not allocated is zeros.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from tasks.model.disks import ImagePiece
from tasks.planning.qcow2 import FIXED, parse_header

OFFSET = 0x00FF_FFFF_FFFF_FE00
COMPRESSED = 1 << 62
ZEROS = 1 << 0
SECTOR = 512


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the first table is; sizes in bytes."""

    capacity_bytes: int
    cluster_bits: int
    table_offset: int
    table_entries: int

    @property
    def cluster_bytes(self) -> int:
        """What one entry of a table of the second level stands for, and how long such a table is."""
        return 1 << self.cluster_bits

    @property
    def reach_bytes(self) -> int:
        """What the guest sees of one table of the second level."""
        return self.cluster_bytes * (self.cluster_bytes // 8)


def parse_layout(data: bytes) -> Layout | None:
    """From the beginning of an image; None when not all of what the guest sees can be found by these tables."""
    header = parse_header(data)
    if header is None or header.backing is not None or header.external_data or header.encrypted or header.options:
        return None
    fields = FIXED.unpack_from(data)
    return Layout(header.capacity_bytes, fields[4], table_offset=fields[8], table_entries=fields[7])


def parse_tables(data: bytes) -> tuple[int, ...]:
    """Offsets of the tables of the second level, from the bytes of the first; 0: all zeros."""
    return tuple(entry & OFFSET for (entry,) in struct.iter_unpack(">Q", data))


def pieces_of(layout: Layout, table: bytes | None, start: int, end: int) -> tuple[ImagePiece, ...]:
    """What the guest sees from ``start`` to ``end``, both of which lie in the reach of this table."""
    if table is None:
        return (ImagePiece(end - start),)
    base = start - start % layout.reach_bytes
    found, at = [], start
    while at < end:
        number, inside = divmod(at - base, layout.cluster_bytes)
        length = min(layout.cluster_bytes - inside, end - at)
        (entry,) = struct.unpack_from(">Q", table, number * 8)
        found.append(_piece(layout, entry, inside, length))
        at += length
    return _merged(found)


def _piece(layout: Layout, entry: int, inside: int, length: int) -> ImagePiece:
    if entry & COMPRESSED:
        shift = 62 - (layout.cluster_bits - 8)
        offset = entry & ((1 << shift) - 1)
        sectors = (entry & (COMPRESSED - 1)) >> shift
        return ImagePiece(length, offset, (sectors + 1) * SECTOR - offset % SECTOR)
    offset = entry & OFFSET
    return ImagePiece(length) if entry & ZEROS or not offset else ImagePiece(length, offset + inside)


def _merged(pieces: Iterable[ImagePiece]) -> tuple[ImagePiece, ...]:
    """Neighbours that are neighbours in the file as well, as one."""
    found: list[ImagePiece] = []
    for piece in pieces:
        last = found[-1] if found else None
        if last is None or last.deflated_bytes or piece.deflated_bytes or not _follows(last, piece):
            found.append(piece)
        else:
            found[-1] = ImagePiece(last.length + piece.length, last.offset)
    return tuple(found)


def _follows(last: ImagePiece, piece: ImagePiece) -> bool:
    if last.offset is None or piece.offset is None:
        return last.offset is piece.offset
    return piece.offset == last.offset + last.length
