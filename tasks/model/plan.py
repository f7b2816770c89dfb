"""What ``vmferry plan`` says: what would be done, and whether it may be."""

from __future__ import annotations

from enum import StrEnum

from tasks.model.disks import DiskCopy, FileCopy
from tasks.model.estimate import Estimate
from tasks.model.finding import Finding, Severity
from tasks.model.frozen import Frozen
from tasks.model.pools import Mount
from tasks.model.remedies import NO_REMEDIES, Remedied
from tasks.model.request import DataPath, Method, Storage


class Downtime(StrEnum):
    """How long the VM stands still."""

    NONE = "none"
    SWITCH_OVER = "switch-over"
    TRANSFER = "transfer"


class Alternative(Frozen):
    """Another way than the one that was chosen."""

    way: str
    possible: bool
    reason: str
    """What it would mean, or why it is not possible."""


class Outlook(Frozen):
    """What a migration would be like. Sizes in bytes, as far as they are known beforehand."""

    downtime: Downtime
    downtime_words: str
    memory_bytes: int
    """All of its memory: of what the guest has never touched little is sent."""
    disk_bytes: int
    data_path: str
    expected: Estimate | None = None
    """How long it will take; None when no move between the two hosts was seen lately."""
    alternatives: tuple[Alternative, ...] = ()


class Plan(Frozen):
    """A dry run of one migration; making it changes nothing on any host."""

    vm: str
    uuid: str | None = None
    source: str | None = None
    destination: str
    allowed: bool
    method: Method | None = None
    storage: Storage | None = None
    data_path: DataPath | None = None
    """By which way the contents of copied disks go; None when none is copied."""
    reason: str = ""
    """Why this method, storage and data path."""
    policy: str = "default"
    findings: tuple[Finding, ...] = ()
    steps: tuple[str, ...] = ()
    """Names of the Celery tasks, in order."""
    copies: tuple[DiskCopy, ...] = ()
    """Disks that would be copied; the others stay where they are."""
    pools: tuple[str, ...] = ()
    """Pools that are copied out of and into, ``host/pool``."""
    mounts: tuple[Mount, ...] = ()
    """Network file systems that disks stay on, with what is done for them on the destination."""
    nvram: str = ""
    """File of the source with the UEFI variables, when they would be copied."""
    emulated: bool = False
    """QEMU emulates the VM's CPUs, no hardware runs them."""
    post_copy: bool = False
    """It may be switched to post-copy, when the policy says so."""
    agent: bool = False
    """A guest agent is connected, which is asked again on the destination."""
    tpm: str = ""
    """Directory of an emulated TPM's state, when it would be copied."""
    files: tuple[FileCopy, ...] = ()
    """Files beside the disks that would be copied."""
    remedied: Remedied = NO_REMEDIES
    """What the remedies that were asked for would do."""
    creates: tuple[str, ...] = ()
    """What would be made on the hosts, in words for people."""
    outlook: Outlook | None = None
    """None when it was refused before there was enough to tell."""


def is_allowed(findings: tuple[Finding, ...]) -> bool:
    """Whether no finding blocks."""
    return not any(f.severity is Severity.BLOCKER for f in findings)
