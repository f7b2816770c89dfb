"""What a remedy is: it finds what it can do about a finding, and says how the situation is then. It changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tasks.planning.situation import Situation


@dataclass(frozen=True, slots=True)
class Treatment:
    """One thing that a remedy would do."""

    code: str
    """The finding that it settles."""
    about: str
    """What that finding's message names."""
    message: str
    """What is done, in one sentence."""
    apply: Callable[[Situation], Situation]
    """The situation as it is afterwards, with the order in it for the steps."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that a remedy was asked for and cannot do."""

    message: str
    """Why, in one sentence."""
    hint: str


@dataclass(frozen=True, slots=True)
class Remedy:
    """One remedy."""

    name: str
    """What the request says."""
    words: str
    """What it does, for the documentation."""
    undone: str
    """How a rollback leaves it, for the documentation."""
    codes: tuple[str, ...]
    """Findings that it may settle."""
    find: Callable[[Situation], list[Treatment | Refusal]]
