"""Following a migration: a live display on a terminal, one line for each change in a pipe."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from tasks.model.run import Channel, RunRecord
from tasks.rendering.records import duration, note
from tasks.rendering.tables import STYLE_OF, console, mib

LINE_PERIOD_S = 2.0
"""In a pipe, figures of a transfer are printed no more often than this."""


def follow(records: Iterable[RunRecord], *, quiet: bool = False) -> RunRecord:
    """Show each record until the last; returns that one."""
    if quiet:
        return _last(records)
    return _follow_live(records) if console.is_terminal else _follow_lines(records)


def _last(records: Iterable[RunRecord]) -> RunRecord:
    return deque(records, maxlen=1).pop()


def figures(name: str, channel: Channel) -> str:
    """Bytes and rate of memory or of disks."""
    rate = f" at {mib(channel.bytes_per_second)}/s" if channel.bytes_per_second else ""
    return f"{name} {mib(channel.processed_bytes)} sent, {mib(channel.remaining_bytes)} left{rate}"


def _follow_lines(records: Iterable[RunRecord]) -> RunRecord:
    seen, printed, record = "", 0.0, None
    for record in records:
        line = summary(record)
        if line != seen:
            print(line, flush=True)
            seen = line
        elif (
            record.progress.memory.total_bytes and time.monotonic() - printed > LINE_PERIOD_S and not record.is_terminal
        ):
            print(f"  {figures('memory', record.progress.memory)}{_phase(record)}", flush=True)
            printed = time.monotonic()
    if record is None:
        raise ValueError("nothing to follow")
    return record


def _phase(record: RunRecord) -> str:
    """Passes over memory are counted before post-copy; from there on each page is sent once."""
    if record.progress.post_copy:
        return ", post-copy"
    return f", pass {record.progress.iteration}" if record.progress.iteration else ""


def summary(record: RunRecord) -> str:
    """The state in one line."""
    said = note(record)
    took = f" after {duration(record)}" if record.is_terminal else ""
    route = f"{record.source or '?'} → {record.destination}"
    return f"{record.vm}: {route}: {record.state}{took}" + (f" ({said})" if said else "")


class _Bars:
    """A bar for memory and one for disks, which appear when there is something to show."""

    def __init__(self) -> None:
        self.progress = Progress(TextColumn("{task.description}"), BarColumn(32), TextColumn("{task.fields[text]}"))
        self._bars: dict[str, TaskID] = {}

    def show(self, name: str, channel: Channel, text: str = "") -> None:
        """Set one bar from libvirt's figures: what remains, of all there is."""
        if not channel.total_bytes:
            return
        if name not in self._bars:
            self._bars[name] = self.progress.add_task(f"  {name:<6}", text="")
        done = max(0, channel.total_bytes - channel.remaining_bytes)
        left = f"{mib(channel.remaining_bytes)} left of {mib(channel.total_bytes)}"
        words = f"{left}, {mib(channel.bytes_per_second)}/s{text}"
        self.progress.update(self._bars[name], total=channel.total_bytes, completed=done, text=words)


def _follow_live(records: Iterable[RunRecord]) -> RunRecord:
    bars, state, record = _Bars(), "", None
    with Live(bars.progress, console=console, refresh_per_second=10) as live:
        for record in records:
            line = summary(record)
            if line != state:
                live.console.print(line, style=STYLE_OF.get(record.state, ""))
                state = line
            iteration = _phase(record)
            bars.show("memory", record.progress.memory, iteration)
            bars.show("disks", record.progress.disk)
    if record is None:
        raise ValueError("nothing to follow")
    _print_end(record)
    return record


def _print_end(record: RunRecord) -> None:
    steps = ", ".join(f"{t.step} {(t.ended_at - t.started_at) * 1000:.0f} ms" for t in record.timings if t.ended_at)
    if steps:
        console.print(f"  {record.method}, storage {record.storage}: {steps}", style="dim")
    if record.progress.downtime_ms is not None:
        console.print(f"  downtime {record.progress.downtime_ms} ms by libvirt's own figure", style="dim")
    if record.error is not None and record.error.hint:
        console.print(f"  hint: {record.error.hint}")
