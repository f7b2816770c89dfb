"""Policies: what is done to a transfer that does not end, and that something always is, in time."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tasks.model.convergence import GIB, Convergence, OnTimeout, Progressed
from tasks.model.domain import JobStats
from tasks.planning.convergence import PATIENCE, Action, decide, standing

JOB = JobStats(active=True, is_migration=True, memory_total=2 * GIB, memory_remaining=GIB)

policies = st.builds(
    Convergence,
    downtime_steps_ms=st.lists(st.integers(1, 10_000), max_size=4).map(lambda steps: tuple(sorted(steps))),
    passes_per_step=st.integers(1, 4),
    post_copy_after_passes=st.integers(0, 5),
    completion_s_per_gib=st.sampled_from([0.0, 10.0, 100.0]),
    stall_timeout_s=st.sampled_from([0.0, 5.0, 30.0]),
    on_timeout=st.sampled_from(OnTimeout),
)
jobs = st.builds(
    JobStats,
    active=st.just(True),
    is_migration=st.just(True),
    memory_total=st.just(2 * GIB),
    memory_remaining=st.integers(1, 2 * GIB),
    memory_iteration=st.integers(0, 40),
)


def follow(policy: Convergence, jobs: list[JobStats], *, period: float = 1.0) -> list[tuple[float, Action]]:
    """What is done, and when; what is remembered goes through JSON each time, as it does when a worker adopts it."""
    kept, done = Progressed(), []
    for number, job in enumerate(jobs):
        kept, action = decide(policy, Progressed.model_validate_json(kept.model_dump_json()), job, number * period)
        if action is not None:
            done.append((number * period, action))
    return done


@given(policies, st.lists(jobs, max_size=80))
def test_no_step_twice_and_nothing_after_the_last(policy: Convergence, jobs: list[JobStats]) -> None:
    done = [action for _, action in follow(policy, jobs, period=7.0)]
    assert [a.downtime_ms for a in done if a.kind == "downtime"] == list(policy.downtime_steps_ms)[
        : sum(a.kind == "downtime" for a in done)
    ]
    for kind in ("pause", "post-copy", "abort"):
        assert sum(a.kind == kind for a in done) <= 1
    for number, action in enumerate(done):
        if action.kind in ("post-copy", "abort"):
            assert number == len(done) - 1
        if action.kind == "pause":
            assert [a.kind for a in done[number + 1 :]] in ([], ["abort"])
    if not policy.wants_post_copy:
        assert all(a.kind != "post-copy" for a in done)


@given(policies.filter(lambda policy: policy.completion_s_per_gib > 0), st.lists(jobs, min_size=1, max_size=5))
def test_it_ends_within_the_bounds(policy: Convergence, some: list[JobStats]) -> None:
    limit = policy.completion_s_per_gib * 2
    endless = [some[number % len(some)] for number in range(int(limit * (1 + PATIENCE)) + 5)]
    done = follow(policy, endless)
    at, last = done[-1]
    assert last.kind in ("abort", "post-copy")
    assert at <= limit * (1 + PATIENCE) + 2


@given(st.lists(jobs, max_size=60))
def test_a_policy_without_limits_only_allows_longer_pauses(jobs: list[JobStats]) -> None:
    done = follow(Convergence(downtime_steps_ms=(50, 300)), jobs, period=1000.0)
    assert {action.kind for _, action in done} <= {"downtime"}


def test_longer_pauses_pass_by_pass() -> None:
    policy = Convergence(downtime_steps_ms=(100, 300, 1000), passes_per_step=2)
    done = follow(policy, [replace(JOB, memory_iteration=n) for n in (0, 1, 1, 2, 3, 4, 9, 20)])
    assert [(at, action.downtime_ms) for at, action in done] == [(0.0, 100), (3.0, 300), (5.0, 1000)]


def test_stalled_while_passes_go_up_and_down() -> None:
    """What remains rises with each new pass: only a new minimum is progress."""
    policy = Convergence(downtime_steps_ms=(), stall_timeout_s=5)
    saw = [100, 60, 20, 100, 60, 20, 100, 60, 20, 100]
    ((at, action),) = follow(policy, [replace(JOB, memory_remaining=n) for n in saw])
    assert (at, action.kind) == (8.0, "abort")
    assert action.why == "no nearer to its end for 6 s"
    falling = [replace(JOB, memory_remaining=100 - n) for n in range(60)]
    assert follow(policy, falling) == []


def test_paused_and_then_given_up() -> None:
    policy = Convergence(downtime_steps_ms=(), completion_s_per_gib=10, on_timeout=OnTimeout.PAUSE)
    done = follow(policy, [JOB] * 100)
    assert [(at, action.kind) for at, action in done] == [(21.0, "pause"), (62.0, "abort")]
    assert done[1][1].why == "standing still for 41 s, and the policy allows 40 s"


def test_post_copy_after_passes() -> None:
    policy = Convergence(downtime_steps_ms=(), post_copy_after_passes=3, completion_s_per_gib=1)
    done = follow(policy, [replace(JOB, memory_iteration=n) for n in range(9)])
    # Two GiB, one second each: time is over in the third second, before the passes are; the policy then gives up.
    assert [(at, action.kind) for at, action in done] == [(3.0, "abort")]
    patient = policy.model_copy(update={"completion_s_per_gib": 0.0})
    done = follow(patient, [replace(JOB, memory_iteration=n) for n in range(9)])
    assert [(at, action.kind) for at, action in done] == [(4.0, "post-copy")]


def test_who_adopts_it_does_again_what_may_not_have_been_done() -> None:
    policy = Convergence(downtime_steps_ms=(50, 100), completion_s=10, on_timeout=OnTimeout.PAUSE)
    assert standing(policy, Progressed()) == ()
    assert [a.downtime_ms for a in standing(policy, Progressed(began_at=0, step=2))] == [100]
    paused = standing(policy, Progressed(began_at=0, step=1, paused_at=11))
    assert [a.kind for a in paused] == ["downtime", "pause"]
    assert [a.kind for a in standing(policy, Progressed(began_at=0, step=1, paused_at=11, aborted=True))] == ["abort"]
    # A policy whose steps were taken away meanwhile is no reason to fail.
    assert standing(Convergence(downtime_steps_ms=()), Progressed(began_at=0, step=2)) == ()


def test_the_shorter_time_counts() -> None:
    assert Convergence(completion_s=10).time_for(4 * GIB) == 10
    assert Convergence(completion_s_per_gib=4).time_for(4 * GIB) == 16
    assert Convergence(completion_s=10, completion_s_per_gib=4).time_for(4 * GIB) == 10
    assert Convergence(completion_s=100, completion_s_per_gib=4).time_for(GIB // 2) == 4
    assert Convergence().time_for(GIB) == 0


def test_post_copy_is_no_help_while_disks_are_copied() -> None:
    policy = Convergence(downtime_steps_ms=(), completion_s=3, on_timeout=OnTimeout.POST_COPY)
    disks = JobStats(active=True, is_migration=True, disk_total=GIB, disk_remaining=GIB)
    assert [(at, a.kind) for at, a in follow(policy, [disks] * 9)] == [(4.0, "abort")]
    assert [(at, a.kind) for at, a in follow(policy, [JOB] * 9)] == [(4.0, "post-copy")]


def test_post_copy_that_was_refused_is_not_asked_for_again() -> None:
    policy = Convergence(downtime_steps_ms=(), completion_s=3, post_copy_after_passes=1, on_timeout=OnTimeout.POST_COPY)
    refused = Progressed(began_at=0.0, post_copy_refused=True)
    assert decide(policy, refused, replace(JOB, memory_iteration=9), 2.0)[1] is None
    kept, action = decide(policy, refused, replace(JOB, memory_iteration=9), 4.0)
    assert action is not None
    assert (action.kind, kept.aborted) == ("abort", True)


def test_what_is_not_known_yet_is_no_progress() -> None:
    """While a transfer is set up nothing remains, says libvirt; and memory comes when the disks have arrived."""
    policy = Convergence(downtime_steps_ms=(), stall_timeout_s=5)
    setup = JobStats(active=True, is_migration=True)
    falling = [replace(JOB, memory_remaining=GIB - n) for n in range(20)]
    assert follow(policy, [setup] * 3 + falling) == []
    disks = [replace(setup, disk_total=9, disk_remaining=9 - n) for n in range(10)]
    then = [replace(job, disk_total=9) for job in falling]
    assert follow(policy, [setup, *disks, *then]) == []
    assert [(at, a.kind) for at, a in follow(policy, [setup] * 9)] == [(6.0, "abort")]
