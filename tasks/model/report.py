"""What a report is made of: records, and what was seen of each transfer while it ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tasks.model.drain import DrainRecord
from tasks.model.frozen import Frozen
from tasks.model.run import Progress, RunRecord

PAGE_KIB = 4
"""QEMU counts dirty memory in pages of the target, 4 KiB on x86."""
KIB = 1024


class Sample(Frozen):
    """A transfer at one moment."""

    at: float
    """Redis TIME, seconds since the epoch."""
    memory_kib: int
    """Memory that remains to be sent."""
    disk_kib: int
    """Contents of disks that remain to be sent."""
    dirty_kib_s: int
    """How much memory the guest changes in a second."""
    sent_kib_s: int
    """Bandwidth used, memory and disks together."""

    def packed(self) -> str:
        """All but the time, as it is stored: a few bytes each, for there are many."""
        return f"{self.memory_kib},{self.disk_kib},{self.dirty_kib_s},{self.sent_kib_s}"


def sample_of(progress: Progress) -> Sample:
    """What is kept of a transfer's statistics; its time is given to it by Redis."""
    memory, disk = progress.memory, progress.disk
    return Sample(
        at=0.0,
        memory_kib=memory.remaining_bytes // KIB,
        disk_kib=disk.remaining_bytes // KIB,
        dirty_kib_s=progress.dirty_pages_per_second * PAGE_KIB,
        sent_kib_s=(memory.bytes_per_second + disk.bytes_per_second) // KIB,
    )


@dataclass(frozen=True, slots=True)
class Report:
    """One migration, or a drain with all of its own."""

    id: str
    made_at: float
    """Redis TIME, seconds since the epoch."""
    runs: Sequence[RunRecord]
    """Oldest first; those past their retention are left out."""
    samples: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    """By the migration's id."""
    drain: DrainRecord | None = None
