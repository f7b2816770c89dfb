"""The decision about convergence on statistics of real transfers: what it would have done, and when."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tasks.model.convergence import Convergence, OnTimeout, Progressed
from tasks.planning.convergence import PATIENCE, Action, decide
from tests.unit.planning.recordings import Recording, load

NAMES = ("idle", "busy", "auto-converge", "post-copy")
LATE_S = 2.0
"""Looks are half a second apart, a little more on a busy machine."""


def replay(recording: Recording, policy: Convergence, *, before: str = "") -> list[tuple[float, Action]]:
    """What would have been done; what is remembered goes through JSON, as when another worker adopts it each time."""
    kept, done = Progressed(), []
    for at, job in recording.looks:
        kept, action = decide(policy, Progressed.model_validate_json(kept.model_dump_json()), job, 1e9 + at)
        if action is not None:
            done.append((at, action))
    return done


def first(recording: Recording, kind: str, policy: Convergence) -> float:
    """When the first action of a kind comes."""
    return next(at for at, action in replay(recording, policy) if action.kind == kind)


def at_pass(recording: Recording, number: int) -> float:
    """When a pass over memory was first seen."""
    return next(at for at, job in recording.looks if job.memory_iteration >= number)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_recorded(name: str) -> None:
    """Real runs, and what they are for: else the other tests here would say nothing."""
    recording = load(name)
    assert recording.ended == ("moved" if name in ("idle", "post-copy") else "aborted")
    times = [at for at, _ in recording.looks]
    assert times == sorted(times)
    assert all(b - a < LATE_S for a, b in pairwise(times))
    passes = [job.memory_iteration for _, job in recording.looks]
    assert passes == sorted(passes)
    assert passes[-1] <= 3 if name == "idle" else passes[-1] >= 3


def test_a_guest_that_arrives_is_left_alone() -> None:
    recording = load("idle")
    for on_timeout in OnTimeout:
        policy = Convergence(
            downtime_steps_ms=(25, 75, 300),
            completion_s=60,
            stall_timeout_s=20,
            post_copy_after_passes=3,
            on_timeout=on_timeout,
        )
        assert {action.kind for _, action in replay(recording, policy)} == {"downtime"}


@pytest.mark.parametrize("name", ["busy", "auto-converge"])
def test_a_guest_that_never_arrives_sees_every_step_and_no_more(name: str) -> None:
    recording = load(name)
    policy = Convergence(downtime_steps_ms=(25, 75, 150, 300), passes_per_step=1)
    done = replay(recording, policy)
    assert [action.downtime_ms for _, action in done] == [25, 75, 150, 300]
    # The first pass has begun when the first is said; from there on each new pass allows one more.
    assert [at for at, _ in done][1:] == [at_pass(recording, number) for number in (1, 2, 3)]


@pytest.mark.parametrize("name", ["busy", "auto-converge"])
@pytest.mark.parametrize("on_timeout", list(OnTimeout))
@pytest.mark.parametrize("limit_s", [10.0, 25.0])
def test_bounds_are_kept(name: str, on_timeout: OnTimeout, limit_s: float) -> None:
    recording = load(name)
    policy = Convergence(completion_s=limit_s, on_timeout=on_timeout)
    done = [(at, action.kind) for at, action in replay(recording, policy) if action.kind != "downtime"]
    assert done[0][1] == on_timeout.value
    assert limit_s <= done[0][0] < limit_s + LATE_S
    if on_timeout is not OnTimeout.PAUSE:
        assert len(done) == 1
    elif (end := limit_s + PATIENCE * limit_s + 2 * LATE_S) < recording.took_s:
        # It went on running in this recording: a guest that never arrives, even so, is given up at last.
        assert done[1][1] == "abort"
        assert done[1][0] <= end


@pytest.mark.parametrize("name", ["busy", "auto-converge"])
def test_no_nearer_for_so_long(name: str) -> None:
    """The first pass comes nearer with each look; from then on nothing ever does."""
    recording = load(name)
    second = at_pass(recording, 2)
    given_up = first(recording, "abort", Convergence(stall_timeout_s=15))
    assert second < given_up
    least = min((job.memory_remaining, at) for at, job in recording.looks if job.memory_total and at < given_up)
    assert 15 < given_up - least[1] < 15 + LATE_S
    assert not [a for _, a in replay(load("idle"), Convergence(stall_timeout_s=15)) if a.kind != "downtime"]


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_post_copy_in_the_pass_after(passes: int) -> None:
    recording = load("busy")
    policy = Convergence(post_copy_after_passes=passes, completion_s=59)
    done = [(at, a.kind) for at, a in replay(recording, policy) if a.kind != "downtime"]
    assert done == [(at_pass(recording, passes + 1), "post-copy")]


def test_after_the_switch_nothing_more_is_decided() -> None:
    """The recording of a real post-copy: every time of the policy is over long before it has arrived."""
    recording = load("post-copy")
    policy = Convergence(post_copy_after_passes=2, completion_s=at_pass(recording, 3) + 1)
    kinds = [action.kind for _, action in replay(recording, policy)]
    assert kinds.count("post-copy") == 1
    assert kinds[-1] == "post-copy"
    asked = [job.memory_postcopy_requests for _, job in recording.looks]
    assert asked[0] == 0
    assert asked[-1] > 0
    after = [job.memory_remaining for _, job in recording.looks if job.memory_postcopy_requests]
    assert after == sorted(after, reverse=True), "in post-copy each page is sent once"
