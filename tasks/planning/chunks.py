"""How a file that is copied through the worker is cut into pieces, each of which is recorded when it has arrived."""

from __future__ import annotations

MIB = 1024**2
SMALLEST = 64 * MIB
LARGEST = 256 * MIB
"""Of a sparse file: its data may all be in one place, a piece that was interrupted is copied again as a whole, and of
one that is read faster than it can be written much is kept in the worker."""
MOST_CHUNKS = 512
"""The record holds one checksum for each: this bounds it."""


def size_chunks(length_bytes: int, allocation_bytes: int) -> int:
    """How long the pieces of a file are that takes up so much of its length: each has some 64 MiB of data.

    A piece costs two streams, two looks at the source and two entries in the record, some 10 ms, however little is in
    it: for holes alone that would be a fifth of the time of a disk with 7 % of data over 1 Gbit/s.
    """
    wanted = SMALLEST * length_bytes // max(1, allocation_bytes)
    return max(SMALLEST, min(LARGEST, wanted // MIB * MIB))


def chunks_of(length_bytes: int, chunk_bytes: int = 0) -> tuple[tuple[int, int], ...]:
    """Offset and length of each piece, in order; none for an empty file. They are as long as is said, or 64 MiB, and
    longer where they would be too many."""
    size = max(chunk_bytes or SMALLEST, -(-length_bytes // MOST_CHUNKS))
    size = -(-size // MIB) * MIB
    return tuple((offset, min(size, length_bytes - offset)) for offset in range(0, length_bytes, size))
