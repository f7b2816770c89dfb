"""The checksum of a file that may have holes."""

from __future__ import annotations

import hashlib


class Digest:
    """SHA-256 of what a reader of the file would see, whatever of it is stored as holes.

    Blocks of zeros count by their number alone, so that a sparse terabyte costs nothing.
    """

    BLOCK = 64 * 1024

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._zeros = 0
        self._rest = b""
        self._nothing = bytes(self.BLOCK)

    def data(self, piece: bytes) -> None:
        """The next bytes."""
        piece = self._rest + piece
        whole = len(piece) - len(piece) % self.BLOCK
        for start in range(0, whole, self.BLOCK):
            self._block(piece[start : start + self.BLOCK])
        self._rest = piece[whole:]

    def hole(self, length: int) -> None:
        """So many zeros."""
        head = min(length, -len(self._rest) % self.BLOCK)
        if head:
            self.data(bytes(head))
        length -= head
        blocks, tail = divmod(length, self.BLOCK)
        self._zeros += blocks
        if tail:
            self.data(bytes(tail))

    def hexdigest(self) -> str:
        """The checksum of everything so far."""
        if self._rest:
            self._block(self._rest)
            self._rest = b""
        final = self._hash.copy()
        final.update(b"zeros %d" % self._zeros)
        return final.hexdigest()

    def _block(self, block: bytes) -> None:
        if len(block) == self.BLOCK and block == self._nothing:
            self._zeros += 1
            return
        self._hash.update(b"zeros %d data %d " % (self._zeros, len(block)))
        self._zeros = 0
        self._hash.update(block)
