"""One guest that goes to and fro, by vmferry and by virsh in turn: what each costs, and what the guest sees of it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from urllib.parse import urlsplit

import libvirt

from tasks.hypervisor.address import HostAddress, migrate_uri
from tasks.model.run import RunRecord, State
from tests.benchmarks.rig import Rig
from tests.lab import Guest, GuestWatch
from tests.lab.shell import LabError, until

COMPLETED = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
QUIET_S = 0.4
"""Beats that are seen before and after each migration; also lets the hosts come to rest."""
END_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Trip:
    """One migration; milliseconds."""

    total_ms: float
    """vmferry: enqueue to ``succeeded``; virsh: the command's run."""
    pause_ms: float
    """The longest time between two beats, seen from outside."""
    downtime_ms: int
    """libvirt's own figure of the pause."""
    job_ms: int
    """libvirt's own figure of the whole transfer."""
    connect_ms: float = 0.0
    """virsh: what it takes to start and to open its connection, which vmferry's workers have open; measured apart."""
    get_ms: float = 0.0
    """vmferry: what a plain Celery client's ``get()`` waited, from before the submission."""
    hops_ms: tuple[float, ...] = ()
    """vmferry: from the end of a step to the start of the next."""
    steps_ms: tuple[tuple[str, float], ...] = ()
    """vmferry: how long each step ran, after ``queued`` (submission to the first step's start)."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The same way by both."""

    vmferry: Trip
    virsh: Trip

    @property
    def overhead_ms(self) -> float:
        """What vmferry adds to the whole."""
        return self.vmferry.total_ms - self.virsh.total_ms

    @property
    def beside_job_ms(self) -> float:
        """The same without libvirt's own jobs: less noise, and blind to a job that vmferry itself made slower."""
        return self.vmferry.total_ms - self.vmferry.job_ms - (self.virsh.total_ms - self.virsh.job_ms)

    @property
    def beside_connection_ms(self) -> float:
        """The strictest: as if virsh, too, had been started and connected before."""
        return self.beside_job_ms + self.virsh.connect_ms

    @property
    def pause_difference_ms(self) -> float:
        """What vmferry adds to the pause."""
        return self.vmferry.pause_ms - self.virsh.pause_ms


def measure_pairs(rig: Rig, guest: Guest, count: int) -> Iterator[Pair]:
    """The guest starts on alpha; every pair ends there. Who goes first alternates, so that both go both ways."""
    for first in (by_vmferry, by_virsh):  # connections are opened and caches filled by trips that do not count
        _trip(rig, guest, first, "alpha", "beta")
        _trip(rig, guest, first, "beta", "alpha")
    for number in range(count):
        order = (by_vmferry, by_virsh) if number % 2 == 0 else (by_virsh, by_vmferry)
        trips = {
            order[0]: _trip(rig, guest, order[0], "alpha", "beta"),
            order[1]: _trip(rig, guest, order[1], "beta", "alpha"),
        }
        yield Pair(trips[by_vmferry], trips[by_virsh])


Way = Callable[[Rig, Guest, str, str], Callable[[GuestWatch], Trip]]
"""Moves the guest, and returns what makes its account once no more beats are awaited."""


def _trip(rig: Rig, guest: Guest, way: Way, source: str, destination: str) -> Trip:
    with guest.watch() as watch:
        time.sleep(QUIET_S)
        account = way(rig, guest, source, destination)
        until(lambda: watch.ticks_by_host()[destination], 10, f"{guest.name} does not tick on {destination}")
        time.sleep(QUIET_S)
    watch.check_never_twice()
    watch.check_continued()
    return account(watch)


# -- vmferry -----------------------------------------------------------------------------------------------------------


def by_vmferry(rig: Rig, guest: Guest, source: str, destination: str) -> Callable[[GuestWatch], Trip]:
    """Submit as any Python program does, wait as any Celery client does."""
    began, began_at = time.monotonic(), rig.now()
    run_id = rig.client.submit({"vm": guest.name, "destination": destination}).id
    rig.elsewhere.AsyncResult(run_id).get(timeout=END_TIMEOUT_S)
    got_ms = (time.monotonic() - began) * 1000
    record = rig.client.show(run_id)
    if record.state is not State.SUCCEEDED or record.source != source:
        raise LabError(f"{run_id}: {record.state}, from {record.source}: {record.error}")
    return lambda watch: _account(record, began_at, got_ms, watch)


def _account(record: RunRecord, began_at: float, got_ms: float, watch: GuestWatch) -> Trip:
    assert record.finished_at is not None
    assert record.progress.downtime_ms is not None, "no statistics of the finished transfer in the record"
    timings = record.timings
    hops = tuple(((b.started_at) - (a.ended_at or 0.0)) * 1000 for a, b in pairwise(timings))
    steps = [(t.step.value, ((t.ended_at or 0.0) - t.started_at) * 1000) for t in timings]
    return Trip(
        total_ms=(record.finished_at - began_at) * 1000,
        pause_ms=watch.max_gap_ms(),
        downtime_ms=record.progress.downtime_ms,
        job_ms=record.progress.elapsed_ms,
        get_ms=got_ms,
        hops_ms=hops,
        steps_ms=(("queued", (timings[0].started_at - record.submitted_at) * 1000), *steps),
    )


# -- virsh -------------------------------------------------------------------------------------------------------------


def by_virsh(rig: Rig, guest: Guest, source: str, destination: str) -> Callable[[GuestWatch], Trip]:
    """The command with the flags and addresses that vmferry's own call has."""
    command = virsh_command(rig, guest.name, source, destination)
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=END_TIMEOUT_S, check=False)
    took_ms = (time.monotonic() - began) * 1000
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")
    stats = _forget_source(rig, guest, source, destination)
    connect_ms = _connect_ms(rig, source)

    def account(watch: GuestWatch) -> Trip:
        downtime, job = stats[libvirt.VIR_DOMAIN_JOB_DOWNTIME], stats[libvirt.VIR_DOMAIN_JOB_TIME_ELAPSED]
        return Trip(took_ms, watch.max_gap_ms(), downtime, job, connect_ms)

    return account


def virsh_command(rig: Rig, name: str, source: str, destination: str) -> list[str]:
    """From the hub, as a worker, over the same transport."""
    host = rig.lab.host(destination)
    peer = host.peer_uri(rig.transport)
    address = migrate_uri(HostAddress(host.uri(rig.transport), peer, host.address))
    assert address is not None
    assert urlsplit(peer).hostname
    flags = ["--live", "--p2p", "--persistent", "--abort-on-error", "--migrateuri", address]
    return ["virsh", "--quiet", "--connect", rig.lab.host(source).uri(rig.transport), "migrate", *flags, name, peer]


def _connect_ms(rig: Rig, host: str) -> float:
    began = time.monotonic()
    command = ["virsh", "--quiet", "--connect", rig.lab.host(host).uri(rig.transport), "uri"]
    subprocess.run(command, capture_output=True, timeout=END_TIMEOUT_S, check=True)
    return (time.monotonic() - began) * 1000


def _forget_source(rig: Rig, guest: Guest, source: str, destination: str) -> dict[str, int]:
    """Leave the hosts as vmferry leaves them, outside the timed part; libvirt's account of the transfer."""
    with closing(rig.lab.host(source).connect()) as conn:
        conn.lookupByUUIDString(guest.uuid).undefine()
    with closing(rig.lab.host(destination).connect()) as conn:
        stats: dict[str, int] = conn.lookupByUUIDString(guest.uuid).jobStats(COMPLETED)
    return stats
