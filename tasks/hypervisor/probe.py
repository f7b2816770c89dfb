"""Probe VMs: what a host's libvirt can do, and what it can do with its peers, by doing it.

A probe is transient, paused, without disk or network, and has a few MiB. It is the only kind of domain that vmferry
ever destroys; which one that is, the UUID made here and the name decide together.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from xml.sax.saxutils import quoteattr

import libvirt
import libvirt_qemu

from tasks.hypervisor.address import HostAddress, migrate_uri, peer_uri, without_password
from tasks.hypervisor.connection import Connection, HostPool
from tasks.hypervisor.errors import AUTH_CODES, CONNECTION_DOMAINS, message_of, translate
from tasks.hypervisor.facts import StaticFacts, read_facts
from tasks.hypervisor.transfer import migrate
from tasks.model.doctor import PROBE_PREFIX, Clock, HostLook, PairEnd, PairProbe, Problem
from tasks.model.errors import HypervisorError, OperatorMustFix
from tasks.model.host import HostFacts
from tasks.model.ports import TransferOrder

log = logging.getLogger(__name__)

T = TypeVar("T")

MEMORY_MIB = 8
TRAVEL_TIMEOUT_S = 15.0
"""A way that swallows packets keeps libvirt's call for more than two minutes, and it cannot be aborted there."""
EVENT_WAIT_S = 0.5
CLEAN_TIMEOUT_S = 5.0


@dataclass
class Probe:
    """One probe VM and the hosts on which it may be."""

    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    hosts: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """Begins with the prefix; libvirt wants it different on every host."""
        return f"{PROBE_PREFIX}{self.uuid[:8]}"


class NotAProbe(Exception):
    """A domain that is about to be destroyed is not the probe that it should be. Never expected."""


def probe_xml(probe: Probe, virt_type: str, arch: str) -> str:
    """The least that QEMU starts with: the machine type and the CPU are libvirt's defaults."""
    return (
        f"<domain type={quoteattr(virt_type)}><name>{probe.name}</name><uuid>{probe.uuid}</uuid>"
        f"<memory unit='MiB'>{MEMORY_MIB}</memory><vcpu>1</vcpu><os><type arch={quoteattr(arch)}>hvm</type></os>"
        "<devices><controller type='usb' model='none'/><memballoon model='none'/></devices></domain>"
    )


def destroy_probe(connection: Connection, probe: Probe) -> None:
    """Destroy the probe if the host has it, and never anything else.

    Raises:
        NotAProbe: the domain of this UUID is not a probe of that name.
        libvirt.libvirtError
    """
    try:
        domain = connection.lookupByUUIDString(probe.uuid)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return
        raise
    if domain.name() != probe.name or not probe.name.startswith(PROBE_PREFIX) or domain.isPersistent():
        raise NotAProbe(f"{probe.uuid} is {domain.name()}")
    with _no_domain_is_fine():
        domain.destroy()


@contextmanager
def _no_domain_is_fine() -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            raise


