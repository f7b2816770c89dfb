"""Where the disks that are copied go: one new volume each, or why there cannot be one."""

from __future__ import annotations

from posixpath import dirname, join, normpath

from tasks.model.disks import DiskCopy, DiskSize, ImageFile
from tasks.model.domain import Disk, Mark
from tasks.model.finding import Finding, blocker
from tasks.model.host import Pool
from tasks.model.request import EVERY_DISK, Storage
from tasks.planning.chain import CODES as CHAIN_CODES
from tasks.planning.chain import FORMATS, check_chain, place_chain
from tasks.planning.chunks import size_chunks
from tasks.planning.situation import Situation
from tasks.planning.storage import is_copied
from tasks.planning.volume_name import MAX_BYTES, mark_volume_name

CODES = {
    "COPY_NOT_ATTACHED": "A disk is not attached to the running VM, only defined for its next start.",
    "COPY_FORMAT": "A disk is in a format, or uses an option of the format, that is not copied.",
    "COPY_READONLY": "A disk is read-only, which libvirt never copies, and it is not on shared storage.",
    "COPY_SHAREABLE": "A disk may be in use by other VMs, and is not on shared storage: a copy would be another disk.",
    "COPY_SIZE_UNSEEN": "The size of a disk cannot be seen.",
    "COPY_SOURCE_UNSEEN": "The file of a disk is in no active pool of the source, through which it could be read.",
    "COPY_POOL_MISSING": "The destination has no active pool for a disk that is copied.",
    "COPY_POOL_UNFIT": "The pool chosen for a disk cannot hold files.",
    **CHAIN_CODES,
}
"""What each reason against a copy means."""

FILE_POOLS = ("dir", "fs", "netfs")
"""Types of pools whose volumes are files in a directory."""
DEVICE_POOLS = ("logical",)
"""Types of pools whose volumes are block devices, which hold raw disks."""
LONGEST_LV = 126
"""LVM's limit for the name of a logical volume."""
NO_POOL = Pool("", "", active=False, target=None)
UNMARKED = Mark("ID", 1, 0)
"""Stands for the mark in a dry run."""


def copies_of(s: Situation) -> tuple[DiskCopy, ...]:
    """Every disk that is copied and can be, each with its new volume."""
    placed = [place(s, disk) for disk in copied_disks(s)]
    return tuple(p for p in placed if isinstance(p, DiskCopy))


def pools_of(s: Situation, copies: tuple[DiskCopy, ...]) -> tuple[str, ...]:
    """Pools that disks are copied out of and into, ``host/pool``."""
    moved = {copy.target for copy in copies}
    out = {pool.name for disk in copied_disks(s) if disk.target in moved and (pool := _pool_of(s, disk))}
    into = {file.pool for copy in copies for file in copy.files} | {copy.pool for copy in copies}
    into |= {file.pool for file in s.files}
    found = {f"{s.source.name}/{name}" for name in out} | {f"{s.destination.name}/{name}" for name in into if name}
    return tuple(sorted(found))


def copied_disks(s: Situation) -> tuple[Disk, ...]:
    """Disks that must be copied, of both definitions; none when they all stay where they are."""
    if s.storage is Storage.SHARED:
        return ()
    return tuple(d for d in s.disks if is_copied(d, s.request, s.source, s.destination))


def place(s: Situation, disk: Disk) -> DiskCopy | Finding:
    """The new volume for a disk, or the blocker that says why there is none."""
    if reason := _uncopyable(s, disk) or check_chain(s, disk):
        return reason
    found = _measured(s, disk)
    if isinstance(found, Finding):
        return found
    # What speaks against a device that was named, the rule about devices says.
    pool = (
        None
        if disk.target in s.request.devices and not place_chain(s, disk, NO_POOL, UNMARKED)
        else _choose_pool(s, disk)
    )
    if isinstance(pool, Finding):
        return pool
    return _copy(s, disk, found, pool)


def _copy(s: Situation, disk: Disk, found: DiskSize | ImageFile, pool: Pool | None) -> DiskCopy:
    mark, device = s.mark or UNMARKED, s.request.devices.get(disk.target)
    file = found if isinstance(found, ImageFile) else None
    logical = pool is not None and pool.type in DEVICE_POOLS
    volume = mark_volume_name(disk.source or "", disk.target, mark, LONGEST_LV if logical else MAX_BYTES)
    return DiskCopy(
        target=disk.target,
        source=disk.source or "",
        format=disk.driver_format or "raw",
        capacity_bytes=found.capacity_bytes,
        allocation_bytes=found.allocation_bytes,
        pool="" if device or pool is None else pool.name,
        volume="" if device else volume,
        path=device if device else join((pool.target if pool else "") or "/", volume),
        kind="block" if device else "volume" if disk.type == "volume" else "block" if logical else "file",
        device=device is not None,
        grow_bytes=s.request.sizes.get(disk.target, 0),
        source_path=file.path if file else "",
        length_bytes=file.length_bytes if file and not s.mirrored_off else 0,
        modified=file.modified if file else "",
        # To a device holes are written, each in one go.
        chunk_bytes=size_chunks(file.length_bytes, file.allocation_bytes) if file and not (device or logical) else 0,
        backing=place_chain(s, disk, pool, mark) if pool else (),
    )


