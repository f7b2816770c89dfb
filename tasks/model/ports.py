"""What the steps need from the outside, as Protocols: the real adapters and the fakes pass the same contract tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tasks.model.disks import ChunkOrder, DiskSize, ImagePiece, Volume, VolumeOrder
from tasks.model.domain import DomainView, JobStats, Mark, Snapshot
from tasks.model.host import HostFacts, Pool
from tasks.model.networks import NetworkPort
from tasks.model.pools import PoolPort


@dataclass(frozen=True, slots=True)
class TransferOrder:
    """Everything a live transfer is told; the adapter turns it into libvirt's flags and typed parameters."""

    uuid: str
    source: str
    destination: str
    destination_xml: str
    persistent_xml: str
    bandwidth_mib_s: int = 0
    """0: no limit."""
    max_downtime_ms: int = 0
    """0: QEMU's default."""
    auto_converge: bool = False
    post_copy: bool = False
    """Make a switch to post-copy possible; it happens only when it is asked for."""
    disks: tuple[str, ...] = ()
    """Guest-side names of the disks that are copied into volumes that exist on the destination; exactly these."""
    incremental: bool = False
    """Of these disks only the top file is copied: the volumes have the same files below them as on the source."""
    paused: bool = False
    """Keep the guest paused on the destination."""
    live: bool = True
    """The guest runs while its memory is sent; else it is paused first, and goes on at the destination."""


