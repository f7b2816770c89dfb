"""From measurements to figures, and figures as a table and as JSON."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.flight import Flight
from tests.benchmarks.pairs import Pair

OVERHEAD_MS = 200.0
PAUSE_MS = 20.0
HOP_MS = 10.0
RESIDENT_MIB = 250.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table; ``goal`` None: told for comparison only."""

    name: str
    value: float
    unit: str
    p10: float | None = None
    p90: float | None = None
    low: float | None = None
    high: float | None = None
    """The median's interval, see ``median_interval``."""
    goal: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        return None if self.goal is None else self.value <= self.goal

    @property
    def settled(self) -> bool:
        """Whether the goal lies outside the median's interval, so that another run would most likely say the same."""
        return None in (self.goal, self.low, self.high) or not self.low <= self.goal <= self.high  # type: ignore[operator]


def spread(name: str, values: Sequence[float], *, unit: str = "ms", goal: float | None = None) -> Figure:
    """Median with the tenth and ninetieth percentile."""
    ordered = sorted(values)
    tenths = _percentile(ordered, 0.1), _percentile(ordered, 0.9)
    return Figure(name, statistics.median(ordered), unit, *tenths, *median_interval(ordered), goal)


def median_interval(ordered: Sequence[float]) -> tuple[float, float]:
    """Where the true median lies with 95 % confidence, whatever the distribution; all that was seen when that is less.

    The number of values below the true median is binomial with one half: the ranks are that distribution's quantiles.
    """
    count, below, rank = len(ordered), 0.0, 0
    while rank < count // 2 and (below := below + math.comb(count, rank) / 2**count) <= 0.025:
        rank += 1
    return ordered[max(rank - 1, 0)], ordered[min(count - rank, count - 1)]


def _percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank."""
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def figures_of(transport: str, pairs: Sequence[Pair], *, goals: bool) -> list[Figure]:
    """Everything that pairs of trips say; only one transport has goals."""
    ferry, virsh = [p.vmferry for p in pairs], [p.virsh for p in pairs]
    goal = {"overhead": OVERHEAD_MS, "pause": PAUSE_MS, "hop": HOP_MS} if goals else {}
    return [
        spread(f"{transport}: overhead", [p.overhead_ms for p in pairs], goal=goal.get("overhead")),
        spread(f"{transport}: overhead beside libvirt's jobs", [p.beside_job_ms for p in pairs]),
        spread(f"{transport}: and virsh's connection", [p.beside_connection_ms for p in pairs]),
        spread(f"{transport}: vmferry, enqueue to succeeded", [t.total_ms for t in ferry]),
        *_step_figures(transport, pairs),
        spread(f"{transport}: vmferry, a plain client's get()", [t.get_ms for t in ferry]),
        spread(f"{transport}: virsh migrate", [t.total_ms for t in virsh]),
        spread(f"{transport}:   of it start and connection", [t.connect_ms for t in virsh]),
        spread(f"{transport}: libvirt's job under vmferry", [t.job_ms for t in ferry]),
        spread(f"{transport}: libvirt's job under virsh", [t.job_ms for t in virsh]),
        spread(f"{transport}: pause, difference", [p.pause_difference_ms for p in pairs], goal=goal.get("pause")),
        spread(f"{transport}: pause seen under vmferry", [t.pause_ms for t in ferry]),
        spread(f"{transport}: pause seen under virsh", [t.pause_ms for t in virsh]),
        spread(f"{transport}: libvirt's downtime under vmferry", [t.downtime_ms for t in ferry]),
        spread(f"{transport}: libvirt's downtime under virsh", [t.downtime_ms for t in virsh]),
        spread(f"{transport}: hop from step to step", [h for t in ferry for h in t.hops_ms], goal=goal.get("hop")),
    ]


def _step_figures(transport: str, pairs: Sequence[Pair]) -> list[Figure]:
    steps: dict[str, list[float]] = {}
    for pair in pairs:
        for name, took_ms in pair.vmferry.steps_ms:
            steps.setdefault(name, []).append(took_ms)
    return [spread(f"{transport}:   of it {name}", values) for name, values in steps.items()]


def flight_figures(flight: Flight) -> list[Figure]:
    """The worker's memory; with fewer transfers than wanted it says so beside the value."""
    note = f"{flight.in_flight} of {flight.wanted} transfers in flight, {flight.threads} threads"
    complete = flight.in_flight == flight.wanted
    return [
        Figure(
            "steps worker, resident", flight.resident_mib, "MiB", goal=RESIDENT_MIB if complete else None, note=note
        ),
        Figure("steps worker, resident before", flight.idle_mib, "MiB", note="nothing to do"),
    ]


def machine(virt_type: str) -> dict[str, Any]:
    """What was measured on."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")), "")
    return {"cores": os.cpu_count(), "cpu": model, "guests": "KVM" if virt_type == "kvm" else "TCG (emulation)"}


def print_table(figures: Sequence[Figure], about: dict[str, Any]) -> None:
    """On the terminal."""
    title = f"vmferry beside virsh: {about['cores']} cores ({about['cpu']}), guests by {about['guests']}"
    table = Table(title=title, caption="; ".join(f"{n} pairs over {t}" for t, n in about["pairs"].items()))
    table.add_column("figure", no_wrap=True)
    for column in ("median", "p10", "p90", "median's 95 %", "goal"):
        table.add_column(column, justify="right")
    table.add_column("met")
    table.add_column("note")
    for figure in figures:
        table.add_row(*_row(figure))
    Console(highlight=False, width=None if os.isatty(1) else 150).print(table)


def describe(figure: Figure) -> str:
    """One line."""
    digits = 2 if figure.unit == "×" else 1
    goal = "" if figure.goal is None else f" (goal: {figure.goal:g}, {'met' if figure.met else 'MISSED'})"
    return f"{figure.name}: {figure.value:.{digits}f} {figure.unit}{goal}"


def _row(figure: Figure) -> list[str]:
    verdict = {None: "", True: "[green]met[/]", False: "[bold red]MISSED[/]"}[figure.met]
    verdict += "" if figure.settled else ", within noise"
    digits = 2 if figure.unit == "×" else 1
    interval = (
        "" if figure.low is None or figure.high is None else f"{figure.low:.{digits}f} to {figure.high:.{digits}f}"
    )
    goal = "" if figure.goal is None else f"≤ {figure.goal:g} {figure.unit}"
    numbers = [
        f"{figure.value:.{digits}f} {figure.unit}",
        *("" if p is None else f"{p:.{digits}f}" for p in (figure.p10, figure.p90)),
    ]
    return [figure.name, *numbers, interval, goal, verdict, figure.note]


def write_json(file: Path, figures: Sequence[Figure], about: dict[str, Any], raw: dict[str, Any]) -> None:
    """Figures and every single measurement."""
    told = [asdict(figure) | {"met": figure.met} for figure in figures]
    file.write_text(json.dumps({"machine": about, "figures": told, "raw": raw}, indent=1) + "\n", encoding="utf-8")