class Prober:
    """Looks at hosts and sends probes between them. Thread-safe. ``clean`` must be called at the end, whatever
    happened."""

    def __init__(self, hosts: Mapping[str, HostAddress], *, connect_timeout_s: float) -> None:
        self._addresses = dict(hosts)
        self._pools = {name: HostPool(name, address, connect_timeout_s) for name, address in hosts.items()}
        self._lock = threading.Lock()
        self._probes: dict[str, Probe] = {}
        self._stopping = False

    # -- looking --------------------------------------------------------------------------------------------------

    def look(self, host: str) -> HostLook:
        """The host, and what an earlier doctor left there. Never raises for what the host does."""
        address = self._addresses[host]
        seen = HostLook(host, without_password(address.uri), peer_problem=self._peer_problem(host))
        try:
            facts, leftovers = self._ask(host, lambda connection: _look(connection, host))
        except HypervisorError as error:
            return replace(seen, problem=Problem(error.code, error.message, error.hint))
        return replace(seen, facts=facts, leftovers=leftovers)

    def _peer_problem(self, host: str) -> Problem | None:
        try:
            peer_uri(host, self._addresses[host])
        except OperatorMustFix as error:
            return Problem(error.code, error.message, error.hint)
        return None

    def try_start(self, facts: HostFacts) -> tuple[Problem | None, Clock | None]:
        """Start a probe on the host, read the host's clock through it, and remove it."""
        host = facts.name
        try:
            with self._probe(host) as probe:
                xml = probe_xml(probe, _virt_type(facts), facts.arch)
                return None, self._ask(host, lambda connection: _read_clock(connection, self._start(connection, xml)))
        except HypervisorError as error:
            return Problem(error.code, error.message, error.hint), None

    # -- from host to host ----------------------------------------------------------------------------------------

    def travel(self, source: HostFacts, destination: HostFacts) -> PairProbe:
        """Send a probe from one host to the other, as a transfer sends a VM. Never raises for what the hosts do."""
        address = self._addresses[destination.name]
        uri, target = without_password(peer_uri(destination.name, address)), migrate_uri(address) or ""
        began = time.monotonic()
        try:
            with self._probe(source.name, destination.name) as probe:
                end, text = self._send(probe, source, destination)
        except HypervisorError as error:
            end, text = PairEnd.REFUSED, error.message
        return PairProbe(source.name, destination.name, end, time.monotonic() - began, text, uri, target)

    def _send(self, probe: Probe, source: HostFacts, destination: HostFacts) -> tuple[PairEnd, str]:
        with self._pools[destination.name].checkout() as there, _arrival(there, probe) as prepared:
            call = _Call(lambda: self._migrate(probe, source, destination))
            if not call.returned.wait(TRAVEL_TIMEOUT_S):
                end = PairEnd.NO_PORT if prepared.is_set() else PairEnd.NO_PEER
                return end, f"no answer within {TRAVEL_TIMEOUT_S:g} s: packets are swallowed on the way"
            if call.error is None:
                return self._look_there(there, probe)
            if isinstance(call.error, libvirt.libvirtError):
                prepared.wait(EVENT_WAIT_S)
                return _classify(call.error, prepared=prepared.is_set()), message_of(call.error)
            raise call.error

    def _migrate(self, probe: Probe, source: HostFacts, destination: HostFacts) -> None:
        """Start it and move it, by the code of a real transfer."""
        types = source.virt_types & destination.virt_types or source.virt_types
        xml = probe_xml(probe, _virt_type(replace(source, virt_types=types)), source.arch)
        with self._pools[source.name].checkout() as here:
            domain = self._start(here, xml)
            live = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE)
            order = TransferOrder(
                uuid=probe.uuid,
                source=source.name,
                destination=destination.name,
                destination_xml=live,
                persistent_xml=live,
                paused=True,
            )
            migrate(domain, order, self._addresses[destination.name])

    def _look_there(self, there: Connection, probe: Probe) -> tuple[PairEnd, str]:
        try:
            there.lookupByUUIDString(probe.uuid)
        except libvirt.libvirtError as error:
            return PairEnd.REFUSED, f"libvirt says that it moved, and it is not there: {message_of(error)}"
        return PairEnd.ARRIVED, ""

    def _start(self, connection: Connection, xml: str) -> Any:
        if self._stopping:
            raise OperatorMustFix("INTERRUPTED", "interrupted before the probe VM was started")
        return connection.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED)

    # -- removing -------------------------------------------------------------------------------------------------

    @contextmanager
    def _probe(self, *hosts: str) -> Iterator[Probe]:
        """A probe that is written down before it exists, and removed whatever happens."""
        probe = Probe(hosts=set(hosts))
        with self._lock:
            self._probes[probe.uuid] = probe
        try:
            yield probe
        finally:
            self._remove(probe)

    def clean(self) -> None:
        """Start no more probes, and remove those that are left; takes a few seconds at most."""
        self._stopping = True
        with self._lock:
            left = list(self._probes.values())
        for probe in left:
            self._remove(probe)

    def _remove(self, probe: Probe) -> None:
        """On all its hosts at once. One that does not answer in time is left: the next doctor finds it there."""
        with self._lock:
            if self._probes.pop(probe.uuid, None) is None:
                return
        removals = [_Call(lambda host=host: self._destroy(host, probe)) for host in sorted(probe.hosts)]  # type: ignore[misc]
        until = time.monotonic() + CLEAN_TIMEOUT_S
        for removal in removals:
            if not removal.returned.wait(max(0.0, until - time.monotonic())) or removal.error is not None:
                log.debug("%s not removed: %s", probe.name, removal.error)

    def _destroy(self, host: str, probe: Probe) -> None:
        with self._pools[host].checkout() as connection:
            destroy_probe(connection, probe)

    def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            pool.close()

    def _ask(self, host: str, ask: Callable[[Connection], T]) -> T:
        with self._pools[host].checkout() as connection:
            try:
                return ask(connection)
            except libvirt.libvirtError as error:
                raise translate(error, host, lost=not connection.isAlive(), effect=False) from None


