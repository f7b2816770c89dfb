"""A check is a function with the codes it may report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from tasks.model.doctor import CheckResult, DoctorFacts, Verdict

Function = Callable[[DoctorFacts], list[CheckResult]]


@dataclass(frozen=True, slots=True)
class Check:
    """One check of ``vmferry doctor``."""

    look: Function
    codes: Mapping[str, str]
    """Every code that it may report, with what that means."""

    def __call__(self, facts: DoctorFacts) -> list[CheckResult]:
        """Results of this check; looks at nothing but the facts."""
        return self.look(facts)


class Decorator(Protocol):
    """What ``check`` returns."""

    def __call__(self, look: Function, /) -> Check:
        """Make a check of a function."""


def check(**codes: str) -> Decorator:
    """Declare a check and the codes it reports, for its users and for the documentation."""

    def declare(look: Function) -> Check:
        return Check(look, codes)

    return declare


def ok(code: str, about: str, message: str) -> CheckResult:
    """All is as it should be."""
    return CheckResult(code=code, verdict=Verdict.OK, about=about, message=message)


def unseen(code: str, about: str, message: str, hint: str = "") -> CheckResult:
    """It could not be looked at."""
    return CheckResult(code=code, verdict=Verdict.UNSEEN, about=about, message=message, hint=hint)


def warning(code: str, about: str, message: str, hint: str) -> CheckResult:
    """Works, and an operator should know."""
    return CheckResult(code=code, verdict=Verdict.WARNING, about=about, message=message, hint=hint)


def failed(code: str, about: str, message: str, hint: str) -> CheckResult:
    """Somebody must act."""
    return CheckResult(code=code, verdict=Verdict.FAILED, about=about, message=message, hint=hint)
