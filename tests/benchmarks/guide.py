"""The guide's own experiment: a guest of 512 MiB, active at a low rate, its disk on shared storage, over 100 Mbit/s.

The guide saw a pause of about 1 s and 150 s in all, with Windows and a remote desktop. Two are asked how long the guest
was away: whoever looks at its serial console, and a TCP client of the guest, which hears a beat every 20 ms. Both look
from outside the hosts.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import libvirt

from tasks.model.run import State
from tests.benchmarks.report import Figure, spread
from tests.benchmarks.rig import Rig
from tests.lab import Guest
from tests.lab.shell import until

LINK_MBIT_S = 100
MEMORY_MIB = 512
FILL_MIB = 256
"""Of its memory, with what cannot be compressed: an ordinary guest's memory is not empty either."""
ACTIVE: dict[str, Any] = {"dirty_mib_s": 1, "write_kib_s": 64, "fill_mib": FILL_MIB}
POLICY: dict[str, Any] = {"max_downtime_ms": 100, "bandwidth_mib_s": 10}
"""The guest's emulation touches 0.8 MiB of its memory over and over, which takes 69 ms to send: a plan of 50 ms took
up to 176 passes, one of 25 ms never came to its end. What is left of the link keeps the buffers on the way empty, which
have to be sent before the last pages: without it the guest was away for 280 ms, and its client for 315 to 450."""
PAUSE_MS = 300.0
TOTAL_S = 150.0
END_TIMEOUT_S = 900.0
PORT = 7777


@dataclass(frozen=True, slots=True)
class Trip:
    """One live migration."""

    total_s: float
    """Enqueue to ``succeeded``."""
    console_ms: float
    """The longest time between two beats on the console."""
    client_ms: float
    """The same as a TCP client saw it."""
    downtime_ms: int
    """libvirt's own figure."""
    sent_mib: float


class Client:
    """Somebody on the network who listens to the guest; one connection, which must last."""

    def __init__(self, address: str) -> None:
        self._socket = socket.create_connection((address, PORT), timeout=60)
        self._arrived: list[float] = []
        self._thread = threading.Thread(target=self._listen, name="client", daemon=True)

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()

    def _listen(self) -> None:
        while self._socket.recv(65536):
            self._arrived.append(time.monotonic())

    @property
    def beats(self) -> int:
        """How many times something was heard."""
        return len(self._arrived)

    def max_gap_ms(self) -> float:
        """The longest silence."""
        return max((b - a for a, b in pairwise(self._arrived)), default=0.0) * 1000


def make_guest(lab: Any, host: str, stack: ExitStack) -> Guest:
    """The guest, with its memory filled; removed with the stack."""
    guest: Guest = lab.guest("guide", host, memory_mib=MEMORY_MIB, tick_ms=20, **ACTIVE)
    stack.callback(guest.remove)
    said = guest.console(host)
    until(lambda: said.exists() and b"\nfilled " in said.read_bytes(), END_TIMEOUT_S, "the guest fills no memory")
    return guest


def measure_trips(rig: Rig, guest: Guest, hosts: tuple[str, str], runs: int) -> Iterator[Trip]:
    """To and fro between two hosts, beginning at the first."""
    for number in range(runs):
        yield _trip(rig, guest, hosts[(number + 1) % 2])


def _trip(rig: Rig, guest: Guest, destination: str) -> Trip:
    with guest.watch() as watch, Client(guest.address) as client:
        time.sleep(1)
        began = time.monotonic()
        run_id = rig.client.submit({"vm": guest.name, "destination": destination}).id
        rig.elsewhere.AsyncResult(run_id).get(timeout=END_TIMEOUT_S)
        total_s = time.monotonic() - began
        heard = client.beats
        until(lambda: client.beats > heard + 50, 60, "the guest's client hears nothing more")
    record = rig.client.show(run_id)
    assert record.state is State.SUCCEEDED, record.error
    watch.check_never_twice()
    watch.check_continued()
    downtime_ms, sent_mib = _libvirts_figures(rig, guest, destination)
    return Trip(total_s, watch.max_gap_ms(), client.max_gap_ms(), downtime_ms, sent_mib)


def _libvirts_figures(rig: Rig, guest: Guest, host: str) -> tuple[int, float]:
    flags = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
    with closing(rig.lab.host(host).connect()) as conn:
        said = conn.lookupByUUIDString(guest.uuid).jobStats(flags)
    return int(said.get("downtime", 0)), said.get("memory_processed", 0) / 2**20


def guide_figures(trips: list[Trip], *, goals: bool = True) -> list[Figure]:
    """What the trips say; ``goals`` where the hosts are as quick as hosts are."""
    pause = PAUSE_MS if goals else None
    return [
        spread("guide: pause, on the console", [trip.console_ms for trip in trips], goal=pause),
        spread("guide: pause, of a TCP client", [trip.client_ms for trip in trips], goal=pause),
        spread("guide: pause, as libvirt says", [float(trip.downtime_ms) for trip in trips]),
        spread("guide: total, enqueue to succeeded", [trip.total_s for trip in trips], unit="s", goal=TOTAL_S),
        spread("guide: memory sent", [trip.sent_mib for trip in trips], unit="MiB"),
    ]
