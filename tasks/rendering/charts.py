"""The figure of a report: when each VM did what, and how its transfer went, over one axis of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from itertools import cycle

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tasks.model.report import Report, Sample
from tasks.model.run import RunRecord, State

PHASES = {
    "waiting": "#c9ced6",
    "preflight": "#8ecae6",
    "prepare": "#219ebc",
    "transfer": "#2a6f4e",
    "verify": "#7fb069",
    "finish": "#b8d8a8",
    "rollback": "#d1495b",
}
"""What a migration may be busy with, in this order, and the colour of each."""
LINES = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#7f7f7f", "#d62728")
PANELS = ("what remains to be sent, MiB", "memory changed, MiB/s", "bandwidth, MiB/s")
ROW_PX, PANEL_PX, AROUND_PX = 26, 190, 150
KIB_PER_MIB = 1024


def figure_of(report: Report) -> go.Figure:
    """Bars of what each migration was busy with, and three curves of each transfer below them."""
    rows = max(3, len({run.uuid or run.vm for run in report.runs}))
    heights = [rows * ROW_PX, *(PANEL_PX for _ in PANELS)]
    titles = ("what each VM was busy with", *PANELS)
    figure = make_subplots(
        rows=4,
        cols=1,
        shared_xaxes=True,
        row_heights=heights,
        vertical_spacing=56 / sum(heights),
        subplot_titles=titles,
    )
    _add_phases(figure, report)
    _add_ends(figure, report)
    for run, colour in zip(report.runs, cycle(LINES), strict=False):
        _add_curves(figure, run, report.samples.get(run.id, ()), colour)
    figure.update_yaxes(autorange="reversed", row=1, col=1)
    for row in range(2, 2 + len(PANELS)):
        figure.update_yaxes(rangemode="tozero", row=row, col=1)
    figure.update_xaxes(type="date", showticklabels=True)
    figure.update_xaxes(title_text="UTC", row=1 + len(PANELS), col=1)
    figure.update_layout(
        height=sum(heights) + AROUND_PX,
        barmode="overlay",
        template="plotly_white",
        margin={"l": 10, "r": 10, "t": 110, "b": 40},
        legend={"orientation": "h", "y": 1 + 35 / sum(heights), "yanchor": "bottom", "x": 0},
        font={"family": "system-ui, sans-serif", "size": 13},
        hoverlabel={"align": "left"},
    )
    return figure


def phases_of(run: RunRecord, until: float) -> Iterator[tuple[str, float, float]]:
    """What a migration was busy with, from when to when; the last one may go on until now."""
    first = min((timing.started_at for timing in run.timings), default=run.started_at or run.finished_at or until)
    yield "waiting", run.submitted_at, max(first, run.submitted_at)
    for timing in run.timings:
        yield timing.step.value, timing.started_at, timing.ended_at or run.finished_at or until


def _add_phases(figure: go.Figure, report: Report) -> None:
    spans = [(run, *phase) for run in report.runs for phase in phases_of(run, report.made_at)]
    for phase, colour in PHASES.items():
        found = [(run, began, ended) for run, name, began, ended in spans if name == phase and ended > began]
        figure.add_bar(
            name=phase,
            orientation="h",
            y=[_label(run) for run, _, _ in found],
            base=[_moment(began) for _, began, _ in found],
            x=[(ended - began) * 1000 for _, began, ended in found],
            marker={"color": colour, "line": {"width": 0}},
            customdata=[[escape(run.id), f"{ended - began:.2f}"] for run, began, ended in found],
            hovertemplate=f"<b>%{{y}}</b> {phase}<br>%{{customdata[1]}} s<br>%{{customdata[0]}}<extra></extra>",
            row=1,
            col=1,
        )


def _add_ends(figure: go.Figure, report: Report) -> None:
    """Those that did not arrive: a cross where they ended."""
    ends = [(run, run.finished_at) for run in report.runs if run.finished_at and run.state is not State.SUCCEEDED]
    if ends:
        figure.add_scatter(
            name="did not move",
            mode="markers",
            x=[_moment(at) for _, at in ends],
            y=[_label(run) for run, _ in ends],
            marker={"symbol": "x", "size": 10, "color": "#b00020"},
            text=[escape(f"{run.state}: {run.error.message if run.error else ''}") for run, _ in ends],
            hovertemplate="<b>%{y}</b> %{text}<extra></extra>",
            row=1,
            col=1,
        )


def _add_curves(figure: go.Figure, run: RunRecord, samples: Sequence[Sample], colour: str) -> None:
    moments = [_moment(sample.at) for sample in samples]
    curves = (
        [sample.memory_kib + sample.disk_kib for sample in samples],
        [sample.dirty_kib_s for sample in samples],
        [sample.sent_kib_s for sample in samples],
    )
    for row, values in enumerate(curves, start=2):
        figure.add_scatter(
            name=_label(run),
            legendgroup=run.id,
            showlegend=row == 2 and bool(samples),
            mode="lines+markers",
            x=moments,
            y=[value / KIB_PER_MIB for value in values],
            line={"color": colour, "width": 1.6},
            marker={"size": 4},
            hovertemplate="<b>%{fullData.name}</b> %{y:.1f}<extra></extra>",
            row=row,
            col=1,
        )


def _label(run: RunRecord) -> str:
    """A VM's name as text: whoever draws the figure would take tags in it for tags."""
    return escape(run.vm)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
