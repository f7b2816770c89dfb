"""What ``vmferry plan`` says: what would be done, and whether it may be."""

from __future__ import annotations

from tasks.model.disks import DiskCopy
from tasks.model.finding import Finding, Severity
from tasks.model.frozen import Frozen
from tasks.model.pools import Mount
from tasks.model.request import Method, Storage


class Plan(Frozen):
    """A dry run of one migration; making it changes nothing on any host."""

    vm: str
    uuid: str | None = None
    source: str | None = None
    destination: str
    allowed: bool
    method: Method | None = None
    storage: Storage | None = None
    reason: str = ""
    """Why this method and storage."""
    policy: str = "default"
    findings: tuple[Finding, ...] = ()
    steps: tuple[str, ...] = ()
    """Names of the Celery tasks, in order."""
    copies: tuple[DiskCopy, ...] = ()
    """Disks that would be copied; the others stay where they are."""
    mounts: tuple[Mount, ...] = ()
    """Network file systems that disks stay on, with what is done for them on the destination."""
    nvram: str = ""
    """File of the source with the UEFI variables, when they would be copied."""
    creates: tuple[str, ...] = ()
    """What would be made on the hosts, in words for people."""


def is_allowed(findings: tuple[Finding, ...]) -> bool:
    """Whether no finding blocks."""
    return not any(f.severity is Severity.BLOCKER for f in findings)
