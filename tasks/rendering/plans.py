"""A dry run, readable in ten seconds."""

from __future__ import annotations

from collections.abc import Sequence

from rich.padding import Padding
from rich.text import Text

from tasks.model.finding import Finding, Severity
from tasks.model.plan import Outlook, Plan
from tasks.rendering.tables import console, mib, print_pairs, print_rows

STYLES = {Severity.BLOCKER: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


def print_plan(plan: Plan) -> None:
    """The decision first, then why, then what would be done."""
    verdict = "would be moved" if plan.allowed else "would be refused"
    console.print(
        f"{plan.vm}: {plan.source} → {plan.destination}: {verdict}", style="green" if plan.allowed else "bold red"
    )
    path = f", data path {plan.data_path}" if plan.data_path else ""
    how = f"{plan.method}, storage {plan.storage}{path}" if plan.method else None
    print_pairs([("method", how), ("because", plan.reason), ("policy", plan.policy), ("uuid", plan.uuid)])
    if plan.outlook is not None:
        _print_outlook(plan.outlook)
    print_pairs([("creates" if number == 0 else "", what) for number, what in enumerate(plan.creates)])
    if plan.allowed:
        print_pairs([("steps", " → ".join(step.removeprefix("tasks.steps.") for step in plan.steps))])
    print_pairs([("findings", count_findings(plan.findings))])
    print_findings(plan.findings)
    if plan.outlook is not None:
        _print_alternatives(plan.outlook)


def _print_outlook(outlook: Outlook) -> None:
    sizes = [f"{mib(outlook.memory_bytes)} of memory at most"] if outlook.memory_bytes else []
    sizes += [f"{mib(outlook.disk_bytes)} of disks"] if outlook.disk_bytes else []
    print_pairs(
        [
            ("downtime", f"{outlook.downtime}: {outlook.downtime_words}"),
            ("to move", " and ".join(sizes) or None),
            ("data goes", outlook.data_path),
            ("takes", outlook.expected.words if outlook.expected else "unknown: no move that way was seen lately"),
        ]
    )


def _print_alternatives(outlook: Outlook) -> None:
    rows = [[a.way, "yes" if a.possible else "no", a.reason] for a in outlook.alternatives]
    print_rows(["OTHER WAY", "POSSIBLE", "BECAUSE"], rows)


def count_findings(findings: Sequence[Finding]) -> str:
    """How many of each kind, the worst first; nothing when there are none."""
    words = {Severity.BLOCKER: "blocker", Severity.WARNING: "warning", Severity.INFO: "note"}
    counted = [(sum(f.severity is severity for f in findings), word) for severity, word in words.items()]
    return ", ".join(f"{count} {word}{'s' if count > 1 else ''}" for count, word in counted if count)


def print_findings(findings: Sequence[Finding]) -> None:
    """Blockers first, as preflight sorts them; one row a finding where no person reads it."""
    if not console.is_terminal:
        rows = [[_weight(f), f.code, f.message, f.hint] for f in findings]
        print_rows(["SEVERITY", "CODE", "FINDING", "WHAT TO DO"], rows)
        return
    for finding in findings:
        console.print(Text.assemble((_weight(finding), STYLES[finding.severity]), "  ", (finding.code, "bold")))
        console.print(Padding(Text(finding.message), (0, 0, 0, 3)))
        if finding.hint:
            console.print(Padding(Text(f"→ {finding.hint}", style="dim"), (0, 0, 0, 3)))


def _weight(finding: Finding) -> str:
    return finding.severity.value + (", accepted" if finding.accepted else "")
