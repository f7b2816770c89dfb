"""What preflight has to say."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Severity(StrEnum):
    """How much a finding weighs."""

    BLOCKER = "blocker"
    """The migration is refused."""
    WARNING = "warning"
    """Goes on; an operator should know."""
    INFO = "info"
    """Worth a line in the plan."""


class Finding(BaseModel):
    """One result of one preflight rule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    """Stable, upper case, for example ``DESTINATION_HAS_SAME_NAME``."""
    severity: Severity
    message: str
    """One sentence with the facts in it."""
    accepted: bool = False
    """The request named this code: a person has decided that it shall not stand in the way."""
    hint: str = ""
    """What to type or to change."""


def blocker(code: str, message: str, hint: str = "") -> Finding:
    """The migration is refused."""
    return Finding(code=code, severity=Severity.BLOCKER, message=message, hint=hint)


def warning(code: str, message: str, hint: str = "") -> Finding:
    """The migration goes on; an operator should know."""
    return Finding(code=code, severity=Severity.WARNING, message=message, hint=hint)


def info(code: str, message: str, hint: str = "") -> Finding:
    """A line in the plan."""
    return Finding(code=code, severity=Severity.INFO, message=message, hint=hint)
