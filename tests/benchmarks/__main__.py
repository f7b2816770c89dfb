"""``python -m tests.benchmarks [--pairs N] [--ssh-pairs N] [--flight N] [--json FILE]``, or ``make bench``.

A goal that is missed is said in the table and is no failure of the benchmark: it exits with 0. It brings up a lab of
its own and takes everything down again.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import libvirt
from rich.console import Console

from tests.benchmarks.adoption import measure_adoption
from tests.benchmarks.copies import CopyPair, copy_figures, measure_copies
from tests.benchmarks.draining import MAX_INCOMING, MAX_OUTGOING, Emptied, drain_figures, measure_drains
from tests.benchmarks.flight import BANDWIDTH_MIB_S, Flight, make_guests, measure_flight, wait_filled
from tests.benchmarks.guide import FILL_MIB as GUIDE_FILL_MIB
from tests.benchmarks.guide import LINK_MBIT_S, MEMORY_MIB, POLICY, Trip, guide_figures, make_guest, measure_trips
from tests.benchmarks.incremental import IncrementalTrip, incremental_figures, measure_incremental
from tests.benchmarks.long_queue import FEW, MANY, measure_queues, queue_figures
from tests.benchmarks.offline import OURS, FileRound, file_figures, measure_files
from tests.benchmarks.pairs import Pair, measure_pairs
from tests.benchmarks.planning import measure_placement, measure_plans, plan_figures
from tests.benchmarks.report import (
    Figure,
    describe,
    figures_of,
    flight_figures,
    machine,
    print_table,
    write_json,
)
from tests.benchmarks.rig import running_rig
from tests.benchmarks.watching import measure_watching, watching_figures
from tests.lab import Lab, LabError, LabUnavailable
from tests.lab.faults import link_shaped

FILL_MIB = 0
"""Memory that takes long to send makes transfers differ by more than what is measured."""

console = Console(stderr=True, highlight=False)


def main() -> int:
    """Measure and report; one line for whatever breaks."""
    options = _options()
    # Everything that goes wrong is raised; libvirt would print what is only asked as well.
    libvirt.registerErrorHandler(lambda *_: None, None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the lab is taken down then as well
    try:
        lab = Lab.up(f"bench{os.getpid()}", owner=os.getpid())
        try:
            lab.enter()
            _measure(lab, options)
        finally:
            lab.down()
    except (LabError, LabUnavailable, TimeoutError, AssertionError) as error:
        console.print(f"bench: {error}", style="bold red", markup=False)
        return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="vmferry beside plain virsh")
    parser.add_argument("--pairs", type=int, default=int(os.environ.get("PAIRS", "30")), help="pairs over tcp")
    parser.add_argument("--ssh-pairs", type=int, help="pairs over ssh (default: a third of --pairs)")
    parser.add_argument("--copies", type=int, default=10, help="pairs with a disk that is copied; 0: none")
    parser.add_argument("--files", type=int, default=5, help="rounds of disks of shut off guests; 0: none")
    parser.add_argument("--incremental", type=int, default=5, help="incremental copies of each kind; 0: none")
    parser.add_argument("--guide", type=int, default=6, help="the guide's experiment, to and fro; 0: none")
    parser.add_argument("--plans", type=int, default=20, help="plans of a VM with eight disks; 0: none")
    parser.add_argument("--flight", type=int, default=30, help="transfers at the same time; 0: do not measure")
    parser.add_argument("--drains", type=int, default=5, help="rounds of a host with twelve guests; 0: none")
    parser.add_argument("--queues", type=int, default=1, help=f"a queue of {MANY} migrations; 0: none")
    parser.add_argument("--no-flower", action="store_true", help="do not measure Flower")
    parser.add_argument("--adoptions", type=int, default=5, help="workers killed in mid-transfer; 0: none")
    parser.add_argument(
        "--fill-mib", type=int, default=FILL_MIB, help="of the guest's 256 MiB, filled with random data"
    )
    parser.add_argument("--json", type=Path, default=Path("bench-results.json"), metavar="FILE", help="results")
    options = parser.parse_args()
    if options.ssh_pairs is None:
        options.ssh_pairs = -(-options.pairs // 3)
    return options


def _measure(lab: Lab, options: argparse.Namespace) -> None:
    """Each part is told and written down when it is done: the whole takes more than an hour."""
    pairs = {"tcp": options.pairs, "ssh": options.ssh_pairs}
    pairs = {transport: count for transport, count in pairs.items() if count > 0}
    about = machine(lab.virt_type) | {"pairs": pairs, "fill_mib": options.fill_mib}
    figures: list[Figure] = []
    raw: dict[str, Any] = {}
    for found, measured in _parts(lab, options, pairs):
        figures += found
        raw |= measured
        for figure in found:
            console.print(f"  {describe(figure)}", markup=False)
        write_json(options.json, figures, about, raw)
    print_table(figures, about)


def _parts(
    lab: Lab, options: argparse.Namespace, pairs: dict[str, int]
) -> Iterator[tuple[list[Figure], dict[str, Any]]]:
    """Figures of each part that is wanted, and every single measurement."""
    for transport, count in pairs.items():
        found = _pairs(lab, transport, count, options.fill_mib)
        yield figures_of(transport, found, goals=transport == "tcp"), {transport: [asdict(pair) for pair in found]}
    if options.copies:
        copies = _copies(lab, options.copies)
        yield copy_figures(copies), {"copies": [asdict(pair) for pair in copies]}
    if options.files:
        rounds = _files(lab, options.files)
        yield file_figures(rounds), {"files": [asdict(one) for one in rounds]}
    if options.incremental:
        trips = _incremental(lab, options.incremental)
        yield incremental_figures(trips), {"incremental": [asdict(trip) for trip in trips]}
    if options.guide:
        guide = _guide(lab, options.guide)
        yield guide_figures(guide), {"guide": [asdict(trip) for trip in guide]}
    if options.plans:
        with running_rig(lab, "tcp") as rig:
            plans, placement = measure_plans(rig, options.plans), measure_placement(10)
        yield plan_figures(plans, placement), {"plans": plans, "placement": placement}
    if options.flight:
        flight = _flight(lab, options.flight)
        yield flight_figures(flight), {"flight": asdict(flight)}
    if options.adoptions:
        yield [_adoption(lab, options.adoptions)], {}
    if options.drains:
        drains = _drains(lab, options.drains)
        yield drain_figures(drains), {"drains": [asdict(one) for one in drains]}
    if options.queues:
        console.print(f"queues of {FEW} and {MANY} migrations on hosts that cost nothing")
        few, many = measure_queues()
        yield queue_figures(few, many), {"queues": [asdict(one) for one in few + many]}
    if not options.no_flower:
        console.print("Flower with 10,000 finished steps")
        watching = measure_watching()
        yield watching_figures(watching), {"flower": asdict(watching)}


def _pairs(lab: Lab, transport: str, count: int, fill_mib: int) -> list[Pair]:
    console.print(f"{count} pairs over {transport}: a guest of 256 MiB ({fill_mib} filled), alpha to beta and back")
    with ExitStack() as stack:
        guest = lab.guest(f"bench-{transport}", memory_mib=256, fill_mib=fill_mib)
        stack.callback(guest.remove)
        guest.wait_ticking()
        if fill_mib:
            wait_filled(guest)
        rig = stack.enter_context(running_rig(lab, transport))
        return list(measure_pairs(rig, guest, count))


def _copies(lab: Lab, count: int) -> list[CopyPair]:
    console.print(f"{count} pairs with a disk of 1 GiB, 200 MiB of it data, copied from alpha to beta")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=lab.spec.folder)))
        rig = stack.enter_context(running_rig(lab, "tcp"))
        return list(measure_copies(rig, folder, count))


def _adoption(lab: Lab, times: int) -> Figure:
    console.print(f"{times} times kill -9 of the worker in mid-transfer")
    with ExitStack() as stack:
        guest = lab.guest("adopted", memory_mib=256, fill_mib=120)
        stack.callback(guest.remove)
        wait_filled(guest)
        rig = stack.enter_context(running_rig(lab, "tcp", policies={"default": {"bandwidth_mib_s": BANDWIDTH_MIB_S}}))
        return measure_adoption(rig, guest, times)


def _files(lab: Lab, count: int) -> list[FileRound]:
    rounds = {1000: count, 100: min(count, 2)}  # a slow link differs less from round to round, and takes long
    console.print(f"disks of 4 GiB, 300 MiB of it data, of a guest that is shut off: rounds by Mbit/s {rounds}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=lab.spec.folder)))
        rig = stack.enter_context(running_rig(lab, "tcp"))
        done = []
        for one in measure_files(rig, folder, rounds):
            ratios = ", ".join(f"{way} {one.ratio(way):.2f} ×" for way in OURS)
            console.print(f"  {one.image}, {one.mbit} Mbit/s: {ratios} of the best other")
            done.append(one)
        return done


def _incremental(lab: Lab, count: int) -> list[IncrementalTrip]:
    console.print(f"{count} incremental copies each, shut off and live: 100 MiB on top of 300 that both hosts have")
    with running_rig(lab, "tcp") as rig:
        return list(measure_incremental(rig, count))


def _guide(lab: Lab, runs: int) -> list[Trip]:
    words = f"{MEMORY_MIB} MiB, {GUIDE_FILL_MIB} filled, shared storage, {LINK_MBIT_S} Mbit/s"
    console.print(f"the guide's experiment, {runs} times: {words}")
    with ExitStack() as stack:
        guest = make_guest(lab, "alpha", stack)
        rig = stack.enter_context(running_rig(lab, "tcp", policies={"default": POLICY}))
        for name in ("alpha", "beta"):
            stack.enter_context(link_shaped(lab.host(name), LINK_MBIT_S))
        return list(measure_trips(rig, guest, ("alpha", "beta"), runs))


def _flight(lab: Lab, count: int) -> Flight:
    console.print(f"{count} transfers at the same time, {BANDWIDTH_MIB_S} MiB/s each")
    with ExitStack() as stack:
        guests = make_guests(lab, count, stack)
        policies = {"default": {"bandwidth_mib_s": BANDWIDTH_MIB_S}}
        rig = stack.enter_context(
            running_rig(lab, "tcp", limit=count, max_total=count, step_concurrency=max(32, count), policies=policies)
        )
        return measure_flight(rig, guests)


def _drains(lab: Lab, rounds: int) -> list[Emptied]:
    console.print(f"{rounds} rounds: a host with twelve idle guests is emptied, by a drain and by virsh in loops")
    with ExitStack() as stack:
        rig = stack.enter_context(running_rig(lab, "tcp", out=MAX_OUTGOING, limit=MAX_INCOMING))
        done = []
        for one in measure_drains(rig, rounds):
            console.print(f"  {one.links}, {one.way}: {one.total_s:.1f} s, {one.sent_mib:.0f} MiB")
            done.append(one)
        return done


if __name__ == "__main__":
    sys.exit(main())
