"""A VM as libvirt shows it: its state on one host, and what its definition names."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class DomainState(StrEnum):
    """libvirt's virDomainState."""

    NOSTATE = "nostate"
    RUNNING = "running"
    BLOCKED = "blocked"
    PAUSED = "paused"
    SHUTDOWN = "shutdown"
    SHUTOFF = "shutoff"
    CRASHED = "crashed"
    PMSUSPENDED = "pmsuspended"


ACTIVE_STATES = frozenset(
    {
        DomainState.RUNNING,
        DomainState.BLOCKED,
        DomainState.PAUSED,
        DomainState.SHUTDOWN,
        DomainState.PMSUSPENDED,
        DomainState.NOSTATE,
    }
)
"""States in which a hypervisor process exists (crashed may or may not have one: ``DomainView.active`` says)."""


@dataclass(frozen=True, slots=True)
class Mark:
    """vmferry's mark in a domain's metadata: which migration made or touched it."""

    id: str
    attempt: int
    fence: int


@dataclass(frozen=True, slots=True)
class JobStats:
    """libvirt's statistics of a job on a domain (virDomainGetJobStats); sizes in bytes, times in milliseconds."""

    active: bool
    """A job is running now."""
    is_migration: bool
    """It is an outgoing migration."""
    elapsed_ms: int = 0
    memory_total: int = 0
    memory_processed: int = 0
    memory_remaining: int = 0
    memory_bps: int = 0
    """Bytes per second."""
    memory_iteration: int = 0
    memory_dirty_rate: int = 0
    """Pages per second."""
    memory_page_size: int = 4096
    memory_postcopy_requests: int = 0
    disk_total: int = 0
    disk_processed: int = 0
    disk_remaining: int = 0
    disk_bps: int = 0
    downtime_ms: int | None = None

    @property
    def begun(self) -> bool:
        """Whether a migration sends anything yet: before, its hypervisor is only being prepared."""
        return bool(self.memory_total or self.disk_total)


NO_JOB = JobStats(active=False, is_migration=False)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What libvirt knows of a snapshot; its XML may hold passwords: never store or log it."""

    name: str
    current: bool
    xml: str


@dataclass(frozen=True, slots=True)
class DomainView:
    """One domain on one host at one moment."""

    host: str
    name: str
    uuid: str
    state: DomainState
    reason: int
    """libvirt's reason of the state (for example SHUTOFF/MIGRATED is 4, PAUSED/MIGRATION is 2)."""
    active: bool
    """A hypervisor process exists (virDomainIsActive)."""
    persistent: bool
    autostart: bool
    managed_save: bool
    memory_kib: int
    vcpus: int
    snapshots: int = 0
    """Snapshots that libvirt knows of; not counted in a listing."""
    external_snapshots: int = 0
    """Of these, those whose data is in files of their own."""
    checkpoints: int = 0
    """Checkpoints for incremental backups; not counted in a listing."""
    never_ran: bool = False
    """Paused, and its CPUs have done nothing since its hypervisor was started here; not looked at in a listing."""
    mark: Mark | None = None
    """Read from the inactive definition when persistent, else from the live one."""
    instance_mark: Mark | None = None
    """Of a VM that is paused: the mark that this instance of it was started with; not looked at in a listing."""
    job: JobStats = NO_JOB


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk, CD-ROM or floppy of a definition."""

    target: str
    """Guest-side name, for example ``vda``."""
    device: str
    """disk, cdrom, floppy or lun."""
    type: str
    """libvirt's source type: file, block, network, volume, dir, nvme, vhostuser, …"""
    source: str | None
    """Path, ``pool/volume``, or ``protocol:name``; None when there is no medium."""
    driver_format: str | None = None
    cache: str | None = None
    readonly: bool = False
    shareable: bool = False
    transient: bool = False
    startup_policy: str | None = None
    uncopyable: str | None = None
    """Something of its source that a plain copy would not carry along: encryption, slices, a data file."""
    backing: tuple[str, ...] = ()
    """Paths of the backing chain named in the XML, top first."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A network card."""

    type: str
    source: str | None
    """Name of the network, bridge or device."""
    mac: str | None = None
    model: str | None = None
    port_group: str | None = None
    """Group of the libvirt network that it belongs to."""


@dataclass(frozen=True, slots=True)
class Graphics:
    """A display server."""

    type: str
    listen: str | None = None
    socket: str | None = None


@dataclass(frozen=True, slots=True)
class Resource:
    """Something of the host that a definition names (what ``vmferry inspect`` prints)."""

    kind: str
    value: str
    xpath: str
    known: bool


@dataclass(frozen=True, slots=True)
class Domain:
    """What a definition says, parsed once; nothing in here is a secret."""

    name: str
    uuid: str | None
    virt_type: str
    """kvm, qemu, …"""
    memory_kib: int
    vcpus: int
    memory_source: str = field(default="", kw_only=True)
    """Where its memory is: ``anonymous``, ``memfd`` or ``file``; empty: the default."""
    machine: str | None
    arch: str | None
    emulator: str | None
    cpu_mode: str | None
    cpu_xml: str = field(default="", kw_only=True)
    """The definition's CPU element; empty when it has none."""
    nvram: str | None = None
    loader: str | None = None
    firmware: str | None = None
    """Kind of firmware that libvirt shall choose (``efi``)."""
    disks: tuple[Disk, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    graphics: tuple[Graphics, ...] = ()
    clock: str = ""
    """What the guest's clock starts from: utc, localtime, timezone, variable, absolute; empty when it does not say."""
    unbound_tsc: bool = False
    """The guest is promised a time stamp counter of constant rate (invtsc), and no rate is written down."""
    tpm: str = ""
    """Version of an emulated TPM (``2.0``, ``1.2``), which keeps state on the host; empty: there is none."""
    agent: bool = False
    """A guest agent is connected."""
    hostdevs: tuple[str, ...] = ()
    """Type of each host device passed through."""
    console_paths: tuple[str, ...] = ()
    """Files that serial ports, consoles and channels write to."""
    resources: tuple[Resource, ...] = ()
