"""A rule is a function with the codes it may report; the order in which rules stand here is the order of findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from tasks.model.finding import Finding, blocker, warning
from tasks.planning.situation import Situation

Check = Callable[[Situation], list[Finding]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One preflight rule."""

    check: Check
    codes: Mapping[str, str]
    """Every code that it may report, with what that means."""

    @property
    def name(self) -> str:
        """The function's name without ``check_``."""
        return str(getattr(self.check, "__name__", "")).removeprefix("check_")

    def __call__(self, situation: Situation) -> list[Finding]:
        """Findings of this rule; changes nothing and looks at nothing but the situation."""
        return self.check(situation)


class Decorator(Protocol):
    """What ``rule`` returns."""

    def __call__(self, check: Check, /) -> Rule:
        """Make a rule of a function."""


def rule(**codes: str) -> Decorator:
    """Declare a rule and the codes it reports, for the rule's users and for the documentation."""

    def declare(check: Check) -> Rule:
        return Rule(check, codes)

    return declare


def blocker_if(blocks: bool, code: str, message: str, hint: str = "") -> Finding:
    """A blocker when ``blocks``, else a warning."""
    return (blocker if blocks else warning)(code, message, hint)
