"""A report: one HTML file that needs nothing else, to be kept, sent and read anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tornado.template import Loader

from tasks.model.drain import DrainRecord, DrainState, Fate
from tasks.model.finding import Severity
from tasks.model.report import Report
from tasks.model.run import ErrorInfo, RunRecord, State
from tasks.rendering.records import duration, when
from tasks.rendering.tables import mib

FOLDER = Path(__file__).parent / "pages_html"
VERDICTS = {
    DrainState.EMPTY: ("good", "is empty: safe to reboot"),
    DrainState.PARTIAL: ("bad", "is not empty"),
    DrainState.REFUSED: ("bad", "was not emptied: not all of its VMs can move, and the drain is strict"),
    DrainState.CANCELLED: ("bad", "was not emptied: the drain was cancelled"),
    DrainState.PAUSED: ("open", "is not empty yet: the drain is paused"),
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that went wrong, or stands in the way."""

    vm: str
    migration: str
    attempt: int | None
    at: str
    code: str
    message: str
    hint: str


def render_report(report: Report) -> str:
    """The page."""
    from plotly.offline import get_plotlyjs

    from tasks.rendering.charts import figure_of

    chart = ""
    if report.runs:
        config = {"displaylogo": False, "responsive": True}
        chart = figure_of(report).to_html(full_html=False, include_plotlyjs=False, config=config, div_id="chart")
    page = (
        Loader(str(FOLDER))
        .load("report.html")
        .generate(
            report=report,
            drain=report.drain,
            verdict=verdict_of(report),
            facts=facts_of(report),
            troubles=troubles_of(report),
            chart=chart,
            plotlyjs=get_plotlyjs() if chart else "",
            rows=rows_of(report),
            made=when(report.made_at),
        )
    )
    return page.decode()


def verdict_of(report: Report) -> tuple[str, str]:
    """Good, bad or open, and what to say of it in one sentence."""
    drain = report.drain
    if drain is not None and drain.request.returns is not None:
        kind = "good" if drain.state is DrainState.RETURNED else "bad" if drain.is_ended else "open"
        words = "are back" if kind == "good" else "are not all back"
        return kind, f"the VMs that drain {drain.request.returns} moved away {words} on {drain.request.host}"
    if drain is not None:
        kind, words = VERDICTS.get(drain.state, ("open", f"is not empty yet: the drain is {drain.state}"))
        return kind, f"{drain.request.host} {words}"
    run = report.runs[0]
    kind = "good" if run.state is State.SUCCEEDED else "bad" if run.is_terminal else "open"
    return kind, f"{run.vm} {run.source or '?'} → {run.destination}: {run.state}"


def facts_of(report: Report) -> list[tuple[str, str]]:
    """Names and values at the head of the page; those without a value are left out."""
    about = report.drain or report.runs[0]
    sent = sum(run.progress.memory.processed_bytes + run.progress.disk.processed_bytes for run in report.runs)
    took = f"{about.finished_at - about.submitted_at:.1f} s" if about.finished_at else ""
    facts = [("id", report.id), ("asked for", when(about.submitted_at) or ""), ("ended", when(about.finished_at) or "")]
    facts += [("took", took), ("moved", mib(sent))]
    if isinstance(about, DrainRecord):
        counts = ", ".join(f"{count} {fate}" for fate, count in about.counts().items() if count)
        facts += [("VMs", counts), ("waits for", about.waiting_for or "")]
    labels = about.request.labels
    facts.append(("labels", ", ".join(f"{key}={value}" for key, value in labels.items())))
    return [(name, value) for name, value in facts if value]


def rows_of(report: Report) -> list[list[str]]:
    """VM, destination, fate, method, bytes, longest pause, duration, migration, note."""
    runs = {run.id: run for run in report.runs}
    if report.drain is None:
        return [_row(run.vm, run.destination, run.state, run, "") for run in report.runs]
    return [
        _row(
            vm.name,
            vm.destination or "",
            vm.fate,
            runs.get(vm.migration),
            "" if vm.fate is Fate.MOVED else vm.reason,
        )
        for vm in report.drain.vms
    ]


def _row(vm: str, to: str, fate: str, run: RunRecord | None, note: str) -> list[str]:
    if run is None:
        return [vm, to, fate, "", "", "", "", "", note]
    progress = run.progress
    sent = progress.memory.processed_bytes + progress.disk.processed_bytes
    pause = f"{progress.downtime_ms} ms" if progress.downtime_ms is not None else ""
    method = f"{run.method}, {run.storage}" if run.method else ""
    method += ", post-copy" if progress.post_copy else ""
    todo = "; ".join(run.left_to_do)
    return [
        vm,
        to,
        fate,
        method,
        mib(sent) if sent else "",
        pause,
        duration(run) or "",
        run.id,
        "; ".join(filter(None, (note, todo))),
    ]


def troubles_of(report: Report) -> list[Trouble]:
    """Every error and every blocker, in the order in which they came up."""
    found: list[tuple[float, Trouble]] = []
    if report.drain is not None:
        found += _of_drain(report.drain)
    for run in report.runs:
        for past in run.past:
            found.append((past.at or 0.0, _trouble(run, past.attempt, past.at, past.error, past.state)))
        if run.error is not None:
            found.append((run.finished_at or report.made_at, _trouble(run, run.attempt, run.finished_at, run.error)))
        for finding in run.findings:
            if finding.severity is Severity.BLOCKER and (run.error is None or finding.code != run.error.code):
                error = ErrorInfo(code=finding.code, message=finding.message, hint=finding.hint)
                found.append((run.finished_at or report.made_at, _trouble(run, run.attempt, run.finished_at, error)))
    return [trouble for _, trouble in sorted(found, key=lambda pair: pair[0])]


def _of_drain(drain: DrainRecord) -> list[tuple[float, Trouble]]:
    at = drain.finished_at or drain.submitted_at
    found = []
    if drain.error is not None:
        error = drain.error
        found.append((at, Trouble("", "", None, when(at) or "", error.code, error.message, error.hint)))
    for vm in drain.vms:
        if vm.fate is Fate.STAYS:
            why = "; ".join((vm.reason, *(f"{host}: {words}" for host, words in sorted(vm.others.items()))))
            found.append((drain.submitted_at, Trouble(vm.name, "", None, "", "STAYS", why, "")))
    return found


def _trouble(
    run: RunRecord, attempt: int, at: float | None, error: ErrorInfo | None, state: State | None = None
) -> Trouble:
    said = error or ErrorInfo(code=str(state or run.state).upper(), message="")
    return Trouble(run.vm, run.id, attempt, when(at) or "", said.code, said.message, said.hint)
