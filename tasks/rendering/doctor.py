"""What the doctor found, for people: what is well first and briefly, what is not last, above the prompt."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from tasks.model.doctor import CheckResult, Diagnosis, Verdict
from tasks.rendering import tables

STYLES = {Verdict.OK: "green", Verdict.UNSEEN: "dim", Verdict.WARNING: "yellow", Verdict.FAILED: "bold red"}
WIDTH = max(len(verdict) for verdict in Verdict)
ONE_BY_ONE = 6
"""Good results of one kind that are shown one a line; more are counted."""


def print_diagnosis(found: Diagnosis) -> None:
    """All results, the worst last, and a summary."""
    for verdict in Verdict:
        results = [result for result in found.results if result.verdict is verdict]
        for text, hint in _brief(results) if verdict is Verdict.OK else map(_full, results):
            _print(verdict, text, hint)
    tables.console.print(Text(summary(found.results), style="bold"), soft_wrap=True)


def _full(result: CheckResult) -> tuple[str, str]:
    return f"{result.code} {result.about}: {result.message}", result.hint


def _brief(results: Sequence[CheckResult]) -> Iterator[tuple[str, str]]:
    kinds: dict[str, list[CheckResult]] = defaultdict(list)
    for result in results:
        kinds[result.code].append(result)
    for code, same in kinds.items():
        if len(same) > ONE_BY_ONE:
            yield f"{code} {len(same)} times: {', '.join(result.about for result in same)}", ""
        else:
            yield from ((f"{result.about}: {result.message}", "") for result in same)


def _print(verdict: Verdict, text: str, hint: str) -> None:
    console = tables.console
    if not console.is_terminal:
        print(f"{verdict:<{WIDTH}}  {text}")
        if hint:
            print(f"{'':<{WIDTH}}  → {hint}")
        return
    line = Table.grid(padding=(0, 2))
    line.add_column(width=WIDTH)
    line.add_column(overflow="fold")
    line.add_row(Text(verdict.value, style=STYLES[verdict]), Text(text))
    console.print(line)
    if hint:  # a whole line: what is to be copied must not have line ends of ours in it
        console.print(Text(f"{'':<{WIDTH}}  → {hint}"), soft_wrap=True)


def summary(results: Sequence[CheckResult]) -> str:
    """``23 ok, 1 unseen, 2 failed``."""
    counts = Counter(result.verdict for result in results)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
