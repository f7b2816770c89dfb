"""Disks that are copied: what they are on the source, and the volumes that are made for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tasks.model.frozen import Frozen

NVRAM = "nvram"
"""Key of the UEFI variables among the files that are copied."""
TPM = "tpm"
"""Key of an emulated TPM's state among them."""


class BackingFile(Frozen):
    """A file below a disk that is copied with its chain. Sizes in bytes."""

    source_path: str
    format: str
    length_bytes: int
    modified: str
    """When the file was last written, as the source says."""
    how: Literal["shared", "present", "copied"]
    """On storage that both hosts have; on the destination already, to be proven identical; or copied there first."""
    path: str
    """Where it is on the destination."""
    pool: str = ""
    """Where it is copied to when that is necessary, which may turn out only when both are compared."""
    volume: str = ""
    copy_path: str = ""
    chunk_bytes: int = 0
    """As of a `FileCopy`."""

    def copied(self) -> BackingFile:
        """The same, copied."""
        return self.model_copy(update={"how": "copied", "path": self.copy_path})


class FileCopy(Frozen):
    """One file that is copied byte for byte. Sizes in bytes."""

    key: str
    """Unique in the migration: the disk's guest-side name, with the number of the layer below it."""
    source_path: str
    length_bytes: int
    modified: str
    pool: str
    volume: str
    path: str
    device: bool = False
    """It exists already, and is no volume of ours."""
    below: str | None = None
    """The file below it on the destination, which its header has to name; None when there is none."""
    chunk_bytes: int = 0
    """How long the pieces are in which it is copied; 0: as long as those of a file without holes. What was recorded of
    it is read by this, so that it stays as it was planned."""


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
    chunk_bytes: int = 0
    """As of a `FileCopy`."""
    kind: Literal["file", "block", "volume"] = "file"
    """How the destination's definition names it."""
    device: bool = False
    """It is written to a device that exists, instead of a new volume."""
    grow_bytes: int = 0
    """What it is grown to at the end; 0: it stays as it is."""
    backing: tuple[BackingFile, ...] = ()
    """The files below it that it keeps, top first; without them a mirrored disk becomes one file of its own."""

    @property
    def on_device(self) -> bool:
        """Whether the source is a block device."""
        return (self.source_path or self.source).startswith("/dev/")

    @property
    def files(self) -> tuple[FileCopy, ...]:
        """What is copied byte for byte, lowest layer first."""
        below = [*(b.path for b in self.backing), None]
        found = [self._base(number, base, below[number]) for number, base in enumerate(self.backing, 1)]
        own = FileCopy(
            key=self.target,
            source_path=self.source_path,
            length_bytes=self.length_bytes,
            modified=self.modified,
            pool=self.pool,
            volume=self.volume,
            path=self.path,
            device=self.device,
            below=below[0],
            chunk_bytes=self.chunk_bytes,
        )
        return (*(file for file in reversed(found) if file is not None), *((own,) if self.length_bytes else ()))

    def _base(self, number: int, base: BackingFile, below: str | None) -> FileCopy | None:
        if base.how != "copied":
            return None
        return FileCopy(
            key=f"{self.target}_{number}",
            source_path=base.source_path,
            length_bytes=base.length_bytes,
            modified=base.modified,
            pool=base.pool,
            volume=base.volume,
            path=base.path,
            below=below,
            chunk_bytes=base.chunk_bytes,
        )


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file of a disk's chain, as it is on its host. Sizes in bytes."""

    path: str
    format: str
    capacity_bytes: int
    """What the guest would see of it."""
    allocation_bytes: int
    length_bytes: int
    modified: str
    backing: str | None = None
    """Path of the file below it; as the header says it where that is no path."""
    snapshots: int = 0
    """Internal ones."""
    external_data: bool = False
    """The guest's data is in another file."""
    options: tuple[str, ...] = ()
    """What it has that a new image of the format does not, in words."""
    seen: bool = True
    """A pool of its host shows it; of a file that is not, only the path and the format are known."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """A block device of the destination that a disk shall be written to."""

    path: str
    """By which a pool of its host shows it."""
    capacity_bytes: int
    empty: bool
    """The first and the last MiB are all zeros: no file system, no partition table, no label of any kind."""
    users: tuple[str, ...]
    """Domains of its host that name it."""


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
    modified: str = ""
    """When it was last written, seconds since the epoch with their fraction, as the host says."""


@dataclass(frozen=True, slots=True)
class VolumeOrder:
    """A new volume: sparse, empty, of exactly this capacity in bytes."""

    pool: str
    name: str
    format: str
    capacity_bytes: int
    backing: str = ""
    """Path of the file below it, which must be there."""
    backing_format: str = ""


@dataclass(frozen=True, slots=True)
class ImagePiece:
    """A piece of what a guest sees of its disk, and where its image has it; sizes in bytes."""

    length: int
    """Of what the guest sees."""
    offset: int | None = None
    """In the file; None: zeros, which are stored nowhere."""
    deflated_bytes: int = 0
    """Not 0: it is compressed (raw deflate), and takes up at most so much of the file."""


@dataclass(frozen=True, slots=True)
class ChunkOrder:
    """One piece of a file to be copied from host to host, byte for byte; sizes in bytes."""

    source: str
    """Inventory name."""
    source_path: str
    destination: str
    destination_path: str
    """A volume of an active pool."""
    offset: int
    length: int
    fresh: bool
    """Nothing was ever written to this piece of the volume; otherwise holes are written where it has anything."""
    head: bytes = b""
    """What is written instead of the first bytes of the piece."""
    at_once: int = 0
    """How much may be on its way from the source before it was passed on; 0: as much as fits."""
