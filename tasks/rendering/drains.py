"""Drains: one in full, many in rows, and one as it goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tasks.model.drain import DrainForecast, DrainRecord, DrainVm, Fate
from tasks.model.run import RunRecord
from tasks.rendering.records import when
from tasks.rendering.tables import STYLE_OF, console, mib, print_pairs, print_rows

FATE_STYLES = {Fate.MOVED: "green", Fate.FAILED: "red", Fate.STAYS: "yellow", Fate.WAITING: "dim"}
Moment = tuple[DrainRecord, Mapping[str, RunRecord]]
"""A drain, and its migrations by their ids."""


def print_drains(records: Sequence[DrainRecord]) -> None:
    """One row a drain."""
    columns = ["ID", "HOST", "STATE", "MOVED", "OF", "SINCE", "ENDED", "NOTE"]
    rows = [
        [
            r.id,
            r.request.host,
            r.state.value,
            r.counts()[Fate.MOVED],
            len(r.vms),
            when(r.submitted_at),
            when(r.finished_at),
            _note(r),
        ]
        for r in records
    ]
    print_rows(columns, rows, empty="no drains yet: vmferry drain HOST")


def print_drain(record: DrainRecord) -> None:
    """Everything about one drain: what becomes of each VM, and why."""
    print_pairs([("drain", record.id), ("host", record.request.host), ("state", record.state.value)])
    print_pairs([("brings back", f"what drain {record.request.returns} moved" if record.request.returns else None)])
    print_pairs([("asked for", when(record.submitted_at)), ("ended", when(record.finished_at))])
    print_pairs([("waits for", record.waiting_for), ("vms", _counts(record))])
    if record.error is not None:
        print_pairs([("error", f"{record.error.code}: {record.error.message}"), ("hint", record.error.hint)])
    for words in record.left:
        print_pairs([("left", words)])
    if record.vms:
        rows = [[vm.name, vm.destination, vm.fate.value, vm.migration, _why(vm)] for vm in record.vms]
        print_rows(["VM", "TO", "FATE", "MIGRATION", "WHY"], rows)


def print_drain_plan(record: DrainRecord) -> None:
    """A dry run, as it is read in the evening: where each VM would go, and why not elsewhere."""
    moving = [vm for vm in record.vms if vm.fate is Fate.WAITING]
    staying = [vm for vm in record.vms if vm.fate is Fate.STAYS]
    memory = sum(vm.memory_kib for vm in moving if vm.active)
    words = f"{len(moving)} of {len(record.vms)} VMs would move, {mib(memory * 1024)} of memory"
    print_pairs([("host", record.request.host), ("drain", words)])
    if record.forecast is not None and moving:
        _print_forecast(record.forecast)
    rows = [[vm.name, vm.destination, _takes(vm), vm.reason, _others(vm)] for vm in moving]
    if rows:
        print_rows(["VM", "TO", "TAKES", "WHY", "WHY NOT ELSEWHERE"], rows)
    rows = [[vm.name, vm.reason, _others(vm)] for vm in staying]
    if rows:
        print_rows(["STAYS", "WHY", "HOSTS"], rows)


def _print_forecast(forecast: DrainForecast) -> None:
    begins = f" from {when(forecast.begins)}" if forecast.begins is not None else ""
    takes = f"{forecast.expected.words}{begins}, if nothing else moves" if forecast.expected else None
    late = f"{forecast.late} of them" if forecast.late else ""
    if forecast.maybe_late:
        late += f"{', ' if late else ''}{forecast.maybe_late} more perhaps"
    unknown = f"{forecast.without_estimate} of them: no move their way was seen lately"
    print_pairs([("takes", takes), ("may start", when(forecast.begins)), ("until", when(forecast.closes))])
    print_pairs([("no estimate", unknown if forecast.without_estimate else None), ("will not fit", late)])


def _takes(vm: DrainVm) -> str:
    words = vm.expected.words if vm.expected is not None else "unknown"
    return f"{words}; {vm.late}" if vm.late else f"{words}; perhaps too late" if vm.maybe_late else words


def follow_drain(moments: Iterable[Moment]) -> DrainRecord:
    """Show a drain until it has ended; returns its last record."""
    record: DrainRecord | None = None
    if not console.is_terminal:
        said = ""
        for record, _ in moments:
            line = f"{record.request.host}: {record.state}: {_counts(record)}"
            if line != said:
                print(line, flush=True)
                said = line
    else:
        with Live(console=console, refresh_per_second=4) as live:
            for record, runs in moments:
                live.update(_table(record, runs))
    if record is None:
        raise ValueError("nothing to follow")
    for words in record.left:
        console.print(f"left: {words}", style="yellow", markup=False)
    return record


def _table(record: DrainRecord, runs: Mapping[str, RunRecord]) -> Table:
    """A bar for each VM, and one for all of them."""
    table = Table(title=f"drain {record.id} of {record.request.host}: {record.state}", box=None, pad_edge=False)
    for column in ("VM", "TO", "", "STATE", "NOTE"):
        table.add_column(column, overflow="fold")
    for vm in record.vms:
        run = runs.get(vm.migration)
        state = run.state.value if run is not None and vm.fate is Fate.MOVING else vm.fate.value
        style = STYLE_OF.get(state, FATE_STYLES.get(vm.fate, ""))
        note = (run.waiting_for if run is not None and vm.fate is Fate.MOVING else None) or _why(vm)
        bar = ProgressBar(total=100, completed=100 * _share(vm, run), width=20)
        table.add_row(vm.name, vm.destination or "-", bar, Text(state, style=style), Text(note, style="dim"))
    done = sum(vm.fate not in (Fate.WAITING, Fate.MOVING) for vm in record.vms)
    bar = ProgressBar(total=max(1, len(record.vms)), completed=done, width=20)
    table.add_row("all", "", bar, record.state.value, record.waiting_for or _counts(record))
    return table


def _share(vm: DrainVm, run: RunRecord | None) -> float:
    """How much of a VM has arrived, 0 to 1."""
    if vm.fate is Fate.MOVED:
        return 1.0
    if run is None:
        return 0.0
    channels = (run.progress.memory, run.progress.disk)
    total = sum(channel.total_bytes for channel in channels)
    return 1 - sum(channel.remaining_bytes for channel in channels) / total if total else 0.0


def _counts(record: DrainRecord) -> str:
    return ", ".join(f"{count} {fate.value}" for fate, count in record.counts().items() if count) or "none yet"


def _why(vm: DrainVm) -> str:
    return "" if vm.fate is Fate.MOVED else vm.reason


def _others(vm: DrainVm) -> str:
    return "; ".join(f"{host}: {why}" for host, why in sorted(vm.others.items()))


def _note(record: DrainRecord) -> str | None:
    if record.error is not None:
        return f"{record.error.code}: {record.error.message}"
    returns = f"brings back what {record.request.returns} moved" if record.request.returns else None
    return record.waiting_for or (record.left[0] if record.left else None) or returns
