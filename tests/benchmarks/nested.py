"""``python -m tests.benchmarks.nested [--runs N]``, or ``make bench-nested``: the guide's experiment on its machines.

The nested lab's hosts are whole emulated PCs, so that everything that libvirt and QEMU do in the switch-over takes many
times as long as on real ones: the pause is told and not judged. ``NESTED=name`` uses a lab that is up.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import libvirt
from rich.console import Console
from rich.table import Table

from tests.benchmarks.guide import (
    FILL_MIB,
    LINK_MBIT_S,
    MEMORY_MIB,
    POLICY,
    Trip,
    guide_figures,
    make_guest,
    measure_trips,
)
from tests.benchmarks.report import Figure, machine
from tests.benchmarks.rig import running_rig
from tests.lab import LabError, LabUnavailable
from tests.lab.nested import NestedLab
from tests.lab.shell import run

console = Console(stderr=True, highlight=False)


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
            _report(_measure(lab, options.runs), options.json)
        finally:
            if not name:
                lab.down()
    except (LabError, LabUnavailable, TimeoutError, AssertionError, OSError) as error:
        console.print(f"bench: {error}", style="bold red", markup=False)
        return 1
    return 0


def _measure(lab: NestedLab, runs: int) -> list[Trip]:
    with ExitStack() as stack:
        guest = make_guest(lab, "one", stack)
        patient: dict[str, Any] = {"lease_s": 60.0, "connect_timeout_s": 60.0, "unreachable_timeout_s": 120.0}
        policies = {"default": {"bandwidth_mib_s": POLICY["bandwidth_mib_s"]}}
        rig = stack.enter_context(running_rig(lab, "ssh", policies=policies, **patient))
        stack.enter_context(links_shaped(lab, LINK_MBIT_S))
        trips = []
        for trip in measure_trips(rig, guest, ("one", "two"), runs):
            trips.append(trip)
            console.print(f"{len(trips)} of {runs}: {trip.total_s:.0f} s")
        return trips


def _report(trips: list[Trip], file: Path) -> None:
    figures = guide_figures(trips, goals=False)
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
