"""Where is the VM? Every combination that libvirt was seen to show."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from tasks.model.domain import DomainState, DomainView, JobStats, Mark
from tasks.model.request import Method
from tasks.planning.outcome import Outcome, decide_outcome, describe_damage

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


MIRRORED_OFF = [
    (view("a", OFF), None, Outcome.AT_SOURCE),
    (view("a", PAUSED), None, Outcome.AT_SOURCE),
    (view("a"), None, Outcome.AT_SOURCE),
    (view("a", PAUSED, 2), None, Outcome.AT_SOURCE),
    (view("a", PAUSED, job=True), view("b", PAUSED, 2), Outcome.IN_PROGRESS),
    (view("a", PAUSED, job=True), view("b", PAUSED), Outcome.IN_PROGRESS),
    (view("a", PAUSED), view("b", PAUSED, 11), Outcome.UNSETTLED),
    (view("a", PAUSED), view("b", PAUSED), Outcome.UNSETTLED),
    (view("a", OFF, 4), view("b", PAUSED, 2), Outcome.UNSETTLED),
    (view("a", OFF, 4), view("b", PAUSED), Outcome.ARRIVED),
    (view("a", OFF, 0), view("b", PAUSED), Outcome.ARRIVED),
    (view("a", OFF, 4), view("b", PAUSED, mark=THEIRS), Outcome.MOVED),
    (view("a", OFF, 4), view("b"), Outcome.MOVED),
    (view("a", OFF, 4), view("b", OFF), Outcome.AT_SOURCE),
    (view("a"), view("b", OFF), Outcome.AT_SOURCE),
    (view("a"), view("b", PAUSED), Outcome.BOTH_RUNNING),
    (view("a", PAUSED), view("b"), Outcome.BOTH_RUNNING),
    (view("a"), view("b"), Outcome.BOTH_RUNNING),
    (None, view("b", PAUSED), Outcome.MOVED),
    (None, view("b", OFF), Outcome.MOVED),
    (None, view("b", OFF, mark=THEIRS), Outcome.UNCLEAR),
    (None, None, Outcome.NOWHERE),
]


@pytest.mark.parametrize(("source", "destination", "expected"), MIRRORED_OFF)
def test_started_paused_to_be_mirrored(
    source: DomainView | None, destination: DomainView | None, expected: Outcome
) -> None:
    assert decide_outcome(Method.OFFLINE, source, destination, RUN, mirrored_off=True) is expected


def test_it_is_never_resumed_and_never_given_up_while_somebody_runs_it() -> None:
    """SOURCE_PAUSED has rollback resume the source; AT_SOURCE and ARRIVED have it remove the destination's."""
    for state, reason, mark in product(DomainState, range(14), (OURS, THEIRS, None)):
        for source in (None, view("a", state, reason), view("a", OFF, 4)):
            for destination in (None, view("b", state, reason, mark=mark), view("b", PAUSED, mark=mark)):
                outcome = decide_outcome(Method.OFFLINE, source, destination, RUN, mirrored_off=True)
                assert outcome is not Outcome.SOURCE_PAUSED
                if destination is not None and destination.active and destination.state is not PAUSED:
                    assert outcome not in (Outcome.AT_SOURCE, Outcome.ARRIVED)


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


@pytest.mark.parametrize(
    ("state", "reason", "damaged"),
    [
        (DomainState.RUNNING, 2, False),
        (DomainState.PAUSED, 1, False),
        (DomainState.PAUSED, 5, True),
        (DomainState.PAUSED, 10, True),
        (DomainState.SHUTOFF, 0, True),
        (DomainState.SHUTOFF, 1, False),
        (DomainState.SHUTOFF, 2, True),
        (DomainState.SHUTOFF, 3, True),
        (DomainState.SHUTOFF, 6, True),
        (DomainState.SHUTOFF, 8, True),
        (DomainState.CRASHED, 0, True),
    ],
)
def test_a_vm_that_did_not_arrive_well(state: DomainState, reason: int, damaged: bool) -> None:
    assert (describe_damage(view("b", state, reason)) is not None) is damaged
