"""A host as libvirt shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Pool:
    """A storage pool."""

    name: str
    type: str
    active: bool
    target: str | None
    """Directory in which its volumes appear."""
    source: str = ""
    """For network pools ``host:directory``; the same on two hosts when it is the same export."""
    capacity_bytes: int = 0
    available_bytes: int = 0
    options: tuple[str, ...] = ()
    """Mount options that its definition names, for example ``soft``."""


@dataclass(frozen=True, slots=True)
class Network:
    """A libvirt network."""

    name: str
    active: bool
    bridge: str | None = None
    mode: str = ""
    """How its VMs get out: nat, route, bridge, …; empty when they do not."""
    ranges: tuple[str, ...] = ()
    """Its addresses, as ``address/prefix``."""
    devices: tuple[str, ...] = ()
    """Interfaces of the host that it goes out by."""
    port_groups: frozenset[str] = frozenset()
    """Names under which cards may be treated in their own way, with a VLAN for example."""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What preflight needs to know about one host, read in one look."""

    name: str
    """Inventory name."""
    hostname: str
    uuid: str
    libvirt_version: int
    """major * 1,000,000 + minor * 1,000 + release."""
    hypervisor_version: int
    arch: str
    cpus: int
    memory_total_kib: int
    memory_free_kib: int
    """What a new guest could take: free plus reclaimable."""
    pools: tuple[Pool, ...] = ()
    networks: tuple[Network, ...] = ()
    interfaces: frozenset[str] = frozenset()
    """Names of host interfaces and bridges, as far as libvirt shows them; empty when it cannot."""
    nwfilters: frozenset[str] | None = None
    """Names of its network filters; None when it does not say."""
    secrets: Mapping[str, bool] | None = None
    """UUID and usage of its secrets -> whether there is a value; None when it does not say."""
    machines: frozenset[str] = frozenset()
    """Machine types that the emulator offers, for the domain's architecture and type."""
    machine_aliases: Mapping[str, str] = field(default_factory=dict)
    """Names that stand for one of them, with which one that is."""
    virt_types: frozenset[str] = frozenset()
    emulators: frozenset[str] = frozenset()
    cpu_xml: str = ""
    """Host CPU element of the capabilities."""
    numa_nodes: frozenset[int] | None = None
    """Its NUMA nodes; None when it does not say."""
    free_hugepages: Mapping[int, int] | None = None
    """Size in KiB -> huge pages of it that are free, of all nodes together; None when it does not say."""
    tpm_versions: frozenset[str] | None = None
    """Versions of emulated TPMs that it offers; None when it does not say."""
    security_models: frozenset[str] | None = None
    """Security drivers that its libvirt runs (``selinux``, ``apparmor``, ``dac``); None when it does not say."""


@dataclass(frozen=True, slots=True)
class HostStatus:
    """One row of ``vmferry hosts``."""

    name: str
    reachable: bool
    error: str = ""
    facts: HostFacts | None = None
    running_vms: int = 0
    defined_vms: int = 0
    outgoing: int | None = None
    """Migrations leaving it now; None when the queue cannot be asked."""
    incoming: int | None = None
    max_outgoing: int = 0
    max_incoming: int = 0
    cordon: str = ""
    """Why it takes no VMs, in words; empty when it does."""
