"""One look at a host: what it is, what it has, what it could run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import libvirt
from lxml import etree

from tasks.hypervisor.capabilities import parse_guests, parse_nodes, parse_page_sizes, parse_security_models, parse_tpm
from tasks.hypervisor.connection import Connection, is_alive
from tasks.hypervisor.named import read_nwfilters, read_secrets
from tasks.hypervisor.networks import parse_network
from tasks.hypervisor.storage import read_pools
from tasks.model.host import HostFacts, Network

MIB_KIB = 1024
UNSUPPORTED = frozenset({libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_OPERATION_UNSUPPORTED})
"""The host's libvirt has no driver for this."""


class StaticFacts:
    """What does not change while a host's daemon runs: its capabilities, which cost tens of milliseconds to ask for.

    Kept for one generation of the host's connections, as a restarted daemon may be a newer one. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._generation = -1
        self._values: dict[str, Any] = {}

    def get(self, key: str, generation: int, ask: Callable[[], Any]) -> Any:
        """The value, asked for once a generation."""
        with self._lock:
            if generation != self._generation:
                self._generation, self._values = generation, {}
            if key in self._values:
                return self._values[key]
        value = ask()
        with self._lock:
            if generation == self._generation:
                self._values[key] = value
        return value


def read_hostname(connection: Connection, static: StaticFacts, generation: int) -> str:
    """See the port."""
    return str(static.get("hostname", generation, connection.getHostname))


def read_facts(
    connection: Connection,
    host: str,
    static: StaticFacts,
    generation: int,
    *,
    virt_type: str,
    arch: str,
    emulator: str,
) -> HostFacts:
    """Read everything that ``HostFacts`` has."""
    root = static.get("capabilities", generation, lambda: _parse(connection.getCapabilities()))
    host_arch = root.findtext("host/cpu/arch") or ""
    guests = parse_guests(root, arch or host_arch)
    emulators = guests.emulators
    if emulator and emulator not in emulators:
        key = f"emulator {emulator} {arch or host_arch} {virt_type}"
        if static.get(key, generation, lambda: _runs(connection, emulator, arch or host_arch, virt_type)):
            emulators = emulators | {emulator}
    info = connection.getInfo()
    memory_total_kib, memory_free_kib = _memory_kib(connection, info[1] * MIB_KIB)
    cpu = root.find("host/cpu")
    return HostFacts(
        name=host,
        hostname=read_hostname(connection, static, generation),
        uuid=root.findtext("host/uuid") or "",
        libvirt_version=static.get("libvirt", generation, connection.getLibVersion),
        hypervisor_version=static.get("hypervisor", generation, connection.getVersion),
        arch=host_arch,
        cpus=info[2],
        memory_total_kib=memory_total_kib,
        memory_free_kib=memory_free_kib,
        pools=read_pools(connection),
        networks=read_networks(connection),
        interfaces=read_interfaces(connection),
        nwfilters=read_nwfilters(connection),
        secrets=read_secrets(connection),
        machines=guests.machines_of(virt_type),
        machine_aliases=guests.aliases_of(virt_type),
        virt_types=guests.virt_types,
        emulators=emulators,
        cpu_xml="" if cpu is None else etree.tostring(cpu, encoding="unicode"),
        numa_nodes=parse_nodes(root),
        free_hugepages=_free_hugepages(connection, root),
        security_models=parse_security_models(root),
        tpm_versions=static.get(
            f"tpm {emulator} {arch} {virt_type}",
            generation,
            lambda: _tpm_versions(connection, emulator, arch or host_arch, virt_type),
        ),
    )


def _free_hugepages(connection: Connection, capabilities: etree._Element) -> dict[int, int] | None:
    nodes, sizes = parse_nodes(capabilities), parse_page_sizes(capabilities)
    if not nodes:
        return None
    found = dict.fromkeys(sizes, 0)
    for size in sizes:
        try:
            free = connection.getFreePages([size], min(nodes), max(nodes) - min(nodes) + 1, 0)
        except libvirt.libvirtError:
            if not is_alive(connection):
                raise
            continue  # the CPUs have pages of this size, the kernel does not
        found[size] = sum(int(count) for counts in free.values() for count in counts.values())
    return found


def _tpm_versions(connection: Connection, emulator: str, arch: str, virt_type: str) -> frozenset[str] | None:
    try:
        xml = connection.getDomainCapabilities(emulator or None, arch or None, None, virt_type or None)
    except libvirt.libvirtError:
        if not is_alive(connection):
            raise
        return None
    return parse_tpm(_parse(xml))


def compare_cpu(connection: Connection, cpu_xml: str, emulator: str, arch: str, machine: str, kind: str) -> bool | None:
    """See the port."""
    asked = (emulator or None, arch or None, machine or None, kind or None)
    try:
        result = connection.compareHypervisorCPU(*asked, cpu_xml, 0)
    except libvirt.libvirtError:
        if not is_alive(connection):
            raise
        return None
    return int(result) in (libvirt.VIR_CPU_COMPARE_IDENTICAL, libvirt.VIR_CPU_COMPARE_SUPERSET)


def read_networks(connection: Connection) -> tuple[Network, ...]:
    """All libvirt networks, active or not; empty when the host has no network driver."""
    try:
        active = connection.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)
        inactive = connection.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_INACTIVE)
    except libvirt.libvirtError as error:
        if error.get_error_code() in UNSUPPORTED:
            return ()
        raise
    networks = [_network(n, active=True) for n in active] + [_network(n, active=False) for n in inactive]
    return tuple(sorted((n for n in networks if n is not None), key=lambda network: network.name))


def read_interfaces(connection: Connection) -> frozenset[str]:
    """Names of the host's network interfaces; empty when libvirt cannot say.

    The interface driver is optional in libvirt's builds; node devices are the second best source.
    """
    try:
        return frozenset(interface.name() for interface in connection.listAllInterfaces(0))
    except libvirt.libvirtError as error:
        if error.get_error_code() not in UNSUPPORTED:
            raise
    try:
        devices = connection.listAllDevices(libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_NET)
        names = (_parse(device.XMLDesc()).findtext("capability/interface") for device in devices)
        return frozenset(name for name in names if name)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in UNSUPPORTED:
            raise
        return frozenset()


def _memory_kib(connection: Connection, node_total_kib: int) -> tuple[int, int]:
    """Total, and what a new guest could take: free plus reclaimable.

    The statistics' total is preferred: virNodeGetInfo was seen to report half of a machine's memory. A driver without
    memory statistics still knows its free memory.
    """
    try:
        stats = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in UNSUPPORTED:
            raise
        return node_total_kib, min(node_total_kib, int(connection.getFreeMemory()) // 1024)
    total = int(stats.get("total", node_total_kib))
    return total, min(total, sum(int(stats.get(key, 0)) for key in ("free", "buffers", "cached")))


def _network(network: Any, *, active: bool) -> Network | None:
    try:
        return parse_network(network.XMLDesc(), active=active)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_NETWORK:
            return None  # gone since the list was made
        raise


def _runs(connection: Connection, emulator: str, arch: str, virt_type: str) -> bool:
    """Whether the host can run this emulator, which is none of its defaults."""
    try:
        connection.getDomainCapabilities(emulator, arch or None, None, virt_type or None)
    except libvirt.libvirtError:
        if not is_alive(connection):
            raise
        return False
    return True


def _parse(xml: str) -> etree._Element:
    return etree.fromstring(xml.encode(), etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True))
