"""A domain of the fake: definitions, state and job, changed in the ways that libvirt 9.0 was seen to change them."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lxml import etree

from tasks.model.disks import ImagePiece
from tasks.model.domain import ACTIVE_STATES, NO_JOB, DomainState, DomainView, JobStats, Mark
from tasks.model.errors import OperatorMustFix
from tasks.model.mark_xml import parse_mark
from tasks.model.ports import TransferOrder
from tasks.planning.mark_xml import with_mark, without_mark

RUNNING_BOOTED = 1
PAUSED_USER = 1
RUNNING_MIGRATED = 2
PAUSED_USER = 1
PAUSED_MIGRATION = 2
SHUTOFF_UNKNOWN = 0
SHUTOFF_SHUTDOWN = 1
SHUTOFF_DESTROYED = 2
SHUTOFF_MIGRATED = 4
SHUTOFF_SAVED = 5
SHUTOFF_FAILED = 6


def disks_of(xml: str) -> dict[str, str]:
    """Guest-side name -> file of each disk of a definition."""
    found = {}
    for disk in etree.fromstring(xml).findall("devices/disk"):
        target, source = disk.find("target"), disk.find("source")
        if target is not None and source is not None:
            found[target.get("dev", "")] = source.get("file", "")
    return found


@dataclass
class FakeDomain:
    """One domain on one fake host."""

    name: str
    uuid: str
    inactive_xml: str
    live_xml: str = ""
    state: DomainState = DomainState.SHUTOFF
    reason: int = SHUTOFF_UNKNOWN
    persistent: bool = True
    autostart: bool = False
    managed_save: bool = False
    snapshots: int = 0
    never_ran: bool = False
    job: JobStats = NO_JOB
    order: TransferOrder | None = None
    """What its running migration was told."""
    completed_job: JobStats | None = None
    max_downtime_ms: int = 0
    started: int = 0
    """How often the guest was booted: a migration must not add to it."""

    @property
    def active(self) -> bool:
        """Whether a hypervisor process would exist."""
        return self.state in ACTIVE_STATES

    @property
    def in_post_copy(self) -> bool:
        """The source of one."""
        return self.state is DomainState.PAUSED and self.reason in (12, 13)

    @property
    def mark(self) -> Mark | None:
        """From the inactive definition when persistent, else from the live one."""
        return parse_mark(self.inactive_xml if self.persistent else self.live_xml)

    def set_mark(self, mark: Mark | None) -> None:
        """Write or remove the mark, live and persistent as far as the domain is either."""
        if self.persistent:
            self.inactive_xml = _marked(self.inactive_xml, mark)
        if self.active:
            self.live_xml = _marked(self.live_xml, mark)

    def start(self) -> None:
        """Boot the guest."""
        self.state, self.reason = DomainState.RUNNING, RUNNING_BOOTED
        self.live_xml = self.inactive_xml
        self.started += 1

    def start_paused(self, xml: str) -> None:
        """Load the guest with a definition of this instance; it is not booted before it is resumed."""
        self.state, self.reason, self.never_ran = DomainState.PAUSED, PAUSED_USER, True
        self.live_xml = xml

    @property
    def instance_mark(self) -> Mark | None:
        """What a paused instance was started with."""
        return parse_mark(self.live_xml) if self.state is DomainState.PAUSED else None

    def go_on(self, *, paused: bool) -> None:
        """From saved memory: where the guest was."""
        self.state, self.reason = DomainState.PAUSED if paused else DomainState.RUNNING, 1
        self.live_xml = self.inactive_xml

    def update_drive(self, host: str, drive: str, *, live: bool) -> None:
        """Replace the drive with the same guest-side name."""
        if live and not self.active:
            raise OperatorMustFix("OPERATION_INVALID", f"{host}: domain is not running", "")
        text = _with_drive(self.live_xml if live else self.inactive_xml, drive)
        if text is None:
            raise OperatorMustFix("LIBVIRT_ERROR", f"{host}: no such drive", "")
        if live:
            self.live_xml = text
        else:
            self.inactive_xml = text

    def view(self, host: str, *, bare: bool = False) -> DomainView:
        """As the port shows it; ``bare`` without mark and job."""
        root = etree.fromstring(self.live_xml if self.active else self.inactive_xml)
        return DomainView(
            host=host,
            name=self.name,
            uuid=self.uuid,
            state=self.state,
            reason=self.reason,
            active=self.active,
            persistent=self.persistent,
            autostart=self.autostart,
            managed_save=self.managed_save,
            memory_kib=memory_kib(root),
            vcpus=int(root.findtext("vcpu") or 1),
            snapshots=0 if bare else self.snapshots,
            never_ran=self.never_ran and not bare,
            mark=None if bare else self.mark,
            instance_mark=None if bare else self.instance_mark,
            job=NO_JOB if bare else self.job,
        )

    def xml(self, *, inactive: bool, secure: bool) -> str:
        """The definition; without ``secure`` it has no passwords."""
        text = self.live_xml if self.active and not inactive else self.inactive_xml
        return text if secure else _without_passwords(text)


def _with_drive(xml: str, drive: str) -> str | None:
    root, new = etree.fromstring(xml), etree.fromstring(drive)
    name, devices = new.find("target"), root.find("devices")
    for disk in root.findall("devices/disk"):
        target = disk.find("target")
        if devices is not None and target is not None and name is not None and target.get("dev") == name.get("dev"):
            devices.replace(disk, new)
            return etree.tostring(root, encoding="unicode")
    return None


def hash_pieces(contents: bytes | bytearray, pieces: Sequence[ImagePiece], tick: Callable[[int], None]) -> str:
    """The checksum of what a guest sees of a file."""
    digest = hashlib.sha256()
    for piece in pieces:
        start = piece.offset or 0
        if piece.offset is None:
            digest.update(bytes(piece.length))
        elif piece.deflated_bytes:
            stored = bytes(contents[start : start + piece.deflated_bytes])
            digest.update(zlib.decompressobj(-12).decompress(stored, piece.length))
        else:
            digest.update(contents[start : start + piece.length])
        tick(0 if piece.offset is None else piece.length)
    return digest.hexdigest()


def identity(xml: str) -> tuple[str, str]:
    """Name and UUID of a definition."""
    root = etree.fromstring(xml)
    return root.findtext("name") or "", root.findtext("uuid") or ""


def memory_kib(root: etree._Element) -> int:
    """Memory of a definition, KiB."""
    memory = root.find("memory")
    if memory is None:
        return 0
    units = {"KiB": 1, "MiB": 1024, "GiB": 1024 * 1024}
    return int(memory.text or 0) * units[memory.get("unit", "KiB")]


def _marked(xml: str, mark: Mark | None) -> str:
    return without_mark(xml) if mark is None else with_mark(xml, mark)


def _without_passwords(xml: str) -> str:
    root = etree.fromstring(xml)
    for element in root.iter("graphics"):
        if "passwd" in element.attrib:
            del element.attrib["passwd"]
    return etree.tostring(root, encoding="unicode")