class Hypervisor(PoolPort, NetworkPort, Protocol):
    """Named calls on the inventory's hosts. ``host`` is always an inventory name.

    Every call raises ``HostUnreachable`` when there is no connection within the connect timeout, and otherwise one of
    the other ``HypervisorError`` classes. Domains are named by UUID wherever something is changed.
    """

    def find_domain(self, host: str, vm: str) -> DomainView | None:
        """Look a domain up by UUID or by name; None when the host does not have it. Includes job statistics."""

    def list_domains(self, host: str) -> Sequence[DomainView]:
        """All domains of a host, active or not (without marks and job statistics)."""

    def fetch_facts(self, host: str, *, virt_type: str = "", arch: str = "", emulator: str = "") -> HostFacts:
        """One look at a host; machines are those of the given type, architecture and emulator."""

    def compare_cpu(
        self, host: str, cpu_xml: str, *, virt_type: str = "", arch: str = "", emulator: str = "", machine: str = ""
    ) -> bool | None:
        """Whether the host's hypervisor can provide a definition's CPU element; None when libvirt cannot tell."""

    def fetch_hostname(self, host: str) -> str:
        """What the host's libvirt calls its host."""

    def fetch_xml(
        self, host: str, uuid: str, *, inactive: bool = False, secure: bool = False, migratable: bool = False
    ) -> str:
        """The domain's XML. ``secure`` includes passwords, and so does ``migratable``: never store or log what it
        returns."""

    def file_exists(self, host: str, path: str) -> bool | None:
        """Whether libvirt shows the file as a volume of an active pool; None when no pool covers its directory."""

    def fetch_disk_sizes(self, host: str, uuid: str, targets: Sequence[str]) -> Mapping[str, DiskSize]:
        """Sizes of disks by their guest-side names; a disk that the hypervisor cannot measure is left out."""

    def refresh_pool(self, host: str, pool: str) -> Pool:
        """Read a pool's directory and free space anew. Raises ``OperatorMustFix``: ``NO_STORAGE_POOL``,
        ``POOL_INACTIVE``."""

    def find_volume(self, host: str, pool: str, name: str) -> Volume | None:
        """Look a volume up by name, in an active pool; None when the pool does not have it now."""

    def find_volume_at(self, host: str, path: str) -> Volume | None:
        """The file as a volume of an active pool, read anew; None when no active pool shows it. Of a device that was
        named by one of its other names, it has the path by which the pool shows it."""

    def copy_chunk(self, order: ChunkOrder, tick: Callable[[int], None]) -> str:
        """Copy one piece of a file into a volume of another host, through this process; returns its checksum.

        ``tick`` is told how many bytes were passed on, and may raise to end it."""

    def read_piece(self, host: str, path: str, offset: int, length: int) -> bytes:
        """A small piece of a file, which must not end after the file does, as one who reads it sees it."""

    def write_zeros(self, host: str, path: str, offset: int, length: int) -> None:
        """Zeros instead of a small piece of a volume."""

    def find_users(self, host: str, value: str) -> Sequence[str]:
        """Names of the host's domains whose live or inactive definition has this value: a file, a device, the address
        of a network card. A file is found by the pool and volume that it is, too, and a device by any name by which the
        host's pools know it; a file by links in its path is not."""

    def resize_disk(self, host: str, uuid: str, target: str, path: str, capacity_bytes: int) -> None:
        """Grow a domain's disk, which is a volume: through its hypervisor when it is active. Never shrinks."""

    def hash_chunk(self, host: str, path: str, offset: int, length: int, tick: Callable[[int], None]) -> str:
        """The checksum of one piece of a file, read from the host; equal for equal contents, whatever is a hole."""

    def hash_pieces(self, host: str, path: str, pieces: Sequence[ImagePiece], tick: Callable[[int], None]) -> str:
        """The checksum of what a guest sees of a file's pieces, one after the other; equal for equal contents, however
        and wherever these are stored. ``tick`` is told how many bytes were read, and may raise to end it."""

    def create_volume(self, host: str, order: VolumeOrder) -> Volume:
        """Make a sparse, empty volume. Never uses an existing one: raises ``OperatorMustFix`` (``VOLUME_EXISTS``)."""

    def delete_volume(self, host: str, pool: str, name: str) -> None:
        """Delete a volume; no error when there is none."""

    def delete_file(self, host: str, path: str) -> None:
        """Delete the volume at this path, whatever its pool; no error when no active pool shows it."""

    def find_overlays(self, host: str, path: str) -> Sequence[str]:
        """Paths of all volumes of active pools that have this file directly below them."""

    def fetch_job(self, host: str, uuid: str) -> JobStats:
        """Statistics of the running job, ``NO_JOB`` when there is none or no such domain."""

    def fetch_completed_job(self, host: str, uuid: str) -> JobStats | None:
        """Statistics of the last finished job, kept for the next reader; None when libvirt has none."""

    def set_autostart(self, host: str, uuid: str, *, enabled: bool) -> None:
        """Set whether the host starts the domain at boot."""

    def write_mark(self, host: str, uuid: str, mark: Mark) -> None:
        """Write vmferry's mark into the domain's metadata, live and persistent as far as it is either."""

    def remove_mark(self, host: str, uuid: str) -> None:
        """Remove the mark; no error when there is none."""

    def update_drive(self, host: str, uuid: str, drive: str, *, live: bool) -> None:
        """Change what is in a CD-ROM or floppy drive, in the running VM or in its definition; ``drive`` is the
        drive's element as it shall be. A guest that holds its medium is not forced."""

    def define(self, host: str, xml: str) -> None:
        """Define a domain. Never overwrites: raises ``OperatorMustFix`` (``DOMAIN_EXISTS``) when the name or UUID is
        taken by a domain that does not bear the mark in ``xml``."""

    def undefine(self, host: str, uuid: str, *, snapshots: bool = False) -> None:
        """Remove an inactive definition, keeping its disks and NVRAM; refuses (``DOMAIN_ACTIVE``) when it is active,
        and (``HAS_SNAPSHOTS``) when it has any, unless what is known of them shall go with it. No error when there is
        none."""

    def fetch_snapshots(self, host: str, uuid: str) -> Sequence[Snapshot]:
        """What libvirt knows of a domain's snapshots, parents before children; none when there is no such domain."""

    def redefine_snapshot(self, host: str, uuid: str, snapshot: Snapshot) -> None:
        """Make a snapshot known, whose data is in the images already."""

    def transfer(self, order: TransferOrder, begin: Callable[[], None] = ...) -> None:
        """Migrate live, peer to peer; blocks until libvirt's call returns, on a connection of its own. The call's
        outcome is never the migration's: read both hosts.

        ``begin`` is called when all is prepared, right before what cannot be taken back, and may raise to leave it."""

    def set_max_downtime(self, host: str, uuid: str, downtime_ms: int) -> bool:
        """Set the pause QEMU may plan for, milliseconds; False when no migration runs (yet)."""

    def set_bandwidth(self, host: str, uuid: str, mib_s: int, disks: Sequence[str] = ()) -> bool:
        """Change the limit of the running migration, MiB/s: of its memory, and of those of the mirrored disks that are
        not done, who share it. False when it is not in force: no migration runs, or not all of it takes the change."""

    def start_post_copy(self, host: str, uuid: str) -> bool:
        """Let the guest run on the destination now, and fetch what is missing from the source: there is no way back.
        False when no migration's memory is on its way (yet). Raises ``OperatorMustFix`` when the migration was not
        started with ``post_copy``."""

    def break_post_copy(self, host: str, uuid: str) -> None:
        """On the source: cut a post-copy's own connection, so that it can be resumed; the guest stays where it is.
        Nothing to do when there is no post-copy; raises when it is cut already."""

    def resume_post_copy(self, order: TransferOrder) -> None:
        """Go on with a post-copy whose connection was lost; blocks as ``transfer`` does. Needs no definitions.

        Raises ``OperatorMustFix`` (``OPERATION_INVALID``) when there is none, or the hypervisor believes that it goes
        on."""

    def abort_job(self, host: str, uuid: str) -> None:
        """Abort the running migration job on the source; no error when there is none."""

    def start_paused(self, host: str, xml: str) -> None:
        """Start, paused, a domain that is defined on the host and shut off: with this definition, while its own stays
        as it is. Raises ``OperatorMustFix``: ``NO_DOMAIN``, ``OPERATION_INVALID`` when it is active."""

    def end_paused(self, host: str, uuid: str, mark: Mark) -> None:
        """End (destroy) an instance that was started with this mark, is paused, and of which no CPU has ever run and
        no disk was read or written by the guest: all of that is looked at right before. Raises ``OperatorMustFix``
        (``NOT_OURS_TO_END``) when it is another one. Nothing to do when the domain is not active."""

    def save(self, host: str, uuid: str) -> None:
        """Save a domain's memory where libvirt keeps it for the next start (managed save), which ends it; nothing to
        do when it is not active."""

    def remove_save(self, host: str, uuid: str) -> None:
        """Remove the managed save image; no error when there is none, or no domain."""

    def start_saved(self, host: str, uuid: str, *, paused: bool) -> None:
        """Start a domain from its managed save image."""

    def fetch_saved_xml(self, host: str, path: str) -> str:
        """The definition in an image of saved memory, with passwords: never store or log it."""

    def restore(self, host: str, path: str, xml: str) -> None:
        """Start a domain, paused, from an image of saved memory, with another definition of the same hardware."""

    def find_pool_at(self, host: str, directory: str) -> str | None:
        """The name of an active pool whose directory this is."""

    def open_window(self, host: str, name: str, directory: str, *, build: bool = False) -> None:
        """Make a transient pool of a directory, which is made as well when ``build``; nothing to do when there is a
        pool of this name."""

    def close_window(self, host: str, name: str) -> None:
        """End a transient pool; its directory stays as it is. No error when there is none."""

    def shut_down(self, host: str, uuid: str) -> None:
        """Ask a guest to shut down, by its agent or the power button; returns before it has done so, and it may never.
        Nothing to do when it is not active."""

    def start(self, host: str, uuid: str) -> None:
        """Boot a domain; nothing to do when it is active."""

    def ping_agent(self, host: str, uuid: str, timeout_s: int) -> bool:
        """Whether a guest agent answers within so many seconds; False when the domain has none, or does not run."""

    def suspend(self, host: str, uuid: str) -> None:
        """Pause a running domain; nothing to do when it is paused. The job of a migration goes on, and the destination
        lets the domain run when it has arrived."""

    def resume(self, host: str, uuid: str) -> None:
        """Let a paused domain run."""

    def close(self) -> None:
        """Close all connections."""
