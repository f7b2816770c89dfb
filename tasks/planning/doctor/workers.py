"""Checks of the workers: somebody must serve both queues, and somebody must wake the reconciler."""

from __future__ import annotations

from tasks.model.doctor import CheckResult, DoctorFacts
from tasks.planning.doctor.registry import check, failed, ok, unseen, warning

ROLES = {"vmferry": "control", "vmferry.steps": "steps"}
"""Which role of ``vmferry worker`` serves which queue."""
BEAT_PERIODS = 4
BEAT_SLACK_S = 5.0
ABOUT = "workers"


@check(
    QUEUES_SERVED="Workers serve both queues.",
    NO_CONTROL_WORKER="No worker serves the queue of callers' tasks: nothing is dispatched, recovered or cancelled.",
    NO_STEPS_WORKER="No worker serves the queue of steps: migrations stay where they are.",
)
def check_queues(facts: DoctorFacts) -> list[CheckResult]:
    """Each queue has somebody who reads it."""
    if facts.workers is None:
        return [unseen("QUEUES_SERVED", ABOUT, "the workers could not be asked: the queue does not answer")]
    missing = [queue for queue in ROLES if not any(queue in worker.queues for worker in facts.workers)]
    found = [
        failed(
            f"NO_{ROLES[queue].upper()}_WORKER",
            ABOUT,
            f"no worker that answers serves the queue {queue} ({_said(facts)})",
            f"start one: vmferry worker --role {ROLES[queue]}",
        )
        for queue in missing
    ]
    return found or [ok("QUEUES_SERVED", ABOUT, f"both queues are served by {_said(facts)}")]


@check(
    SLOTS_ENOUGH="The steps workers have a thread for every migration that may be under way.",
    CAP_ABOVE_SLOTS="More migrations may be under way than the steps workers that answer have threads.",
)
def check_slots(facts: DoctorFacts) -> list[CheckResult]:
    """Only a warning: a worker that is being restarted does not answer, and one of an older version does not say."""
    steps = [worker for worker in facts.workers or () if "vmferry.steps" in worker.queues]
    if not steps:
        return []
    slots = sum(worker.slots or 0 for worker in steps)
    if any(worker.slots is None for worker in steps):
        return [unseen("SLOTS_ENOUGH", ABOUT, "a steps worker does not say how many threads it has")]
    if slots < facts.max_total:
        message = f"max_total = {facts.max_total}, and the steps workers that answer have {slots} threads in all"
        return [warning("CAP_ABOVE_SLOTS", ABOUT, message, "start more of them, or lower max_total")]
    return [ok("SLOTS_ENOUGH", ABOUT, f"{slots} threads for at most {facts.max_total} migrations")]


def _said(facts: DoctorFacts) -> str:
    names = sorted(worker.name for worker in facts.workers or ())
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return shown or "no worker answers"


@check(
    WORKERS_SAME_VERSION="All workers run the version of vmferry that looks.",
    WORKER_OTHER_VERSION="A worker runs another version of vmferry than the one that looks.",
)
def check_versions(facts: DoctorFacts) -> list[CheckResult]:
    """A newer worker writes records that an older one leaves alone."""
    if not facts.workers:
        return []
    others = [worker for worker in facts.workers if worker.version != facts.version]
    if others:
        named = ", ".join(f"{worker.name} ({worker.version or 'unknown'})" for worker in others)
        message = f"this is vmferry {facts.version}; another version runs in {named}"
        return [warning("WORKER_OTHER_VERSION", ABOUT, message, "restart these workers after upgrading them")]
    return [ok("WORKERS_SAME_VERSION", ABOUT, f"all run vmferry {facts.version}, as this program does")]


@check(
    BEAT_RUNS="The reconciler is woken up periodically.",
    NO_BEAT="Nobody wakes the reconciler: after a crash nothing goes on.",
)
def check_beat(facts: DoctorFacts) -> list[CheckResult]:
    """Beat leaves no trace of itself; what it sends is seen where it arrives."""
    control = [worker for worker in facts.workers or () if "vmferry" in worker.queues]
    if not control:
        return [unseen("BEAT_RUNS", "beat", "beat can only be seen by a control worker, and none answers")]
    limit = BEAT_PERIODS * facts.reconcile_period_s + BEAT_SLACK_S
    seen = [worker.reconciled_ago_s for worker in control if worker.reconciled_ago_s is not None]
    if seen and min(seen) <= limit:
        return [ok("BEAT_RUNS", "beat", f"the reconciler was woken up {min(seen):.0f} s ago")]
    up = max(worker.up_s for worker in control)
    if not seen and up <= limit:
        message = f"the control worker started {up:.0f} s ago and was not woken up yet"
        return [unseen("BEAT_RUNS", "beat", message, f"ask again in {limit:.0f} s")]
    ago = f"{min(seen):.0f} s ago" if seen else f"not since {up:.0f} s ago, when the worker started"
    message = f"the reconciler was last woken up {ago}; it should be every {facts.reconcile_period_s:g} s"
    return [failed("NO_BEAT", "beat", message, "start it: vmferry beat")]
