"""Probe VMs: what a host's libvirt can do, and what it can do with its peers, by doing it.

A probe is transient, paused, without disk or network, and has a few MiB. It is the only kind of domain that vmferry
ever destroys; which one that is, the UUID made here and the name decide together.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import quoteattr

import libvirt
import libvirt_qemu

from tasks.hypervisor.connection import Connection
from tasks.hypervisor.errors import AUTH_CODES, CONNECTION_DOMAINS, translate
from tasks.model.doctor import PROBE_PREFIX, Clock, PairEnd
from tasks.model.host import HostFacts

log = logging.getLogger(__name__)

MEMORY_MIB = 8
EVENT_WAIT_S = 0.5
"""For an event of something that has happened."""


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


def virt_type_of(facts: HostFacts) -> str:
    """The type of the host's probes: hardware virtualisation where there is any."""
    return "kvm" if "kvm" in facts.virt_types else next(iter(sorted(facts.virt_types, reverse=True)), "qemu")


def read_clock(connection: Connection, domain: Any) -> Clock | None:
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
def arrival(connection: Connection, probe: Probe) -> Iterator[threading.Event]:
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


def classify(error: libvirt.libvirtError, *, prepared: bool) -> PairEnd:
    """Where it broke. Errors of the source's own connections have the domains of libvirt's remote driver."""
    if error.get_error_code() in AUTH_CODES and not prepared:
        return PairEnd.NO_PEER
    if error.get_error_domain() not in CONNECTION_DOMAINS:
        return PairEnd.REFUSED
    if not prepared:
        return PairEnd.NO_PEER
    return PairEnd.NO_PORT if error.get_error_code() == libvirt.VIR_ERR_SYSTEM_ERROR else PairEnd.REFUSED
