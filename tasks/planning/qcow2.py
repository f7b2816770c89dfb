"""The first bytes of a qcow2 image: what lies below it, and the same bytes with another name for that.

Source: docs/interop/qcow2 of QEMU's documentation (big-endian; the name of the backing file lies in the first cluster).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from posixpath import dirname, join, normpath

HEADER_BYTES = 64 * 1024
"""Enough to hold the header of any image that QEMU makes: its default cluster."""
MAGIC = b"QFI\xfb"
FIXED = struct.Struct(">4sIQIIQIIQQIIQ")
"""magic, version, backing offset, backing size, cluster bits, size, encryption, L1 size, L1 offset, refcount table
offset, refcount table clusters, snapshots, snapshots offset."""
FEATURES = struct.Struct(">QQQII")
"""Of version 3: incompatible, compatible and autoclear features, refcount order, header length."""
EXTERNAL_DATA = 1 << 2
INCOMPATIBLE = {
    1 << 0: "was not closed as it should have been",
    1 << 1: "is marked as damaged",
    1 << 3: "has clusters that are compressed with zstd",
    1 << 4: "has subclusters",
}
"""What bits of the incompatible features mean that a plain image does not have."""
BITMAPS = 1 << 0
"""Autoclear feature: dirty bitmaps for incremental backups are in the image."""
BACKING_FORMAT = 0xE2792ACA
LONGEST_NAME = 1023
VERSION_2_LENGTH = 72


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the header says."""

    capacity_bytes: int
    cluster_bytes: int
    backing: str | None
    """As written: absolute, relative to the image, or a URL."""
    backing_format: str | None
    backing_offset: int
    snapshots: int
    """Internal ones."""
    external_data: bool
    """The guest's data is in another file."""
    encrypted: bool
    options: tuple[str, ...] = ()
    """What it has that a new image does not, in words; there may be more when ``options`` names unknown features."""


def parse_header(data: bytes) -> ImageHeader | None:
    """The header at the beginning of ``data``; None when it is no qcow2 image, or not one that can be understood."""
    if len(data) < FIXED.size or not data.startswith(MAGIC):
        return None
    fields = FIXED.unpack_from(data)
    _, version, offset, size, cluster_bits, capacity, encryption, *_, snapshots, _ = fields
    if version not in (2, 3) or not 9 <= cluster_bits <= 21 or size > LONGEST_NAME or offset + size > len(data):
        return None
    incompatible, autoclear, length = 0, 0, VERSION_2_LENGTH
    if version == 3:
        if len(data) < FIXED.size + FEATURES.size:
            return None
        incompatible, _, autoclear, _, length = FEATURES.unpack_from(data, FIXED.size)
    name = data[offset : offset + size].decode(errors="surrogateescape") if offset else ""
    return ImageHeader(
        capacity_bytes=capacity,
        cluster_bytes=1 << cluster_bits,
        backing=name or None,
        backing_format=_extension(data, length, BACKING_FORMAT),
        backing_offset=offset,
        snapshots=snapshots,
        external_data=bool(incompatible & EXTERNAL_DATA),
        encrypted=encryption != 0,
        options=_options(incompatible, autoclear),
    )


def _options(incompatible: int, autoclear: int) -> tuple[str, ...]:
    found = [words for bit, words in INCOMPATIBLE.items() if incompatible & bit]
    if incompatible & ~(EXTERNAL_DATA | sum(INCOMPATIBLE)):
        found.append("has features that are unknown here")
    if autoclear & BITMAPS:
        found.append("has dirty bitmaps for incremental backups")
    return tuple(found)


def _extension(data: bytes, offset: int, wanted: int) -> str | None:
    while offset + 8 <= len(data):
        kind, length = struct.unpack_from(">II", data, offset)
        if kind == 0 or offset + 8 + length > len(data):
            return None
        if kind == wanted:
            return data[offset + 8 : offset + 8 + length].decode(errors="replace")
        offset += 8 + -(-length // 8) * 8
    return None


def backing_path(name: str, image: str) -> str | None:
    """Where the backing file is that an image names; None when it is no file."""
    plain = name.removeprefix("file:")
    if plain.startswith("json:") or "://" in plain or (":" in plain.split("/", 1)[0]):
        return None
    return normpath(join(dirname(image), plain))


def with_backing(data: bytes, path: str) -> bytes | None:
    """The beginning of the image with another backing file, as long as needed; None when the name has no room.

    Everything after the name in the first cluster is unused (QEMU writes the name after all header extensions).
    """
    header = parse_header(data)
    name = path.encode(errors="surrogateescape")
    if header is None or header.backing is None or len(name) > LONGEST_NAME:
        return None
    old = len(header.backing.encode(errors="surrogateescape"))
    end = header.backing_offset + max(old, len(name))
    if end > min(header.cluster_bytes, len(data)) or any(data[header.backing_offset + old : end]):
        return None
    changed = bytearray(data[:end])
    changed[header.backing_offset :] = name.ljust(end - header.backing_offset, b"\0")
    struct.pack_into(">I", changed, 16, len(name))
    return bytes(changed)
