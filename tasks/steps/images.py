"""The files that a disk consists of, read from its host: the disk's own, and what lies below it."""

from __future__ import annotations

from tasks.model.disks import ImageFile, Volume
from tasks.model.domain import Disk
from tasks.model.errors import OperatorMustFix
from tasks.model.ports import Hypervisor
from tasks.planning.qcow2 import HEADER_BYTES, ImageHeader, backing_path, parse_header

DEEPEST = 64
"""libvirt's own limit is 200 layers; a chain that names itself must end somewhere."""


def read_chain(hypervisor: Hypervisor, host: str, disk: Disk) -> tuple[ImageFile, ...]:
    """Top first; a file that no active pool of the host shows is the last one, and not ``seen``; empty when the disk's
    own file is not.

    Only what the definition or an image above calls qcow2 is read as such: of a raw image the guest itself writes the
    first bytes.
    """
    volume = _top(hypervisor, host, disk)
    chain: list[ImageFile] = []
    wanted = disk.driver_format or "raw"
    while volume is not None and len(chain) < DEEPEST:
        header = _header(hypervisor, host, volume) if wanted == "qcow2" else None
        chain.append(_image(volume, wanted, header))
        if header is None or header.backing is None:
            return tuple(chain)
        below = backing_path(header.backing, volume.path)
        found = hypervisor.find_volume_at(host, below) if below else None
        wanted = header.backing_format or (found.format if found else None) or "raw"
        if found is None:
            return (*chain, ImageFile(below or header.backing, wanted, 0, 0, 0, "", seen=False))
        volume = found
    return tuple(chain)


def _top(hypervisor: Hypervisor, host: str, disk: Disk) -> Volume | None:
    pool, _, name = (disk.source or "").partition("/")
    if disk.type == "volume":
        try:
            return hypervisor.find_volume(host, pool, name)
        except OperatorMustFix as error:
            if error.code not in ("NO_STORAGE_POOL", "POOL_INACTIVE"):
                raise
            return None  # the rules about disks say what is wrong with it
    return hypervisor.find_volume_at(host, disk.source or "")


def _header(hypervisor: Hypervisor, host: str, volume: Volume) -> ImageHeader | None:
    return parse_header(hypervisor.read_piece(host, volume.path, 0, min(HEADER_BYTES, volume.length_bytes)))


def _image(volume: Volume, format_: str, header: ImageHeader | None) -> ImageFile:
    backing = header.backing if header is not None else None
    return ImageFile(
        path=volume.path,
        format=format_,
        capacity_bytes=header.capacity_bytes if header is not None else volume.length_bytes,
        allocation_bytes=volume.allocation_bytes,
        length_bytes=volume.length_bytes,
        modified=volume.modified,
        backing=(backing_path(backing, volume.path) or backing) if backing else None,
        snapshots=header.snapshots if header is not None else 0,
        external_data=header.external_data if header is not None else False,
        options=header.options if header is not None else (),
    )
