"""How a file that is copied through the worker is cut into pieces, each of which is recorded when it has arrived."""

from __future__ import annotations

MIB = 1024**2
SMALLEST = 64 * MIB
MOST_CHUNKS = 512
"""The record holds one checksum for each: this bounds it."""


def chunks_of(length_bytes: int) -> tuple[tuple[int, int], ...]:
    """Offset and length of each piece, in order; none for an empty file."""
    size = max(SMALLEST, -(-length_bytes // MOST_CHUNKS))
    size = -(-size // MIB) * MIB
    return tuple((offset, min(size, length_bytes - offset)) for offset in range(0, length_bytes, size))
