"""One way to print rows: a table on a terminal, tab-separated lines elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

console = Console(highlight=False, soft_wrap=False)

NAME_COLUMNS = 14

STYLE_OF = {
    "succeeded": "green",
    "running": "green",
    "failed": "red",
    "refused": "red",
    "blocker": "bold red",
    "needs_attention": "bold red",
    "warning": "yellow",
    "cancelled": "yellow",
    "queued": "dim",
}


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str = "") -> None:
    """Print rows under column names; ``empty`` stands for no rows."""
    cells = [["-" if value in (None, "") else str(value) for value in row] for row in rows]
    if not console.is_terminal:
        for row in [list(columns), *cells]:
            print("\t".join(row))
        return
    if not cells:
        console.print(empty or "none", style="dim")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell, style=STYLE_OF.get(cell, "")) for cell in row))
    console.print(table)


def print_pairs(pairs: Sequence[tuple[str, object]]) -> None:
    """Print names and values, one a line; pairs without a value are left out."""
    for name, value in pairs:
        if value in (None, "", ()):
            continue
        if console.is_terminal:
            line = Table.grid()  # a value that is longer than the line goes on below itself
            line.add_column(width=NAME_COLUMNS)
            line.add_column(overflow="fold")
            line.add_row(Text(name, style="dim"), Text(str(value), style=STYLE_OF.get(str(value), "")))
            console.print(line)
        else:
            print(f"{name}\t{value}")


def mib(size_bytes: float) -> str:
    """A size for people."""
    return f"{size_bytes / 2**30:.1f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:.1f} MiB"
