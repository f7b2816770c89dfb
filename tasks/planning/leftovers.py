"""Which files a move leaves behind, and which of them may be deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.model.disks import NVRAM, TPM, DiskCopy, FileCopy, Volume


@dataclass(frozen=True, slots=True)
class Leftover:
    """One file of the source that nobody needs when the VM has moved."""

    path: str
    what: str
    """Guest-side name of the disk, or what else it is."""
    modified: str = ""
    """When it was last written, where it must not have been written to since it was copied."""
    device: bool = False


def leftovers_of(copies: Sequence[DiskCopy], files: Sequence[FileCopy]) -> tuple[Leftover, ...]:
    """The top files of copied disks, the UEFI variables and the TPM's state.

    What lies below a disk may be others' as well: it stays.

    A running VM's disk was written to until it left: of the others it is known when they were last written to.
    """
    disks = [
        Leftover(
            path=copy.source_path or copy.source,
            what=copy.target,
            modified=copy.modified,
            device=copy.on_device,
        )
        for copy in copies
    ]
    others = [Leftover(file.source_path, file.key, file.modified) for file in files if file.key in (NVRAM, TPM)]
    return (*disks, *others)


def why_kept(
    leftover: Leftover, users: Mapping[str, Sequence[str]], overlays: Sequence[str], volume: Volume | None
) -> str:
    """What stands against deleting it, in words; empty when nothing does.

    ``users`` are, by host, the VMs that name it; ``overlays`` the images that lie on it.
    """
    if leftover.device:
        return "block devices are never deleted"
    used = "; ".join(f"{', '.join(names)} on {host}" for host, names in users.items() if names)
    if used:
        return f"in use by {used}"
    if overlays:
        return f"{', '.join(overlays)} lies on it" if len(overlays) == 1 else f"{', '.join(overlays)} lie on it"
    if volume is None:
        return "no active pool shows it"
    if leftover.modified and volume.modified != leftover.modified:
        return "it was written to after it had been copied"
    return ""
