"""What becomes of the files below a disk that is copied: they stay, are there already, or are copied first."""

from __future__ import annotations

from posixpath import join

from tasks.model.disks import BackingFile, ImageFile
from tasks.model.domain import Disk, Mark
from tasks.model.finding import Finding, blocker
from tasks.model.host import Pool
from tasks.model.request import Storage
from tasks.planning.chunks import size_chunks
from tasks.planning.sharing import find_sharing
from tasks.planning.situation import Situation
from tasks.planning.volume_name import mark_volume_name

CODES = {
    "COPY_CHAIN_UNSEEN": "A file below a disk is in no active pool of the source, through which it could be read.",
    "COPY_DATA_FILE": "A disk keeps the guest's data in another file than its image.",
}
"""What each reason against a copy with its chain means."""

FORMATS = ("raw", "qcow2")


def keeps_chain(s: Situation) -> bool:
    """Whether disks keep the files below them; a disk that is mirrored as a whole becomes one file instead."""
    return s.storage is Storage.INCREMENTAL or (s.storage is Storage.COPY and not s.live)


def check_chain(s: Situation, disk: Disk) -> Finding | None:
    """Why the disk's files cannot be copied one by one, if they cannot."""
    for image in s.chains.get(disk.target, ()):
        if image.external_data:
            message = f"{disk.target}: {image.path} keeps the guest's data in another file"
            return blocker("COPY_DATA_FILE", message, "make one image of both: qemu-img convert")
    if not keeps_chain(s):
        return None
    for image in s.chains.get(disk.target, ())[1:]:
        if not find_sharing(image.path, s.source, s.destination).proven and not image.seen:
            message = f"{disk.target}: no active pool of {s.source.name} shows {image.path}, which lies below it"
            hint = "make a pool of its directory there: virsh pool-create-as NAME dir --target DIRECTORY"
            return blocker("COPY_CHAIN_UNSEEN", message, hint)
    return None


def place_chain(s: Situation, disk: Disk, pool: Pool, mark: Mark) -> tuple[BackingFile, ...]:
    """The files below a disk on the destination, top first; none when it becomes one file."""
    if not keeps_chain(s):
        return ()
    below = s.chains.get(disk.target, ())[1:]
    return tuple(_place(s, image, f"{disk.target}_{n}", pool, mark) for n, image in enumerate(below, 1))


def _place(s: Situation, image: ImageFile, key: str, pool: Pool, mark: Mark) -> BackingFile:
    volume = mark_volume_name(image.path, key, mark)
    copy_path = join(pool.target or "/", volume)
    base = BackingFile(
        source_path=image.path,
        format=image.format,
        length_bytes=image.length_bytes,
        modified=image.modified,
        how="copied",
        path=copy_path,
        pool=pool.name,
        volume=volume,
        copy_path=copy_path,
        chunk_bytes=size_chunks(image.length_bytes, image.allocation_bytes),
    )
    if find_sharing(image.path, s.source, s.destination).proven:
        return base.model_copy(update={"how": "shared", "path": image.path})
    there = s.bases.get(image.path)
    if s.storage is Storage.INCREMENTAL and there is not None and there.length_bytes == image.length_bytes:
        return base.model_copy(update={"how": "present", "path": there.path})
    return base
