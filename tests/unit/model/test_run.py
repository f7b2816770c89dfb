"""The table of transitions, and what a record survives."""

from __future__ import annotations

import pytest

from tasks.model.errors import VmferryError
from tasks.model.request import MigrationRequest
from tasks.model.run import TERMINAL, TRANSITIONS, RunRecord, State, check_transition


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(State)


def test_every_state_can_be_reached_from_queued() -> None:
    reached, frontier = {State.QUEUED}, [State.QUEUED]
    while frontier:
        for state in TRANSITIONS[frontier.pop()] - reached:
            reached.add(state)
            frontier.append(state)
    assert reached == set(State)


def test_every_state_can_end() -> None:
    for start in State:
        seen, frontier = {start}, [start]
        while frontier:
            for state in TRANSITIONS[frontier.pop()] - seen:
                seen.add(state)
                frontier.append(state)
        assert seen & TERMINAL


def test_success_is_final() -> None:
    assert TRANSITIONS[State.SUCCEEDED] == frozenset()


@pytest.mark.parametrize("state", sorted(State))
def test_nothing_skips_rolling_back_once_effects_began(state: State) -> None:
    """Failed and cancelled are reached from rolling_back only (cancelled also from queued, where nothing was done)."""
    if state is State.ROLLING_BACK:
        return
    assert State.FAILED not in TRANSITIONS[state]
    if state is not State.QUEUED:
        assert State.CANCELLED not in TRANSITIONS[state]


def test_illegal_transition_is_refused() -> None:
    with pytest.raises(VmferryError) as caught:
        check_transition(State.SUCCEEDED, State.ROLLING_BACK)
    assert caught.value.code == "ILLEGAL_TRANSITION"


def test_a_record_survives_json() -> None:
    request = MigrationRequest(vm="web-7", destination="beta", labels={"b": "2", "a": "1"})
    record = RunRecord(id="x", request=request, fingerprint=request.fingerprint(), vm="web-7", destination="beta")
    assert RunRecord.model_validate_json(record.model_dump_json()) == record
