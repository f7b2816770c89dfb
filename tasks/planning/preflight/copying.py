"""Rules about disks that are copied: each gets a new volume on the destination, and there must be room for them."""

from __future__ import annotations

from collections import defaultdict

from tasks.model.disks import DiskCopy
from tasks.model.finding import Finding
from tasks.model.request import EVERY_DISK, Storage
from tasks.planning import copies
from tasks.planning.preflight.registry import blocker, info, rule, warning
from tasks.planning.situation import Situation

MARGIN_PERCENT = 5
"""Metadata of the format and of the file system on top of the data."""


@rule(
    DISK_COPIED="A disk is copied to a new volume of the destination.",
    NOTHING_TO_COPY="Copying was asked for, and every disk is on shared storage.",
    **copies.CODES,
)
def check_copies(s: Situation) -> list[Finding]:
    """Without a volume that is there before, libvirt makes one itself: fully allocated, or over an existing file."""
    if s.storage is not Storage.COPY:
        return []
    disks = copies.copied_disks(s)
    if not disks:
        message = f"no disk of {s.view.name} needs to be copied"
        return [blocker("NOTHING_TO_COPY", message, "use --storage shared, or name a pool: --pool vda=POOL")]
    return [_copied(s, p) if isinstance(p, DiskCopy) else p for p in (copies.place(s, d) for d in disks)]


def _copied(s: Situation, copy: DiskCopy) -> Finding:
    message = (
        f"{copy.target}: {copy.source} is copied to {copy.path} on {s.destination.name} "
        f"({mib(copy.allocation_bytes)} of {mib(copy.capacity_bytes)} in use); the source's is kept"
    )
    return info("DISK_COPIED", message, f"delete {copy.source} on {s.source.name} when the VM has proven itself")


@rule(
    POOL_FOR_NO_DISK="A pool was named for a disk that the VM does not have, or that cannot be copied.",
)
def check_named_disks(s: Situation) -> list[Finding]:
    """A slip of the pen must not send a disk to a place where nobody expects it."""
    copied = {disk.target for disk in copies.copied_disks(s)}
    there = ", ".join(disk.target for disk in s.disks) or "no disks"
    return [
        blocker("POOL_FOR_NO_DISK", f"{s.view.name} has no disk {name} to be copied", f"its disks: {there}")
        for name in s.request.pools
        if name != EVERY_DISK and name not in copied
    ]


@rule(
    COPY_NO_SPACE="A pool of the destination has less free space than the disks that are copied there take up.",
    COPY_MAY_FILL_POOL="The disks that are copied fit as they are, and would not if the VM filled them.",
)
def check_space(s: Situation) -> list[Finding]:
    """libvirt fails in the middle of the copy (9): "No space left on device"."""
    by_pool: defaultdict[str, list[DiskCopy]] = defaultdict(list)
    for copy in copies.copies_of(s):
        by_pool[copy.pool].append(copy)
    return [found for pool, placed in by_pool.items() for found in _space(s, pool, placed)]


def _space(s: Situation, pool: str, placed: list[DiskCopy]) -> list[Finding]:
    free = next(p.available_bytes for p in s.destination.pools if p.name == pool)
    needed = sum(_expected(s, copy) for copy in placed) * (100 + MARGIN_PERCENT) // 100
    most = sum(copy.capacity_bytes for copy in placed) * (100 + MARGIN_PERCENT) // 100
    where = f"pool {pool} of {s.destination.name} has {mib(free)} free"
    hint = f"make room there, or name another pool: --pool {placed[0].target}=POOL"
    if free < needed:
        return [blocker("COPY_NO_SPACE", f"{where}, and {mib(needed)} are to be copied there", hint)]
    if free < most:
        return [warning("COPY_MAY_FILL_POOL", f"{where}, and the disks may grow to {mib(most)}", hint)]
    return []


def _expected(s: Situation, copy: DiskCopy) -> int:
    """A disk with backing files is copied as a whole, and what these hold is not known: at most everything."""
    backed = any(d.backing for d in s.domain.disks if d.target == copy.target)
    return copy.capacity_bytes if backed else min(copy.allocation_bytes, copy.capacity_bytes)


@rule(
    BACKING_CHAIN_FLATTENED="A disk with backing files becomes one file of its own on the destination.",
)
def check_flattening(s: Situation) -> list[Finding]:
    """A full copy holds everything that the guest can read, whatever layer it comes from."""
    copied = {disk.target for disk in copies.copied_disks(s)}
    return [
        warning(
            "BACKING_CHAIN_FLATTENED",
            f"{d.target}: {d.source} and its backing file {d.backing[0]} are copied into one file",
            "expect it to take more space there",
        )
        for d in s.domain.disks
        if d.target in copied and d.backing
    ]


def mib(size: int) -> str:
    """Bytes in MiB, for people."""
    return f"{-(-size // 1024**2)} MiB"
