"""Contents of volumes, read and written through libvirt's streams, with the holes that they have."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import libvirt

from tasks.hypervisor.connection import Connection
from tasks.hypervisor.digest import Digest
from tasks.model.disks import ChunkOrder, ImagePiece
from tasks.model.errors import OperatorMustFix

PIECE = 256 * 1024
"""libvirt's own messages are no larger."""
SLICE = 128 * 1024 * 1024
"""How much of a file is asked for at a time at most: what comes faster than it can be passed on is kept in memory."""
AT_HOLE = -3
"""What ``virStreamRecvFlags`` returns when a hole comes next."""

Tick = Callable[[int], None]


class Broken(Exception):
    """A stream ended before it should; ``reading`` tells on which side."""

    def __init__(self, error: libvirt.libvirtError, *, reading: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.reading = reading


@contextmanager
def _side(*, reading: bool) -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as error:
        raise Broken(error, reading=reading) from None


def copy_chunk(source: Connection, destination: Connection, order: ChunkOrder, tick: Tick) -> str:
    """Copy one piece of a file from volume to volume; returns the checksum of what was read.

    ``tick`` is told how many bytes were passed on, and may raise: both streams are aborted then.

    Raises:
        Broken, and whatever ``tick`` raises.
    """
    skipped = len(order.head)
    rest = order.offset + skipped, order.length - skipped
    there = () if order.fresh else _data_of(destination, order, tick)
    reader, digest = _Slices(source, order.source_path, *rest, min(order.at_once or SLICE, SLICE)), Digest()
    try:
        writer = _Writer(destination, order.destination_path, order.offset, order.length, there)
    except BaseException:
        reader.abort()
        raise
    try:
        if order.head:
            digest.data(order.head)
            writer.data(order.head)
        for piece, hole in reader:
            if hole:
                digest.hole(hole)
                writer.hole(hole)
            else:
                digest.data(piece)
                writer.data(piece)
            tick(len(piece))
        writer.finish()
    except BaseException:
        writer.abort()
        reader.abort()
        raise
    return digest.hexdigest()


def read_piece(connection: Connection, path: str, offset: int, length: int) -> bytes:
    """A small piece of a file, with its holes as zeros.

    Raises:
        Broken
    """
    return b"".join(piece or bytes(hole) for piece, hole in _Reader(connection, path, offset, length))


def write_zeros(connection: Connection, path: str, offset: int, length: int) -> None:
    """Zeros instead of a small piece of a volume.

    Raises:
        Broken
    """
    writer = _Writer(connection, path, offset, length, [(offset, offset + length)])
    try:
        writer.hole(length)
        writer.finish()
    except BaseException:
        writer.abort()
        raise


def hash_chunk(connection: Connection, path: str, offset: int, length: int, tick: Tick) -> str:
    """The checksum of one piece of a volume's file, read again from where it is stored."""
    reader, digest = _Reader(connection, path, offset, length), Digest()
    try:
        for piece, hole in reader:
            if hole:
                digest.hole(hole)
            else:
                digest.data(piece)
            tick(len(piece))
    except BaseException:
        reader.abort()
        raise
    return digest.hexdigest()


def hash_pieces(connection: Connection, path: str, pieces: Sequence[ImagePiece], tick: Tick) -> str:
    """The checksum of what a guest sees; pieces that follow each other in the file are read by one stream.

    Raises:
        Broken
        OperatorMustFix: ``IMAGE_DAMAGED``.
    """
    digest, source = Digest(), _Follower(connection, path)
    try:
        for number, piece in enumerate(pieces):
            if piece.offset is None:
                digest.hole(piece.length)
            elif piece.deflated_bytes:
                digest.data(_inflate(connection, path, piece))
            else:
                if not source.has(piece.offset, piece.length):
                    source.go_to(piece.offset, _reach(pieces, number))
                source.pass_on(piece.length, digest)
            tick(0 if piece.offset is None else piece.length)
    finally:
        source.close()
    return digest.hexdigest()


def _reach(pieces: Sequence[ImagePiece], first: int) -> int:
    """How much of the file can be read at one go from a piece on, whatever zeros are in between for the guest."""
    start = end = pieces[first].offset or 0
    for piece in pieces[first:]:
        if piece.offset is None:
            continue
        if piece.offset != end or piece.deflated_bytes:
            break
        end += piece.length
    return end - start


def _inflate(connection: Connection, path: str, piece: ImagePiece) -> bytes:
    """A compressed cluster. Where the file ends within its last sector, less than said is there."""
    stored = read_piece(connection, path, piece.offset or 0, piece.deflated_bytes)
    try:
        return zlib.decompressobj(-12).decompress(stored, piece.length)
    except zlib.error as error:
        message = f"{path}: a compressed cluster cannot be read: {error}"
        raise OperatorMustFix("IMAGE_DAMAGED", message, "try: qemu-img check FILE") from None


class _Follower:
    """Reads a file forward, from wherever it is told to."""

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection, self._path = connection, path
        self._reader: _Reader | None = None
        self._parts: Iterator[tuple[bytes, int]] = iter(())
        self._part, self._hole = b"", 0
        self._at = self._end = 0

    def has(self, offset: int, length: int) -> bool:
        """Whether these bytes come next."""
        return self._reader is not None and offset == self._at and offset + length <= self._end

    def go_to(self, offset: int, reach: int) -> None:
        """The next byte is this one; so many can be asked for."""
        self.close()
        self._reader = _Reader(self._connection, self._path, offset, reach)
        self._parts, self._part, self._hole = iter(self._reader), b"", 0
        self._at, self._end = offset, offset + reach

    def pass_on(self, length: int, digest: Digest) -> None:
        """The next bytes, to the digest."""
        self._at += length
        while length:
            if not self._part and not self._hole:
                self._part, self._hole = next(self._parts)
            if self._hole:
                count = min(length, self._hole)
                digest.hole(count)
                self._hole -= count
            else:
                count = min(length, len(self._part))
                digest.data(self._part[:count])
                self._part = self._part[count:]
            length -= count

    def close(self) -> None:
        """End the stream, wherever it is."""
        if self._reader is None:
            return
        reader, self._reader = self._reader, None
        if self._at < self._end or next(self._parts, None) is not None:
            reader.abort()


class _Reader:
    """Iterates over (bytes, 0) and (b"", length of a hole)."""

    def __init__(self, connection: Connection, path: str, offset: int, length: int) -> None:
        self._left = length
        with _side(reading=True):
            self._stream: Any = connection.newStream(0)
            volume = connection.storageVolLookupByPath(path)
            volume.download(self._stream, offset, length, libvirt.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM)

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        while (piece := self._next()) is not None:
            self._left -= piece[1] or len(piece[0])
            yield piece
        if self._left > 0:  # a hole at the end may not be told
            yield b"", self._left

    def _next(self) -> tuple[bytes, int] | None:
        with _side(reading=True):
            got = self._stream.recvFlags(PIECE, libvirt.VIR_STREAM_RECV_STOP_AT_HOLE)
            if got == AT_HOLE:
                return b"", int(self._stream.recvHole())
            if not got:
                self._stream.finish()
                return None
            return bytes(got), 0

    def abort(self) -> None:
        _abort(self._stream)


class _Slices:
    """The same, asked for slice by slice: of one stream libvirt sends all that there is, however slowly it is read."""

    def __init__(self, connection: Connection, path: str, offset: int, length: int, each: int) -> None:
        self._connection, self._path, self._each = connection, path, each
        self._offset, self._end = offset, offset + length
        self._reader = self._open()

    def _open(self) -> _Reader:
        length = min(self._each, self._end - self._offset)
        reader = _Reader(self._connection, self._path, self._offset, length)
        self._offset += length
        return reader

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        yield from self._reader
        while self._offset < self._end:
            self._reader = self._open()
            yield from self._reader

    def abort(self) -> None:
        self._reader.abort()


def _data_of(destination: Connection, order: ChunkOrder, tick: Tick) -> list[tuple[int, int]]:
    """Where in its place there is data already: first byte of each stretch, and the first after it."""
    found: list[tuple[int, int]] = []
    at = order.offset
    try:
        reader = _Reader(destination, order.destination_path, at, order.length)
        try:
            for piece, hole in reader:
                end = at + (hole or len(piece))
                if piece:
                    begin = found.pop()[0] if found and found[-1][1] == at else at
                    found.append((begin, end))
                at = end
                tick(0)
        except BaseException:
            reader.abort()
            raise
    except Broken as broken:  # on the side that is written to
        raise Broken(broken.error, reading=False) from None
    return found


def cut_hole(begin: int, end: int, there: Sequence[tuple[int, int]]) -> Iterator[tuple[int, bool]]:
    """The lengths into which a hole falls over what is there, in order, each with whether it has to be written."""
    for first, last in there[max(0, bisect_right(there, (begin, end)) - 1) :]:
        if first >= end or begin >= end:
            break
        if last <= begin:
            continue
        if first > begin:
            yield first - begin, False
            begin = first
        yield min(last, end) - begin, True
        begin = min(last, end)
    if begin < end:
        yield end - begin, False


class _Writer:
    """Writes from an offset on. Holes are left out, but zeros are written where something is ``there``: libvirt skips
    over a hole, and leaves what it finds."""

    def __init__(
        self, connection: Connection, path: str, offset: int, length: int, there: Sequence[tuple[int, int]]
    ) -> None:
        self._at, self._there, self._zeros = offset, there, bytes(PIECE)
        with _side(reading=False):
            self._stream: Any = connection.newStream(0)
            volume = connection.storageVolLookupByPath(path)
            volume.upload(self._stream, offset, length, libvirt.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)

    def data(self, piece: bytes) -> None:
        view = memoryview(piece)
        self._at += len(piece)
        while view:
            with _side(reading=False):
                view = view[self._stream.send(bytes(view)) :]

    def hole(self, length: int) -> None:
        for part, written in cut_hole(self._at, self._at + length, self._there):
            if written:
                self._zero(part)
            else:
                self._at += part
                with _side(reading=False):
                    self._stream.sendHole(part)

    def _zero(self, length: int) -> None:
        while length > 0:
            self.data(self._zeros[: min(length, PIECE)])
            length -= PIECE

    def finish(self) -> None:
        with _side(reading=False):
            self._stream.finish()

    def abort(self) -> None:
        _abort(self._stream)


def _abort(stream: Any) -> None:
    try:
        stream.abort()
    except libvirt.libvirtError:
        pass  # it has ended already, or its connection has
