"""What to do about a transfer that does not come to its end: a policy's data, a few numbers kept, and one decision.

A guest that changes its memory faster than it is sent never arrives by itself. What helps costs the guest something: a
longer pause, slower CPUs, a standstill until the end, or running on the destination with memory still at the source
(post-copy), in which a lost link loses the VM. A policy says which of it, when, and for how long.
"""

from __future__ import annotations

from tasks.model.convergence import Convergence, OnTimeout, Progressed
from tasks.model.domain import JobStats
from tasks.model.frozen import Frozen

PATIENCE = 2.0
"""A guest that stands still, or whose transfer was given another chance, has as long again as the policy gave it."""


class Action(Frozen):
    """One thing to do now."""

    kind: str
    """``downtime``, ``pause``, ``post-copy`` or ``abort``."""
    why: str
    """For the record."""
    downtime_ms: int = 0


def decide(policy: Convergence, kept: Progressed, job: JobStats, now: float) -> tuple[Progressed, Action | None]:
    """One look at a running transfer: what to remember, and at most one thing to do.

    Nothing is ever done after the switch to post-copy: neither host alone has the whole VM then.
    """
    kept = _noted(kept, job, now)
    if kept.aborted or kept.post_copy_at is not None:
        return kept, None
    late = _late(policy, kept, job, now)
    if late:
        return _out_of_time(policy, kept, late, now, memory=job.memory_total > 0)
    if kept.paused_at is not None:
        return kept, None
    passes = job.memory_iteration
    if 0 < policy.post_copy_after_passes < passes and not kept.post_copy_refused:
        why = f"not done after {policy.post_copy_after_passes} passes over memory"
        return kept.model_copy(update={"post_copy_at": now}), Action(kind="post-copy", why=why)
    steps = policy.downtime_steps_ms
    if kept.step < len(steps) and (kept.step == 0 or passes - kept.step_pass >= policy.passes_per_step):
        allowed = steps[kept.step]
        why = "as the policy begins" if kept.step == 0 else f"pass {passes} over memory"
        changed = kept.model_copy(update={"step": kept.step + 1, "step_pass": passes})
        return changed, Action(kind="downtime", downtime_ms=allowed, why=why)
    return kept, None


def standing(policy: Convergence, kept: Progressed) -> tuple[Action, ...]:
    """What was decided so far and must be in force: who wrote it down may have died before doing it."""
    if kept.aborted:
        return (Action(kind="abort", why="decided before"),)
    found = []
    if 0 < kept.step <= len(policy.downtime_steps_ms):
        step = policy.downtime_steps_ms[kept.step - 1]
        found.append(Action(kind="downtime", downtime_ms=step, why="decided before"))
    if kept.post_copy_at is not None:
        found.append(Action(kind="post-copy", why="decided before"))
    elif kept.paused_at is not None:
        found.append(Action(kind="pause", why="decided before"))
    return tuple(found)


def _noted(kept: Progressed, job: JobStats, now: float) -> Progressed:
    """Before anything is sent libvirt says that nothing remains, and memory comes on top when the disks are there."""
    total, remaining = job.memory_total + job.disk_total, job.memory_remaining + job.disk_remaining
    if kept.began_at is None:
        kept = kept.model_copy(update={"began_at": now, "least_at": now})
    if total and (kept.least_bytes is None or total > kept.total_bytes or remaining < kept.least_bytes):
        kept = kept.model_copy(update={"total_bytes": total, "least_bytes": remaining, "least_at": now})
    return kept


def _late(policy: Convergence, kept: Progressed, job: JobStats, now: float) -> str:
    """Which of the policy's times is over, in words; empty when none is."""
    begins = kept.paused_at if kept.paused_at is not None else kept.began_at
    patience = PATIENCE if kept.paused_at is not None else 1.0
    limit = policy.time_for(job.memory_total + job.disk_total) * patience
    if limit and begins is not None and now - begins > limit:
        what = "standing still" if kept.paused_at is not None else "under way"
        return f"{what} for {now - begins:.0f} s, and the policy allows {limit:.0f} s"
    still = max(kept.least_at, kept.paused_at or 0.0)
    if policy.stall_timeout_s and now - still > policy.stall_timeout_s * patience:
        return f"no nearer to its end for {now - still:.0f} s"
    return ""


def _out_of_time(
    policy: Convergence, kept: Progressed, why: str, now: float, *, memory: bool
) -> tuple[Progressed, Action]:
    """``memory``: whether it is on its way; while disks are copied, post-copy is of no help."""
    if policy.on_timeout is OnTimeout.PAUSE and kept.paused_at is None:
        return kept.model_copy(update={"paused_at": now}), Action(kind="pause", why=why)
    if policy.on_timeout is OnTimeout.POST_COPY and memory and not kept.post_copy_refused:
        return kept.model_copy(update={"post_copy_at": now}), Action(kind="post-copy", why=why)
    return kept.model_copy(update={"aborted": True}), Action(kind="abort", why=why)
