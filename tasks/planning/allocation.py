"""Whether a copy takes up no more of its storage than what it is a copy of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tasks.model.disks import DiskCopy, DiskSize
from tasks.model.finding import Finding, warning

CODES = {"COPY_NOT_SPARSE": "A copied disk takes up much more space than it did on the source."}

SHARE = 1.25
SLACK_BYTES = 64 * 1024**2
"""A running guest goes on writing while its disk is copied, and each file system rounds in its own way."""


def check_allocation(copies: Iterable[DiskCopy], sizes: Mapping[str, DiskSize]) -> list[Finding]:
    """Files alone: devices are as large as they are."""
    findings = []
    for copy in copies:
        size = sizes.get(copy.target)
        if copy.kind == "block" or copy.on_device or size is None or copy.grow_bytes:
            continue
        if copy.allocation_bytes and size.allocation_bytes > copy.allocation_bytes * SHARE + SLACK_BYTES:
            message = (
                f"{copy.target} takes up {size.allocation_bytes >> 20} MiB as {copy.path}, "
                f"and took up {copy.allocation_bytes >> 20} MiB as {copy.source_path or copy.source}"
            )
            hint = "what lay below a disk that was mirrored is in it as well; else let the guest trim it: fstrim -a"
            findings.append(warning("COPY_NOT_SPARSE", message, hint))
    return findings
