"""A dry run, readable in ten seconds."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.model.finding import Finding
from tasks.model.plan import Plan
from tasks.rendering.tables import console, print_pairs, print_rows


def print_plan(plan: Plan) -> None:
    """The decision first, then why, then what would be done."""
    verdict = "would be moved" if plan.allowed else "would be refused"
    console.print(
        f"{plan.vm}: {plan.source} → {plan.destination}: {verdict}", style="green" if plan.allowed else "bold red"
    )
    how = f"{plan.method}, storage {plan.storage}" if plan.method else None
    print_pairs([("method", how), ("because", plan.reason), ("policy", plan.policy), ("uuid", plan.uuid)])
    print_pairs([("would create", "; ".join(plan.creates))])
    if plan.allowed:
        print_pairs([("steps", " → ".join(step.removeprefix("tasks.steps.") for step in plan.steps))])
    print_findings(plan.findings)


def print_findings(findings: Sequence[Finding]) -> None:
    """One row a finding, blockers first as preflight sorts them."""
    if findings:
        rows = [[f.severity.value + (", accepted" if f.accepted else ""), f.code, f.message, f.hint] for f in findings]
        print_rows(["SEVERITY", "CODE", "FINDING", "WHAT TO DO"], rows)
