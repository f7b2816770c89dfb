"""What the guest would read of disks that were mirrored while it stood still: compared on both hosts.

The images differ, as each is written in its own order: what counts is what its tables say that the guest sees. That is
read through libvirt's streams, so that this, and this alone, passes through the worker.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.model.disks import DiskCopy, ImagePiece
from tasks.model.errors import OutcomeUnknown
from tasks.parallel import ContextPool
from tasks.planning.qcow2 import HEADER_BYTES
from tasks.planning.qcow2_map import Layout, parse_layout, parse_tables, pieces_of
from tasks.steps.run import StepRun

STEP_BYTES = 256 * 1024**2
"""Compared at one go; a multiple of any cluster's size, so that none is cut in two."""


def compare_contents(run: StepRun) -> None:
    """Of every mirrored disk, from its beginning to its end.

    Raises:
        OutcomeUnknown: ``VERIFY_FAILED``.
    """
    for copy in run.record.copies:
        here = _Image(run, run.source, copy.source_path, copy)
        there = _Image(run, run.destination, copy.path, copy)
        for start in range(0, copy.capacity_bytes, STEP_BYTES):
            end = min(start + STEP_BYTES, copy.capacity_bytes)
            with ContextPool(max_workers=2) as pool:
                sums = [pool.submit(image.digest, start, end) for image in (here, there)]
            if sums[0].result() != sums[1].result():
                message = f"{copy.path} on {run.destination} differs from {copy.source_path} after byte {start}"
                raise OutcomeUnknown("VERIFY_FAILED", message, "look at the storage of both hosts")


@dataclass
class _Image:
    """One image, whose tables are read as they are needed."""

    run: StepRun
    host: str
    path: str
    copy: DiskCopy
    _layout: Layout | None = None
    _offsets: tuple[int, ...] = ()
    _tables: dict[int, bytes] = field(default_factory=dict)

    def digest(self, start: int, end: int) -> str:
        """The checksum of what the guest would read from ``start`` to ``end``."""
        if self.copy.format == "raw":
            pieces: tuple[ImagePiece, ...] = (ImagePiece(end - start, start),)
        else:
            pieces = tuple(self._pieces(start, end))
        return self.run.hypervisor.hash_pieces(self.host, self.path, pieces, lambda _: self.run.interrupt_if_asked())

    def _pieces(self, start: int, end: int) -> list[ImagePiece]:
        layout = self._read_layout()
        found: list[ImagePiece] = []
        while start < end:
            number = start // layout.reach_bytes
            until = min(end, (number + 1) * layout.reach_bytes)
            found += pieces_of(layout, self._table(number), start, until)
            start = until
        return found

    def _read_layout(self) -> Layout:
        if self._layout is None:
            volume = self.run.hypervisor.find_volume_at(self.host, self.path)
            length = min(HEADER_BYTES, volume.length_bytes) if volume is not None else 0
            layout = parse_layout(self._read(0, length)) if length else None
            if layout is None or layout.capacity_bytes != self.copy.capacity_bytes:
                message = f"{self.path} on {self.host} is not the image of {self.copy.target} that it was to be"
                raise OutcomeUnknown("VERIFY_FAILED", message, "qemu-img info shows what it is")
            self._offsets = parse_tables(self._read(layout.table_offset, layout.table_entries * 8))
            self._layout = layout
        return self._layout

    def _table(self, number: int) -> bytes | None:
        """One of the second level: those before it are not needed any more."""
        offset = self._offsets[number] if number < len(self._offsets) else 0
        if offset and number not in self._tables:
            self._tables = {number: self._read(offset, self._read_layout().cluster_bytes)}
        return self._tables[number] if offset else None

    def _read(self, offset: int, length: int) -> bytes:
        return self.run.hypervisor.read_piece(self.host, self.path, offset, length)
