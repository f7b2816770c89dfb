"""Looks at hosts and sends probe VMs between them, for ``vmferry doctor``."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import libvirt

from tasks.hypervisor.address import HostAddress, migrate_uri, peer_uri, without_password
from tasks.hypervisor.connection import Connection, HostPool
from tasks.hypervisor.errors import message_of, translate
from tasks.hypervisor.facts import StaticFacts, read_facts
from tasks.hypervisor.probe import (
    EVENT_WAIT_S,
    Probe,
    arrival,
    classify,
    destroy_probe,
    probe_xml,
    read_clock,
    virt_type_of,
)
from tasks.hypervisor.transfer import migrate
from tasks.model.doctor import PROBE_PREFIX, Clock, HostLook, PairEnd, PairProbe, Problem
from tasks.model.errors import HypervisorError, OperatorMustFix
from tasks.model.host import HostFacts
from tasks.model.ports import TransferOrder
from tasks.parallel import make_thread

log = logging.getLogger(__name__)

T = TypeVar("T")

TRAVEL_TIMEOUT_S = 15.0
"""A way that swallows packets keeps libvirt's call for more than two minutes, and it cannot be aborted there."""
CLEAN_TIMEOUT_S = 5.0


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
                xml = probe_xml(probe, virt_type_of(facts), facts.arch)
                return None, self._ask(host, lambda connection: read_clock(connection, self._start(connection, xml)))
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
        with self._pools[destination.name].checkout() as there, arrival(there, probe) as prepared:
            call = _Call(lambda: self._migrate(probe, source, destination))
            if not call.returned.wait(TRAVEL_TIMEOUT_S):
                end = PairEnd.NO_PORT if prepared.is_set() else PairEnd.NO_PEER
                return end, f"no answer within {TRAVEL_TIMEOUT_S:g} s: packets are swallowed on the way"
            if call.error is None:
                return self._look_there(there, probe)
            if isinstance(call.error, libvirt.libvirtError):
                prepared.wait(EVENT_WAIT_S)
                return classify(call.error, prepared=prepared.is_set()), message_of(call.error)
            raise call.error

    def _migrate(self, probe: Probe, source: HostFacts, destination: HostFacts) -> None:
        """Start it and move it, by the code of a real transfer."""
        types = source.virt_types & destination.virt_types or source.virt_types
        xml = probe_xml(probe, virt_type_of(replace(source, virt_types=types)), source.arch)
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
        make_thread(self._run, "probe").start()

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
