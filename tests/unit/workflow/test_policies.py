"""What a policy of the settings means for one VM."""

from __future__ import annotations

from config.settings import PolicySettings
from tasks.model.convergence import OnTimeout
from tasks.model.request import Method, MigrationRequest
from tasks.model.run import RunRecord
from tasks.workflow.policies import policy_of

RECORD = RunRecord(
    id="m",
    request=MigrationRequest(vm="web", destination="beta"),
    fingerprint="",
    vm="web",
    destination="beta",
    method=Method.LIVE,
)


def test_pauses_begin_short_and_end_with_the_longest() -> None:
    assert policy_of(PolicySettings(), RECORD).convergence.downtime_steps_ms == (25, 75, 150, 300)
    some = PolicySettings(max_downtime_ms=100, downtime_steps_ms=[400, 50, 100])
    assert policy_of(some, RECORD).convergence.downtime_steps_ms == (50, 100)
    assert policy_of(PolicySettings(downtime_steps_ms=[]), RECORD).convergence.downtime_steps_ms == (300,)


def test_an_emulated_guest_gets_the_longest_at_once() -> None:
    emulated = RECORD.model_copy(update={"emulated": True})
    assert policy_of(PolicySettings(), emulated).convergence.downtime_steps_ms == (300,)


def test_only_a_guest_that_runs_can_be_paused() -> None:
    patient = PolicySettings(completion_timeout_s=9, on_timeout="pause")
    assert policy_of(patient, RECORD).convergence.on_timeout is OnTimeout.PAUSE
    paused = RECORD.model_copy(update={"method": Method.SUSPEND})
    assert policy_of(patient, paused).convergence.on_timeout is OnTimeout.ABORT
    assert policy_of(patient, RECORD).convergence.completion_s == 9


def test_post_copy_only_for_what_can_be_switched() -> None:
    eager = PolicySettings(post_copy_after_passes=3, on_timeout="post-copy", completion_timeout_s=9)
    assert eager.asks_for_post_copy
    able = RECORD.model_copy(update={"post_copy": True})
    there = policy_of(eager, able).convergence
    assert (there.post_copy_after_passes, there.on_timeout, there.wants_post_copy) == (3, OnTimeout.POST_COPY, True)
    for other in (RECORD, able.model_copy(update={"method": Method.SUSPEND})):
        without = policy_of(eager, other).convergence
        assert (without.post_copy_after_passes, without.on_timeout) == (0, OnTimeout.ABORT)
        assert not without.wants_post_copy
        assert policy_of(eager, other).asks_for_post_copy
    paused = PolicySettings(post_copy_after_passes=3, on_timeout="pause")
    assert policy_of(paused, RECORD).convergence.on_timeout is OnTimeout.PAUSE
    assert not PolicySettings(on_timeout="pause").asks_for_post_copy
