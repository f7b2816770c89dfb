"""Choosing the method."""

from __future__ import annotations

import pytest

from tasks.model.domain import DomainState, DomainView
from tasks.model.finding import Finding, Severity
from tasks.model.request import Method
from tasks.planning.method import CODES, MethodChoice, choose_method
from tests.unit.planning.builders import off, request, view

PAUSED = view(state=DomainState.PAUSED, reason=1)


@pytest.mark.parametrize(
    ("asked", "seen", "method"),
    [
        ("auto", view(), Method.LIVE),
        ("auto", view(state=DomainState.BLOCKED), Method.LIVE),
        ("auto", PAUSED, Method.LIVE),
        ("auto", off(), Method.OFFLINE),
        ("live", view(), Method.LIVE),
        ("offline", off(), Method.OFFLINE),
    ],
)
def test_chooses(asked: str, seen: DomainView, method: Method) -> None:
    choice = choose_method(request(method=asked), seen)
    assert isinstance(choice, MethodChoice)
    assert choice.method is method
    assert seen.state.value in choice.reason


@pytest.mark.parametrize(
    ("asked", "seen", "code"),
    [
        ("live", off(), "METHOD_NEEDS_RUNNING_VM"),
        ("offline", view(), "METHOD_NEEDS_SHUT_OFF_VM"),
        ("offline", PAUSED, "METHOD_NEEDS_SHUT_OFF_VM"),
        ("suspend", off(), "METHOD_NEEDS_RUNNING_VM"),
        ("saved", off(), "METHOD_NEEDS_RUNNING_VM"),
        ("auto", view(state=DomainState.CRASHED), "STATE_NOT_MOVABLE"),
        ("auto", view(state=DomainState.CRASHED, active=False), "STATE_NOT_MOVABLE"),
        ("live", view(state=DomainState.PMSUSPENDED), "STATE_NOT_MOVABLE"),
        ("auto", view(state=DomainState.SHUTDOWN), "STATE_NOT_MOVABLE"),
        ("auto", view(state=DomainState.NOSTATE), "STATE_NOT_MOVABLE"),
        ("auto", view(state=DomainState.PAUSED, reason=2), "STATE_NOT_MOVABLE"),
        ("auto", view(state=DomainState.PAUSED, reason=5), "STATE_NOT_MOVABLE"),
        ("auto", view(state=DomainState.PAUSED, reason=13), "STATE_NOT_MOVABLE"),
        ("auto", view(state=DomainState.SHUTOFF, active=True), "STATE_NOT_MOVABLE"),
    ],
)
def test_refuses(asked: str, seen: DomainView, code: str) -> None:
    finding = choose_method(request(method=asked), seen)
    assert isinstance(finding, Finding)
    assert (finding.code, finding.severity) == (code, Severity.BLOCKER)
    assert finding.hint
    assert code in CODES