def measure(s: Situation, disk: Disk) -> DiskSize | ImageFile | None:
    """What is known of the source; None when nothing is."""
    found = _measured(s, disk)
    return None if isinstance(found, Finding) else found


def _measured(s: Situation, disk: Disk) -> DiskSize | ImageFile | Finding:
    """What is known of the source: the running VM knows its disk's size, of one that is shut off the file is read."""
    if s.live:
        size = s.sizes.get(disk.target)
        if size is None or size.capacity_bytes <= 0:
            message = f"{disk.target}: libvirt on {s.source.name} does not say how large {disk.source} is"
            return blocker("COPY_SIZE_UNSEEN", message, f"try there: virsh domblkinfo {s.view.uuid} {disk.target}")
        return size
    chain = s.chains.get(disk.target)
    if not chain:
        message = f"{disk.target}: no active pool of {s.source.name} shows {disk.source}"
        hint = "make a pool of its directory there: virsh pool-create-as NAME dir --target DIRECTORY"
        return blocker("COPY_SOURCE_UNSEEN", message, hint)
    return chain[0]


def _uncopyable(s: Situation, disk: Disk) -> Finding | None:
    name = f"{disk.target}: {disk.source}"
    if s.live and not any((d.target, d.source) == (disk.target, disk.source) for d in s.domain.disks):
        hint = f"attach it now or take it out: virsh detach-disk {s.view.uuid} {disk.target} --config"
        return blocker("COPY_NOT_ATTACHED", f"{name} is not attached to the running VM, only defined for later", hint)
    if disk.readonly:
        return blocker("COPY_READONLY", f"{name} is read-only and not on shared storage", "put it on a netfs pool")
    if disk.shareable:
        message = f"{name} is meant to be used by several VMs and is not on shared storage"
        return blocker("COPY_SHAREABLE", message, "put it on a netfs pool, or take <shareable/> away")
    what = disk.uncopyable or (disk.driver_format or "raw")
    if disk.uncopyable or what not in FORMATS:
        hint = f"formats that are copied: {', '.join(FORMATS)}, without encryption, slices and data files"
        return blocker("COPY_FORMAT", f"{name} has {what}, which is not copied", hint)
    return None


def _choose_pool(s: Situation, disk: Disk) -> Pool | Finding:
    """The pool that was asked for; else the one of the same name; else one with the same directory."""
    asked = s.request.pools.get(disk.target) or s.request.pools.get(EVERY_DISK)
    here = _pool_of(s, disk)
    name = asked or (here.name if here else None)
    pools = [p for p in s.destination.pools if p.active]
    found = next((p for p in pools if p.name == name), None)
    if found is None and asked is None and (directory := _directory(disk, here)):
        found = next((p for p in pools if p.target and normpath(p.target) == directory), None)
    if found is None:
        wanted = f"pool {name}" if name else f"pool for {disk.source}"
        names = ", ".join(p.name for p in pools if p.type in FILE_POOLS) or "none"
        hint = f"name one: --pool {disk.target}=POOL (active there: {names})"
        return blocker("COPY_POOL_MISSING", f"{disk.target}: {s.destination.name} has no active {wanted}", hint)
    chained = bool(place_chain(s, disk, NO_POOL, UNMARKED))
    raw = (disk.driver_format or "raw") == "raw" and not chained
    if found.type not in (FILE_POOLS + DEVICE_POOLS if raw else FILE_POOLS) or not found.target:
        message = (
            f"{disk.target}: pool {found.name} of {s.destination.name} is of type {found.type}, "
            f"which does not take {'a raw disk' if raw else f'{disk.driver_format} files'}"
        )
        return blocker("COPY_POOL_UNFIT", message, f"name another pool: --pool {disk.target}=POOL")
    return found


def _pool_of(s: Situation, disk: Disk) -> Pool | None:
    """The source's pool that holds a disk."""
    if disk.type == "volume":
        name = (disk.source or "").split("/", 1)[0]
        return next((p for p in s.source.pools if p.name == name), None)
    directory = normpath(dirname(disk.source or ""))
    return next((p for p in s.source.pools if p.active and p.target and normpath(p.target) == directory), None)


def _directory(disk: Disk, pool: Pool | None) -> str | None:
    if pool is not None:
        return normpath(pool.target) if pool.target else None
    return normpath(dirname(disk.source or "")) if disk.type == "file" else None
