"""Where is the VM? Every combination that libvirt was seen to show."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from tasks.model.domain import DomainState, DomainView, JobStats, Mark
from tasks.model.request import Method
from tasks.planning.outcome import Outcome, decide_outcome

RUN = "run-1"
OURS = Mark(RUN, 1, 1)
THEIRS = Mark("other", 1, 1)
JOB = JobStats(active=True, is_migration=True)


def view(
    host: str, state: DomainState = DomainState.RUNNING, reason: int = 1, *, mark: Mark | None = OURS, job: bool = False
) -> DomainView:
    active = state not in (DomainState.SHUTOFF, DomainState.CRASHED)
    return DomainView(
        host=host,
        name="web-7",
        uuid="u",
        state=state,
        reason=reason,
        active=active,
        persistent=True,
        autostart=False,
        managed_save=False,
        memory_kib=1,
        vcpus=1,
        mark=mark,
        job=JOB if job else JobStats(active=False, is_migration=False),
    )


RUNNING, PAUSED, OFF = DomainState.RUNNING, DomainState.PAUSED, DomainState.SHUTOFF

LIVE = [
    (view("a"), None, Outcome.AT_SOURCE),
    (view("a"), view("b", OFF, mark=THEIRS), Outcome.AT_SOURCE),
    (view("a", job=True), view("b", PAUSED, 2), Outcome.IN_PROGRESS),
    (view("a"), view("b", PAUSED, 2), Outcome.UNSETTLED),
    (view("a", PAUSED, 2), view("b"), Outcome.UNSETTLED),
    (view("a", PAUSED, 2), None, Outcome.SOURCE_PAUSED),
    (view("a", PAUSED, 1), None, Outcome.AT_SOURCE),
    (view("a", PAUSED, 12), view("b", RUNNING, 10), Outcome.IN_PROGRESS),
    (view("a", PAUSED, 12, job=True), view("b", PAUSED, 2), Outcome.IN_PROGRESS),
    (view("a", PAUSED, 13, job=True), view("b", RUNNING, 11), Outcome.IN_PROGRESS),
    (view("a", PAUSED, 13), view("b", RUNNING, 10), Outcome.IN_PROGRESS),
    (view("a", OFF, 4), view("b", RUNNING, 10), Outcome.UNSETTLED),
    (None, view("b", RUNNING, 11), Outcome.UNSETTLED),
    (view("a", OFF, 3), view("b", RUNNING, 10), Outcome.INCOMPLETE),
    (view("a", OFF, 2), view("b", PAUSED, 13), Outcome.INCOMPLETE),
    (view("a", PAUSED, 12), view("b", OFF, 3), Outcome.INCOMPLETE),
    (view("a", PAUSED, 13), None, Outcome.INCOMPLETE),
    (view("a", PAUSED, 13, job=True), view("b", OFF, 3), Outcome.INCOMPLETE),
    (view("a", OFF, 4), view("b", RUNNING, 2), Outcome.MOVED),
    (None, view("b", RUNNING, 2), Outcome.MOVED),
    (view("a", OFF, 4), view("b", PAUSED, 1), Outcome.MOVED),
    (view("a", OFF, 4), view("b", PAUSED, 2), Outcome.UNSETTLED),
    (view("a", OFF, 4), view("b", OFF, 1), Outcome.MOVED),
    (view("a", OFF, 3), None, Outcome.AT_SOURCE),
    (view("a", OFF, 4), None, Outcome.UNCLEAR),
    (view("a", OFF, 3), view("b", OFF, 1), Outcome.UNCLEAR),
    (view("a", OFF, 3), view("b", OFF, 1, mark=THEIRS), Outcome.AT_SOURCE),
    (view("a"), view("b"), Outcome.BOTH_RUNNING),
    (None, None, Outcome.NOWHERE),
    (None, view("b", OFF, 1, mark=THEIRS), Outcome.UNCLEAR),
]


@pytest.mark.parametrize(("source", "destination", "expected"), LIVE)
def test_live(source: DomainView | None, destination: DomainView | None, expected: Outcome) -> None:
    assert decide_outcome(Method.LIVE, source, destination, RUN) is expected


OFFLINE = [
    (view("a", OFF), None, Outcome.AT_SOURCE),
    (view("a", OFF), view("b", OFF), Outcome.AT_SOURCE),
    (None, view("b", OFF), Outcome.MOVED),
    (None, view("b", OFF, mark=THEIRS), Outcome.UNCLEAR),
    (view("a"), None, Outcome.AT_SOURCE),
    (view("a", OFF), view("b"), Outcome.MOVED),
    (view("a"), view("b"), Outcome.BOTH_RUNNING),
    (None, None, Outcome.NOWHERE),
]


@pytest.mark.parametrize(("source", "destination", "expected"), OFFLINE)
def test_offline(source: DomainView | None, destination: DomainView | None, expected: Outcome) -> None:
    assert decide_outcome(Method.OFFLINE, source, destination, RUN) is expected


def test_an_active_source_alone_is_never_called_moved_and_an_absent_one_never_at_source() -> None:
    """Over all combinations: rolling back a VM that runs on the destination would lose it, and so would the reverse."""
    states = list(DomainState)
    for method, state, reason, mark in product((Method.LIVE, Method.OFFLINE), states, range(14), (OURS, THEIRS, None)):
        alone = replace(view("a", state, reason, mark=mark))
        outcome_here = decide_outcome(method, alone, None, RUN)
        outcome_there = decide_outcome(method, None, replace(alone, host="b"), RUN)
        assert outcome_here is not Outcome.MOVED
        if method is Method.LIVE and state is DomainState.PAUSED and reason in (12, 13):
            assert outcome_here is Outcome.INCOMPLETE, "what a source of a post-copy still has is not the VM"
        assert outcome_there not in (Outcome.AT_SOURCE, Outcome.SOURCE_PAUSED)
