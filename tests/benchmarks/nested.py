"""``python -m tests.benchmarks.nested [--runs N]``, or ``make bench-nested``: the guide's own experiment.

Its three machines (the nested lab) on links of 100 Mbit/s: a guest of 512 MiB, active at a low rate, its disk on NFS,
moves live over qemu+ssh. The guide saw a pause of about 1 s and 150 s in all, with Windows and a remote desktop.

Two are asked how long the guest was away: whoever looks at its serial console, and a TCP client of the guest, which
hears a beat every 20 ms. Both look from outside the hosts. ``NESTED=name`` uses a lab that is up.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import libvirt
from rich.console import Console
from rich.table import Table

from tasks.model.run import State
from tests.benchmarks.report import Figure, machine, spread
from tests.benchmarks.rig import Rig, running_rig
from tests.lab import LabError, LabUnavailable
from tests.lab.nested import NestedGuest, NestedLab
from tests.lab.shell import run, until

LINK_MBIT_S = 100
MEMORY_MIB = 512
FILL_MIB = 256
"""Of its memory, with what cannot be compressed: an ordinary guest's memory is not empty either."""
PAUSE_MS = 300.0
TOTAL_S = 150.0
END_TIMEOUT_S = 900.0
PORT = 7777

console = Console(stderr=True, highlight=False)


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


@contextmanager
def links_shaped(lab: NestedLab, mbit_s: int) -> Iterator[None]:
    """Each machine's port of the switch passes so much to it, Mbit/s; whoever observes is not slowed down."""
    hub = ["ip", "netns", "exec", lab.spec.netns("hub"), "tc", "qdisc"]
    cables = [lab.spec.veth(m.name) for m in lab.machines]
    for cable in cables:
        shape = ["tbf", "rate", f"{mbit_s}mbit", "burst", "64kb", "latency", "50ms"]
        run(*hub, "replace", "dev", cable, "root", *shape)
    try:
        yield
    finally:
        for cable in cables:
            run(*hub, "del", "dev", cable, "root")


def main() -> int:
    """Measure and report; one line for whatever breaks."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.nested", description="the guide's own experiment")
    parser.add_argument("--runs", type=int, default=int(os.environ.get("RUNS", "4")), help="migrations, to and fro")
    parser.add_argument("--json", type=Path, default=Path("bench-nested.json"), metavar="FILE", help="results")
    options = parser.parse_args()
    libvirt.registerErrorHandler(lambda *_: None, None)
    name = os.environ.get("NESTED", "")
    try:
        lab = NestedLab.attach(name) if name else NestedLab.up(f"bench{os.getpid()}", owner=os.getpid())
        try:
            lab.enter()
            _report(list(_measure(lab, options.runs)), options.json)
        finally:
            if not name:
                lab.down()
    except (LabError, LabUnavailable, TimeoutError, AssertionError, OSError) as error:
        console.print(f"bench: {error}", style="bold red", markup=False)
        return 1
    return 0


def _measure(lab: NestedLab, runs: int) -> Iterator[Trip]:
    with ExitStack() as stack:
        active: dict[str, Any] = {"dirty_mib_s": 1, "write_kib_s": 64, "fill_mib": FILL_MIB}
        guest = lab.guest("guide", memory_mib=MEMORY_MIB, tick_ms=20, **active)
        stack.callback(guest.remove)
        said = guest.console("one")
        until(lambda: b"\nfilled " in said.read_bytes(), END_TIMEOUT_S, "the guest does not fill its memory")
        patient: dict[str, Any] = {"lease_s": 60.0, "connect_timeout_s": 60.0, "unreachable_timeout_s": 120.0}
        rig = stack.enter_context(running_rig(lab, "ssh", **patient))
        stack.enter_context(links_shaped(lab, LINK_MBIT_S))
        for number in range(runs):
            source, destination = ("one", "two") if number % 2 == 0 else ("two", "one")
            console.print(f"{number + 1} of {runs}: {source} to {destination}")
            yield _trip(rig, lab, guest, destination)


def _trip(rig: Rig, lab: NestedLab, guest: NestedGuest, destination: str) -> Trip:
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
    downtime_ms, sent_mib = _libvirts_figures(lab, guest, destination)
    return Trip(total_s, watch.max_gap_ms(), client.max_gap_ms(), downtime_ms, sent_mib)


def _libvirts_figures(lab: NestedLab, guest: NestedGuest, host: str) -> tuple[int, float]:
    conn = lab.host(host).connect()
    flags = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
    said = conn.lookupByUUIDString(guest.uuid).jobStats(flags)
    return int(said.get("downtime", 0)), said.get("memory_processed", 0) / 2**20


def _report(trips: list[Trip], file: Path) -> None:
    figures = [
        spread("pause, on the console", [trip.console_ms for trip in trips], goal=PAUSE_MS),
        spread("pause, of a TCP client", [trip.client_ms for trip in trips], goal=PAUSE_MS),
        spread("pause, as libvirt says", [float(trip.downtime_ms) for trip in trips]),
        spread("total, enqueue to succeeded", [trip.total_s for trip in trips], unit="s", goal=TOTAL_S),
        spread("memory sent", [trip.sent_mib for trip in trips], unit="MiB"),
    ]
    about = machine("kvm")
    title = f"The guide's experiment: {MEMORY_MIB} MiB, {FILL_MIB} filled, NFS, {LINK_MBIT_S} Mbit/s, {len(trips)} runs"
    table = Table(title=title, caption=f"KVM guests in emulated hosts on {about['cores']} cores ({about['cpu']})")
    for column in ("figure", "median", "p10", "p90", "goal", "met"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for figure in figures:
        table.add_row(*_row(figure))
    Console(highlight=False, width=None if os.isatty(1) else 120).print(table)
    told = [asdict(figure) | {"met": figure.met} for figure in figures]
    raw = [asdict(trip) for trip in trips]
    file.write_text(json.dumps({"machine": about, "figures": told, "raw": raw}, indent=1) + "\n", encoding="utf-8")


def _row(figure: Figure) -> list[str]:
    numbers = [f"{value:.1f}" for value in (figure.p10, figure.p90) if value is not None]
    goal = "" if figure.goal is None else f"≤ {figure.goal:g} {figure.unit}"
    met = {None: "", True: "met", False: "MISSED"}[figure.met]
    return [figure.name, f"{figure.value:.1f} {figure.unit}", *numbers, goal, met]


if __name__ == "__main__":
    sys.exit(main())
