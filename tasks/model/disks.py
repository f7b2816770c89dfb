"""Disks that are copied: what they are on the source, and the volumes that are made for them."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.model.frozen import Frozen


class DiskCopy(Frozen):
    """One disk that is copied to a new volume of the destination. Sizes in bytes."""

    target: str
    """Guest-side name, for example ``vda``."""
    source: str
    """What the source's definition names: a path, or ``pool/volume``."""
    format: str
    """Format of both: raw or qcow2."""
    capacity_bytes: int
    """What the guest sees; the new volume has exactly the same."""
    allocation_bytes: int
    """What the source takes up on its storage when it is looked at."""
    pool: str
    """Pool of the destination."""
    volume: str
    """Name of the new volume; it bears the migration's mark, so that nothing existing can be hit."""
    path: str
    """Where the new volume appears on the destination."""
    source_path: str = ""
    """The file on the source."""
    length_bytes: int = 0
    """Length of the file when it is copied byte for byte through the worker; 0: the hypervisor mirrors the disk."""
    modified: str = ""
    """When the file was last written, as the source says; it must not change while it is copied."""


@dataclass(frozen=True, slots=True)
class DiskSize:
    """A disk as the hypervisor sees it, bytes."""

    capacity_bytes: int
    """What the guest sees."""
    allocation_bytes: int
    """What it takes up on its storage, without backing files."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of a storage pool."""

    name: str
    path: str
    capacity_bytes: int
    allocation_bytes: int
    format: str | None = None
    length_bytes: int = 0
    """Of the file."""
    backing: str | None = None
    """Path of the file below it."""
    modified: str = ""
    """When it was last written, seconds since the epoch with their fraction, as the host says."""


@dataclass(frozen=True, slots=True)
class VolumeOrder:
    """A new volume: sparse, empty, of exactly this capacity in bytes."""

    pool: str
    name: str
    format: str
    capacity_bytes: int


@dataclass(frozen=True, slots=True)
class ChunkOrder:
    """One piece of a file to be copied from host to host, byte for byte; sizes in bytes."""

    source: str
    """Inventory name."""
    source_path: str
    destination: str
    pool: str
    volume: str
    offset: int
    length: int
    fresh: bool
    """Nothing was ever written to this piece of the volume: holes may be left out."""
