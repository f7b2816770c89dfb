"""What the doctor found, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.text import Text

from tasks.model.doctor import CheckResult, Diagnosis, Verdict
from tasks.rendering.tables import console

STYLES = {Verdict.OK: "green", Verdict.UNSEEN: "dim", Verdict.WARNING: "yellow", Verdict.FAILED: "bold red"}
WIDTH = max(len(verdict) for verdict in Verdict)


def print_diagnosis(found: Diagnosis) -> None:
    """One line a result, its hint below it, and a summary."""
    for result in found.results:
        _print_result(result)
    console.print(Text(summary(found.results), style="" if found.healthy else "bold"), soft_wrap=True)


def _print_result(result: CheckResult) -> None:
    line = Text(f"{result.verdict:<{WIDTH}}  ", style=STYLES[result.verdict])
    line.append(result.message, style="")
    if result.verdict is not Verdict.OK:
        line = Text(f"{result.verdict:<{WIDTH}}  ", style=STYLES[result.verdict])
        line.append(f"{result.code} ", style="bold").append(f"{result.about}: ").append(result.message)
    elif "→" in result.about:
        line = Text(f"{result.verdict:<{WIDTH}}  ", style=STYLES[result.verdict]).append(
            f"{result.about}: {result.message}"
        )
    # Whole lines: what is to be copied must not be broken by us; the terminal wraps what is too long for it.
    console.print(line, soft_wrap=True)
    if result.hint:
        console.print(Text(f"{'':<{WIDTH}}  → {result.hint}"), soft_wrap=True)


def summary(results: Sequence[CheckResult]) -> str:
    """``23 ok, 1 unseen, 2 failed``."""
    counts = Counter(result.verdict for result in results)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
