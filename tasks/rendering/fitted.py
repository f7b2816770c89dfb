"""Tables that fit the terminal by leaving whole columns out: nothing is folded, and no name is cut."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tasks.rendering import tables


@dataclass(frozen=True, slots=True)
class Column:
    """One column."""

    name: str
    give_up: int = 0
    """The higher, the sooner it is left out; 0: never."""
    right: bool = False
    """Numbers: aligned to the right."""


def print_fitted(columns: Sequence[Column], rows: Sequence[Sequence[object]], *, empty: str, summary: str) -> None:
    """A table of those columns that fit, and a summary; not on a terminal, tab-separated lines with all of them."""
    console = tables.console
    if not console.is_terminal:
        tables.print_rows([column.name for column in columns], rows)
        return
    if not rows:
        console.print(empty, style="dim")
        return
    shown = _choose(console, columns, rows)
    table = _table(columns, shown, rows)
    # Wider than the terminal if names alone are: the terminal wraps them then, and they can still be copied.
    options = console.options.update(width=width_of(console, table))
    for line in console.render_lines(table, options, pad=False):
        text = Text.assemble(*((segment.text, segment.style or "") for segment in line))
        text.rstrip()
        console.print(text, soft_wrap=True)
    console.print(summary, soft_wrap=True)
    if left_out := [column.name.lower() for column in columns if column not in shown]:
        words = f"no room for: {', '.join(left_out)}; a wider terminal or --json shows all"
        console.print(words, style="dim", soft_wrap=True)


def _choose(console: Console, columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> list[Column]:
    """Those that are never given up, and of the others the most important ones that still fit."""
    shown = [column for column in columns if not column.give_up]
    for column in sorted((c for c in columns if c.give_up), key=lambda c: c.give_up):
        more = [c for c in columns if c in shown or c is column]
        if width_of(console, _table(columns, more, rows)) <= console.width:
            shown = more
    return shown


def width_of(console: Console, table: Table) -> int:
    """Columns of the terminal that the table wants."""
    return Measurement.get(console, console.options.update(width=10_000), table).maximum


def _table(columns: Sequence[Column], shown: Sequence[Column], rows: Sequence[Sequence[object]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in shown:
        table.add_column(column.name, no_wrap=True, justify="right" if column.right else "left")
    places = [columns.index(column) for column in shown]
    for row in rows:
        cells = ["-" if row[place] in (None, "") else str(row[place]) for place in places]
        table.add_row(*(Text(cell, style=tables.STYLE_OF.get(cell, "")) for cell in cells))
    return table


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """A key by which ``host2`` comes before ``host10``."""
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in re.findall(r"[0-9]+|[^0-9]+", name))
