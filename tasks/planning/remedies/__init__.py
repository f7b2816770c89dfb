"""Remedies: what vmferry does about a finding when it is asked to, and takes back when the VM does not move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tasks.model.finding import Finding, Severity
from tasks.planning.preflight import run_rules
from tasks.planning.remedies import displays, machines, media, networks
from tasks.planning.remedies.remedy import Refusal, Remedy, Treatment
from tasks.planning.situation import Situation

__all__ = ["CODES", "REMEDIES", "Refusal", "Remedy", "Treatment", "apply_remedies", "judge"]

CODES = {
    "REMEDY_REFUSED": "A remedy was asked for that cannot be had.",
    "REMEDY_UNUSED": "A remedy was asked for, and there is nothing to do for it.",
}
"""What remedies report beside the findings that they settle, which become a line of the plan."""

REMEDIES: dict[str, Remedy] = {
    remedy.name: remedy
    for remedy in (
        media.COPY_MEDIA,
        media.EJECT_MEDIA,
        networks.CREATE_NETWORK,
        displays.LISTEN_ANYWHERE,
        displays.LISTEN_LOCALLY,
        machines.RESOLVE_MACHINE,
    )
}
"""In the order in which they are tried: what an earlier one has settled is nothing to a later one."""


def apply_remedies(s: Situation) -> Situation:
    """The situation after every remedy that the request names; ``notes`` says what is done, and what cannot be."""
    asked = [remedy for remedy in REMEDIES.values() if remedy.name in s.request.remedies]
    for remedy in asked:
        found = remedy.find(s)
        for treatment in (one for one in found if isinstance(one, Treatment)):
            s = treatment.apply(s)
            s = _noted(s, Finding(code=treatment.code, severity=Severity.INFO, message=treatment.message))
        if not found:
            message = f"{remedy.name} was asked for, and there is nothing to do for it"
            s = _noted(s, Finding(code="REMEDY_UNUSED", severity=Severity.INFO, message=message))
    # What one of them cannot do may be settled by another.
    for remedy in asked:
        for refusal in (one for one in remedy.find(s) if isinstance(one, Refusal)):
            message = f"{remedy.name}: {refusal.message}"
            s = _noted(s, Finding(code="REMEDY_REFUSED", severity=Severity.BLOCKER, message=message, hint=refusal.hint))
    return s


def _noted(s: Situation, note: Finding) -> Situation:
    return replace(s, notes=(*s.notes, note))


def judge(s: Situation) -> tuple[Finding, ...]:
    """What all rules say of a situation in which the remedies asked for are applied, and what these do.

    What another remedy would settle names it in its hint.
    """
    findings = [*_with_hints(s, run_rules(s)), *s.notes]
    return tuple(sorted(findings, key=lambda finding: list(Severity).index(finding.severity)))


def _with_hints(s: Situation, findings: Sequence[Finding]) -> list[Finding]:
    offers = [
        (one, remedy.name)
        for remedy in REMEDIES.values()
        if remedy.name not in s.request.remedies
        for one in remedy.find(s)
        if isinstance(one, Treatment)
    ]
    return [_with_hint(finding, offers) for finding in findings]


def _with_hint(finding: Finding, offers: list[tuple[Treatment, str]]) -> Finding:
    if finding.severity is Severity.INFO:
        return finding
    names = [name for one, name in offers if one.code == finding.code and one.about in finding.message]
    options = " or ".join(f"--remedy {name}" for name in dict.fromkeys(names))
    if not options:
        return finding
    hint = f"{options}; or {finding.hint}" if finding.hint else options
    return finding.model_copy(update={"hint": hint})
