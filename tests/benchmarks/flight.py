"""The memory of one steps worker with many transfers in flight."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt

from tasks.model.run import State
from tests.benchmarks.rig import Rig
from tests.lab import Guest, Lab
from tests.lab.shell import LabError, until

RING = {"alpha": "beta", "beta": "gamma", "gamma": "alpha"}
"""Each host sends a third: a peer-to-peer migration occupies one of the source's ``max_workers`` (20) to its end."""
BANDWIDTH_MIB_S = 1
"""Limit of each transfer, so that the first is still under way when the last begins."""
RUNNING = (libvirt.VIR_DOMAIN_JOB_BOUNDED, libvirt.VIR_DOMAIN_JOB_UNBOUNDED)
FILL_MIB = 40
FLIGHT_TIMEOUT_S = 60.0
SAMPLES = 10
"""Looks half a second apart (the period of the statistics) once as many as asked for are in flight."""


@dataclass(frozen=True, slots=True)
class Flight:
    """What was seen."""

    wanted: int
    in_flight: int
    """Outgoing migrations under way right before ``resident_mib`` was read, as the hosts' libvirt says."""
    idle_mib: float
    """Resident before the first transfer."""
    resident_mib: float
    """The most that was resident while the most transfers were in flight."""
    threads: int


def make_guests(lab: Lab, count: int, stack: ExitStack) -> list[Guest]:
    """Running guests, spread over the ring, each with memory that takes a while to send."""
    guests = []
    for number in range(count):
        host = list(RING)[number % len(RING)]
        options: dict[str, Any] = {"memory_mib": 112, "fill_mib": FILL_MIB, "tick_ms": 1000}
        guests.append(lab.guest(f"flight-{number:02}", host, disk=None, network=False, **options))
        stack.callback(guests[-1].remove)
        if number % 2:
            guests[-1].wait_ticking()
    for guest in guests:
        wait_filled(guest)
    return guests


def wait_filled(guest: Guest) -> None:
    """Wait until its memory is as asked for."""
    console = guest.console(guest.host)
    until(lambda: b"filled" in console.read_bytes(), 60, f"{guest.name} does not fill its memory")


def measure_flight(rig: Rig, guests: list[Guest]) -> Flight:
    """Submit all at once and look until all are in flight, or as many as ever will be."""
    idle = resident_mib(rig.steps.pid)
    ids = [rig.client.submit({"vm": guest.name, "destination": RING[guest.host]}).id for guest in guests]
    best, samples, deadline = (0, 0.0, 0), 0, time.monotonic() + FLIGHT_TIMEOUT_S
    while samples < SAMPLES and time.monotonic() < deadline:
        records = [rig.client.show(run_id) for run_id in ids]
        flying = sum(outgoing(rig.lab, host) for host in RING)
        best = max(best, (flying, resident_mib(rig.steps.pid), threads_of(rig.steps.pid)))
        samples += flying == len(guests)
        if flying == 0 and all(record.is_terminal for record in records):
            break
        time.sleep(0.5)
    _check_none_failed(rig, ids)
    return Flight(len(guests), best[0], idle, best[1], best[2])


def outgoing(lab: Lab, host: str) -> int:
    """Migrations that a host is sending, seen without the product's code."""
    with closing(lab.host(host).connect()) as conn:
        return sum(_is_sent(domain) for domain in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE))


def _is_sent(domain: libvirt.virDomain) -> bool:
    try:
        stats = domain.jobStats()
    except libvirt.libvirtError:
        return False  # it has just arrived, or has just left
    return stats.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT and stats["type"] in RUNNING


def _check_none_failed(rig: Rig, ids: list[str]) -> None:
    failed = [r for r in map(rig.client.show, ids) if r.error is not None or r.state is State.REFUSED]
    if failed:
        raise LabError(f"{len(failed)} of {len(ids)} failed, the first: {failed[0].error}")


def resident_mib(pid: int) -> float:
    """VmRSS of a process."""
    return _status(pid, "VmRSS") / 1024


def threads_of(pid: int) -> int:
    """Threads of a process."""
    return _status(pid, "Threads")


def _status(pid: int, key: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])
