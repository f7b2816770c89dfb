"""Rules about disks that are copied: each gets a new volume on the destination, and there must be room for them."""

from __future__ import annotations

from collections import defaultdict

from tasks.model.disks import BackingFile, DiskCopy
from tasks.model.finding import Finding, blocker, info, warning
from tasks.model.request import DELETE, EVERY_DISK, Storage
from tasks.planning import copies
from tasks.planning.chain import keeps_chain
from tasks.planning.preflight.registry import rule
from tasks.planning.situation import Situation

MARGIN_PERCENT = 5
"""Metadata of the format and of the file system on top of the data."""


@rule(
    DISK_COPIED="A disk is copied to a new volume of the destination.",
    NOTHING_TO_COPY="Copying was asked for, and every disk is on shared storage.",
    NOTHING_INCREMENTAL="An incremental copy was asked for, and no disk that is copied has a file below it.",
    BACKING_FILE_KEPT="A file below a disk is on both hosts, and stays where it is.",
    BACKING_FILE_COPIED="A file below a disk is copied as well.",
    SNAPSHOTS_LOST="An image has internal snapshots, which a copy of a running VM's disk does not have.",
    **copies.CODES,
)
def check_copies(s: Situation) -> list[Finding]:
    """Without a volume that is there before, libvirt makes one itself: fully allocated, or over an existing file."""
    if s.storage is Storage.SHARED:
        return []
    disks = copies.copied_disks(s)
    if not disks:
        message = f"no disk of {s.view.name} needs to be copied"
        return [blocker("NOTHING_TO_COPY", message, "use --storage shared, or name a pool: --pool vda=POOL")]
    placed = [copies.place(s, disk) for disk in disks]
    findings = [f for p in placed for f in ([p] if isinstance(p, Finding) else _copied(s, p))]
    if s.storage is Storage.INCREMENTAL and not any(isinstance(p, DiskCopy) and p.backing for p in placed):
        message = f"no disk of {s.view.name} that is copied has a file below it"
        findings.append(blocker("NOTHING_INCREMENTAL", message, "use --storage copy"))
    return findings


def _copied(s: Situation, copy: DiskCopy) -> list[Finding]:
    message = (
        f"{copy.target}: {copy.source} is copied to {copy.path} on {s.destination.name} "
        f"({mib(copy.allocation_bytes)} of {mib(copy.capacity_bytes)} in use); the source's is {_fate(s, copy)}"
    )
    hint = "" if _goes(s, copy) else f"delete {copy.source} on {s.source.name} when the VM has proven itself"
    return [info("DISK_COPIED", message, hint), *(_base(s, copy, b) for b in copy.backing), *_snapshots(s, copy)]


def _goes(s: Situation, copy: DiskCopy) -> bool:
    return s.request.source_disks == DELETE and not copy.on_device


def _fate(s: Situation, copy: DiskCopy) -> str:
    if _goes(s, copy):
        return "deleted at the end, unless somebody else uses it"
    return "kept: block devices are never deleted" if s.request.source_disks == DELETE else "kept"


def _base(s: Situation, copy: DiskCopy, base: BackingFile) -> Finding:
    below = f"{copy.target}: {base.source_path}, which lies below it,"
    if base.how == "copied":
        message = f"{below} is copied to {base.path} on {s.destination.name} ({mib(base.length_bytes)})"
        return info("BACKING_FILE_COPIED", message)
    if base.how == "present":
        message = f"{below} is on {s.destination.name} too; both are compared before, and it is copied if they differ"
        return info("BACKING_FILE_KEPT", message)
    return info("BACKING_FILE_KEPT", f"{below} stays where it is, on storage that both hosts have")


def _snapshots(s: Situation, copy: DiskCopy) -> list[Finding]:
    """Only a copy of the file as it is has everything that is in it."""
    count = sum(image.snapshots for image in s.chains.get(copy.target, ())[:1])
    if not count or copy.length_bytes:
        return []
    message = f"{copy.target}: {copy.source} has {count} internal snapshot(s), which stay behind"
    return [warning("SNAPSHOTS_LOST", message, "shut the VM down and move it offline to take them along")]


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
    VERIFY_NOT_DEEP="Deep verification was asked for, and the disks of a running VM are not compared: they change.",
)
def check_verification(s: Situation) -> list[Finding]:
    """libvirt's mirror says when both are the same; after that only the destination's goes on changing."""
    mirrored = [copy.target for copy in copies.copies_of(s) if not copy.length_bytes]
    if s.request.verify != "deep" or not mirrored or s.mirrored_off:
        return []
    message = f"{', '.join(mirrored)} cannot be compared while {s.view.name} writes to it"
    return [warning("VERIFY_NOT_DEEP", message, "move it shut off, or with --method saved, to have it compared")]


@rule(
    COPY_NO_SPACE="A pool of the destination has less free space than the disks that are copied there take up.",
    COPY_MAY_FILL_POOL="The disks that are copied fit as they are, and would not if the VM filled them.",
)
def check_space(s: Situation) -> list[Finding]:
    """libvirt fails in the middle of the copy (9): "No space left on device"."""
    by_pool: defaultdict[str, list[DiskCopy]] = defaultdict(list)
    for copy in copies.copies_of(s):
        if copy.pool:
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
    copied = sum(base.length_bytes for base in copy.backing if base.how == "copied")
    if copy.backing:
        return copied + min(copy.allocation_bytes, copy.capacity_bytes)
    backed = any(d.backing for d in s.domain.disks if d.target == copy.target)
    return copy.capacity_bytes if backed else min(copy.allocation_bytes, copy.capacity_bytes)


@rule(
    BACKING_CHAIN_FLATTENED="A disk with backing files becomes one file of its own on the destination.",
)
def check_flattening(s: Situation) -> list[Finding]:
    """A full copy holds everything that the guest can read, whatever layer it comes from."""
    copied = set() if keeps_chain(s) else {disk.target for disk in copies.copied_disks(s)}
    return [
        warning(
            "BACKING_CHAIN_FLATTENED",
            f"{d.target}: {d.source} and its backing file {d.backing[0]} are copied into one file",
            "expect it to take more space there; --storage incremental keeps them apart",
        )
        for d in s.domain.disks
        if d.target in copied and d.backing
    ]


def mib(size: int) -> str:
    """Bytes in MiB, for people."""
    return f"{-(-size // 1024**2)} MiB"
