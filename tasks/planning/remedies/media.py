"""Images in CD-ROM and floppy drives that the destination lacks: taken out, or copied there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from posixpath import basename, dirname, join, normpath

from tasks.model.disks import FileCopy, Volume
from tasks.model.domain import Disk, Domain, Mark
from tasks.model.host import Pool
from tasks.model.remedies import Medium
from tasks.planning.copies import FILE_POOLS, UNMARKED
from tasks.planning.medium import medium_key
from tasks.planning.remedies.remedy import Refusal, Remedy, Treatment
from tasks.planning.sharing import find_sharing
from tasks.planning.situation import Situation
from tasks.planning.storage import MEDIUM_DEVICES, sharing_of
from tasks.planning.volume_name import mark_volume_name

MARGIN_PERCENT = 5


def is_medium_missing(s: Situation, disk: Disk) -> str | None:
    """The code of the finding that says why the destination cannot be expected to have what is in a drive."""
    if disk.device not in MEDIUM_DEVICES or not disk.source:
        return None
    if disk.type == "block":
        return "MEDIUM_IS_HOST_DEVICE"
    if disk.type == "volume":
        return None if sharing_of(disk, s.source, s.destination).proven else _volume_code(s, disk)
    if disk.type != "file":
        return None
    present = s.media.get(disk.source)
    if present is False:
        return "MEDIUM_MISSING"
    if present is True or find_sharing(disk.source, s.source, s.destination).proven:
        return None
    return "MEDIUM_UNSEEN"


def _volume_code(s: Situation, disk: Disk) -> str:
    name = (disk.source or "").split("/", 1)[0]
    there = any(p.name == name and p.active for p in s.destination.pools)
    return "VOLUME_NOT_SHARED" if there else "POOL_MISSING"


def _missing(s: Situation) -> list[tuple[Disk, str]]:
    return [(disk, code) for disk in s.disks if (code := is_medium_missing(s, disk)) is not None]


# -- taken out --------------------------------------------------------------------------------------------------------


def _find_ejections(s: Situation) -> list[Treatment | Refusal]:
    return [_ejection(s, disk, code) for disk, code in _missing(s)]


def _ejection(s: Situation, disk: Disk, code: str) -> Treatment | Refusal:
    if s.view.managed_save:
        message = f"{disk.target}: the saved state of {s.view.name} has {disk.source} in it"
        return Refusal(message, "start the VM, so that the medium can be taken out")
    message = f"{disk.target}: {disk.source} is taken out on {s.source.name}, and the drive is empty on "
    return Treatment(code, f"{disk.target}:", message + s.destination.name, lambda s: _eject(s, disk))


def _eject(s: Situation, disk: Disk) -> Situation:
    medium = Medium(target=disk.target, source=disk.source or "")
    ejected = (*s.remedied.ejected, medium)
    emptied = _change_disks(s, lambda d: replace(d, source=None) if (d.target, d.source) == _key(disk) else d)
    return replace(emptied, remedied=s.remedied.model_copy(update={"ejected": ejected}))


def _key(disk: Disk) -> tuple[str, str | None]:
    return disk.target, disk.source


def _change_disks(s: Situation, change: Callable[[Disk], Disk]) -> Situation:
    def changed(domain: Domain) -> Domain:
        return replace(domain, disks=tuple(change(disk) for disk in domain.disks))

    return replace(s, domain=changed(s.domain), inactive=changed(s.inactive) if s.inactive else None)


EJECT_MEDIA = Remedy(
    name="eject-media",
    words="takes an image that the destination lacks out of its CD-ROM or floppy drive, in the running VM and in its "
    "definition",
    undone="it is put back, unless somebody has put another one in meanwhile",
    codes=("MEDIUM_MISSING", "MEDIUM_UNSEEN", "MEDIUM_IS_HOST_DEVICE", "POOL_MISSING", "VOLUME_NOT_SHARED"),
    find=_find_ejections,
)


# -- copied -----------------------------------------------------------------------------------------------------------


def _find_copies(s: Situation) -> list[Treatment | Refusal]:
    return [_copy(s, disk, code) for disk, code in _missing(s) if code == "MEDIUM_MISSING"]


def _copy(s: Situation, disk: Disk, code: str) -> Treatment | Refusal:
    path, there = disk.source or "", s.destination.name
    volume = s.media_files.get(path)
    if volume is None:
        message = f"{disk.target}: no active pool of {s.source.name} shows {path}, through which it could be read"
        return Refusal(message, "make a pool of its directory there: virsh pool-create-as NAME dir")
    pool = _pool_at(s, dirname(path))
    if pool is None:
        message = f"{disk.target}: no active pool of {there} has the directory {dirname(path)}"
        return Refusal(message, "make one there: virsh pool-create-as NAME dir --target DIRECTORY")
    if pool.available_bytes < volume.length_bytes * (100 + MARGIN_PERCENT) // 100:
        message = f"{disk.target}: {path} is too large for what is free in pool {pool.name} of {there}"
        return Refusal(message, "make room there")
    file = _file(s, disk, volume, pool)
    message = f"{disk.target}: {path} is copied to {file.path} on {there}"
    return Treatment(code, f"{disk.target}:", message, lambda s: _with_copy(s, disk, file))


def _pool_at(s: Situation, directory: str) -> Pool | None:
    pools = (p for p in s.destination.pools if p.active and p.type in FILE_POOLS and p.target)
    return next((p for p in pools if normpath(p.target or "") == normpath(directory)), None)


def _file(s: Situation, disk: Disk, volume: Volume, pool: Pool) -> FileCopy:
    mark: Mark = s.mark or UNMARKED
    name = mark_volume_name(basename(disk.source or ""), disk.target, mark)
    return FileCopy(
        key=medium_key(disk.target),
        source_path=disk.source or "",
        length_bytes=volume.length_bytes,
        modified=volume.modified,
        pool=pool.name,
        volume=name,
        path=join(pool.target or "/", name),
    )


def _with_copy(s: Situation, disk: Disk, file: FileCopy) -> Situation:
    media = {**s.media, disk.source or "": True}
    return replace(s, media=media, files=(*(f for f in s.files if f.key != file.key), file))


COPY_MEDIA = Remedy(
    name="copy-media",
    words="copies an image that the destination lacks into its pool of the same directory, reads it again there, and "
    "has the drive name the copy",
    undone="the copy is deleted",
    codes=("MEDIUM_MISSING",),
    find=_find_copies,
)