class _Call:
    """A call in a daemon thread, which its caller need not wait for."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.returned = threading.Event()
        self.error: Exception | None = None
        self._call = call
        threading.Thread(target=self._run, name="probe", daemon=True).start()

    def _run(self) -> None:
        try:
            self._call()
        except Exception as error:  # noqa: BLE001 - looked at by whoever waits
            self.error = error
        finally:
            self.returned.set()


def _look(connection: Connection, host: str) -> tuple[HostFacts, tuple[str, ...]]:
    facts = read_facts(connection, host, StaticFacts(), 0, virt_type="", arch="", emulator="")
    names = [domain.name() for domain in connection.listAllDomains()]
    return facts, tuple(sorted(name for name in names if name.startswith(PROBE_PREFIX)))


def _virt_type(facts: HostFacts) -> str:
    """Hardware virtualisation where there is any."""
    return "kvm" if "kvm" in facts.virt_types else next(iter(sorted(facts.virt_types, reverse=True)), "qemu")


def _read_clock(connection: Connection, domain: Any) -> Clock | None:
    """The host's clock, from the time stamp of an event of QEMU's; None when libvirt does not pass it on.

    libvirt has no call for a host's time. Resetting a paused VM makes QEMU report so at once.
    """
    stamps: list[float] = []
    arrived = threading.Event()

    def note(_connection: object, _domain: object, _event: str, seconds: int, micros: int, *_: object) -> None:
        stamps.append(seconds + micros / 1e6)
        arrived.set()

    try:
        callback = libvirt_qemu.qemuMonitorEventRegister(connection, domain, "RESET", note, None, 0)
        before = time.time()
        domain.reset(0)
        arrived.wait(EVENT_WAIT_S)
        after = time.time()
        libvirt_qemu.qemuMonitorEventDeregister(connection, callback)
    except libvirt.libvirtError as error:
        log.debug("no clock: %s", error)
        return None
    return Clock(stamps[0] - (before + after) / 2, (after - before) / 2) if stamps else None


@contextmanager
def _arrival(connection: Connection, probe: Probe) -> Iterator[threading.Event]:
    """Set once the destination has started the probe's QEMU, which then waits for data on its migration port."""
    prepared = threading.Event()

    def note(_connection: object, domain: Any, event: int, *_: object) -> None:
        if event == libvirt.VIR_DOMAIN_EVENT_STARTED and domain.UUIDString() == probe.uuid:
            prepared.set()

    try:
        callback = connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, note, None)
    except libvirt.libvirtError as error:
        raise translate(error, "destination", lost=not connection.isAlive(), effect=False) from None
    try:
        yield prepared
    finally:
        with suppress(libvirt.libvirtError):
            connection.domainEventDeregisterAny(callback)


def _classify(error: libvirt.libvirtError, *, prepared: bool) -> PairEnd:
    """Where it broke. Errors of the source's own connections have the domains of libvirt's remote driver."""
    if error.get_error_code() in AUTH_CODES and not prepared:
        return PairEnd.NO_PEER
    if error.get_error_domain() not in CONNECTION_DOMAINS:
        return PairEnd.REFUSED
    if not prepared:
        return PairEnd.NO_PEER
    return PairEnd.NO_PORT if error.get_error_code() == libvirt.VIR_ERR_SYSTEM_ERROR else PairEnd.REFUSED
