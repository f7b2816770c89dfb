"""Everything a preflight rule may know; gathered before, so that rules are pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.model.cordon import Cordon
from tasks.model.disks import DeviceFacts, DiskSize, FileCopy, ImageFile, Volume
from tasks.model.domain import Disk, Domain, DomainView, Interface, Mark, Resource
from tasks.model.finding import Finding
from tasks.model.host import HostFacts
from tasks.model.pools import Mount, PoolAction
from tasks.model.remedies import NO_REMEDIES, Remedied
from tasks.model.request import DataPath, Method, MigrationRequest, Storage


@dataclass(frozen=True, slots=True)
class Situation:
    """One VM, the two hosts, and how it shall go."""

    request: MigrationRequest
    method: Method
    storage: Storage
    data_path: DataPath | None = field(default=None, kw_only=True)
    """By which way the contents of copied disks go; None before that is known, and when none is copied."""
    domain: Domain
    """The live definition; the only one when the VM is shut off."""
    inactive: Domain | None
    """What the VM would start with next time; None when it is transient."""
    view: DomainView
    """The VM on the source."""
    on_destination: tuple[DomainView, ...]
    """Domains of the destination with the same name or the same UUID."""
    elsewhere: tuple[DomainView, ...]
    """The same, on hosts that are neither source nor destination."""
    source: HostFacts
    destination: HostFacts
    media: Mapping[str, bool | None] = field(default_factory=dict)
    """Path -> whether the destination shows the file; None or absent: unknown."""
    mac_users: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Address of a network card -> other VMs of the destination that have it."""
    sizes: Mapping[str, DiskSize] = field(default_factory=dict)
    """Guest-side name -> size, of the disks that can be measured; read when disks are copied."""
    chains: Mapping[str, tuple[ImageFile, ...]] = field(default_factory=dict)
    """Guest-side name -> files of the source, top first, of the disks that are copied and that a pool shows."""
    bases: Mapping[str, Volume] = field(default_factory=dict)
    """Path of a file below a disk -> what the destination has there."""
    devices: Mapping[str, DeviceFacts] = field(default_factory=dict)
    """Guest-side name -> device of the destination that the disk shall be written to, of those that a pool shows."""
    mounts: tuple[Mount, ...] = ()
    """Network file systems that disks stay on; the destination's pools are shown as *prepare* will make them."""
    media_files: Mapping[str, Volume] = field(default_factory=dict)
    """Path -> file of the source, of the images in drives that the destination lacks."""
    files: tuple[FileCopy, ...] = ()
    """Files beside the disks that go along."""
    remedied: Remedied = NO_REMEDIES
    """What the remedies asked for do; the rest of the situation is as it is with that done."""
    notes: tuple[Finding, ...] = ()
    """What they say."""
    cpu_fits: bool | None = None
    """Whether the destination can provide the VM's CPU; None when nobody can say, or the CPU follows the host's."""
    post_copy: bool = False
    """Its policy may switch it to post-copy."""
    cordon: Cordon | None = None
    """Why the destination takes no VMs."""
    mark: Mark | None = None
    """What objects made by this migration are marked with; None for a dry run."""
    run_id: str = ""
    """The migration's id, to recognise its own mark; empty for a dry run."""

    @property
    def live(self) -> bool:
        """Whether the VM goes with its memory."""
        return self.method.streams_memory

    @property
    def carries_memory(self) -> bool:
        """Whether the VM is active before and after."""
        return self.method.carries_memory

    @property
    def mirrored_off(self) -> bool:
        """Whether it is shut off, and started paused so that its disks can be mirrored."""
        return self.method is Method.OFFLINE and self.data_path is DataPath.HOSTS

    @property
    def migrates(self) -> bool:
        """Whether libvirt migrates it, and refuses what it cannot migrate: with its memory, or started paused."""
        return self.live or self.mirrored_off

    @property
    def starts(self) -> bool:
        """Whether a hypervisor is started for it on the destination: with its memory, paused, or booted again."""
        return self.carries_memory or self.mirrored_off or self.view.active

    @property
    def planned_pools(self) -> frozenset[str]:
        """Pools of the destination that are not there, or not active, before *prepare* sees to it."""
        return frozenset(m.destination_pool for m in self.mounts if m.action is not PoolAction.NONE)

    @property
    def definitions(self) -> tuple[Domain, ...]:
        """The live definition, and the inactive one where there is one: both must work on the destination."""
        return (self.domain,) if self.inactive is None else (self.domain, self.inactive)

    @property
    def disks(self) -> tuple[Disk, ...]:
        """Disks of both definitions, each once; the live one wins since it knows the backing chain."""
        found: dict[tuple[str, str | None], Disk] = {}
        for definition in self.definitions:
            for disk in definition.disks:
                found.setdefault((disk.target, disk.source), disk)
        return tuple(found.values())

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """Network cards of both definitions that differ in what they are connected to."""
        return tuple({(i.type, i.source): i for definition in self.definitions for i in definition.interfaces}.values())

    def resources(self, *kinds: str) -> tuple[Resource, ...]:
        """Resources of these kinds in both definitions, each value once."""
        return tuple(
            {
                (r.kind, r.value): r
                for definition in reversed(self.definitions)
                for r in definition.resources
                if r.known and r.kind in kinds
            }.values()
        )
