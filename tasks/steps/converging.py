"""A policy in force: what it decides at each look at a running transfer, written down and then done."""

from __future__ import annotations

import logging
from functools import partial

from tasks.model.domain import DomainState, JobStats
from tasks.model.run import ErrorInfo, JournalEntry, State
from tasks.planning.convergence import Action, decide, standing
from tasks.steps.post_copy import switch_over
from tasks.steps.run import StepRun

log = logging.getLogger(__name__)


class Converging:
    """Decides from what the record remembers, so that who adopts a transfer goes on where another one ended."""

    def __init__(self, run: StepRun) -> None:
        self._run = run
        self._open = list(standing(run.policy.convergence, run.record.converging))
        self._deciding = run.record.state is not State.ROLLING_BACK
        """Rollback ends a transfer; what cannot be ended, it helps on, and decides nothing new."""
        if not self._deciding:
            kinds = {"abort", "post-copy"} if run.record.post_copy_begun else {"abort"}
            self._open = [action for action in self._open if action.kind in kinds]

    @property
    def begun(self) -> bool:
        """Whether the running job has been told what the policy begins with."""
        return self._run.record.converging.step > 0 and all(action.kind != "downtime" for action in self._open)

    def look(self, job: JobStats, **changes: object) -> None:
        """One look, whose figures go into the record as well; what cannot be done yet is tried again at the next."""
        run = self._run
        kept, action = run.record.converging, None
        if self._deciding:
            kept, action = decide(run.policy.convergence, run.record.converging, job, run.store.now())
        # Written down first: an owner that dies in between leaves it to the next one, who does it again.
        run.save(converging=kept, **changes)
        if action is not None:
            log.info("%s %s: %s", action.kind, f"{action.downtime_ms} ms" if action.downtime_ms else "", action.why)
            self._open.append(action)
        self._open = [action for action in self._open if not self._do(action)]

    def _do(self, action: Action) -> bool:
        run = self._run
        run.lease.check()
        if action.kind == "downtime":
            return run.hypervisor.set_max_downtime(run.source, run.uuid, action.downtime_ms)
        if action.kind == "pause":
            _pause(run)
            return True
        if action.kind == "post-copy":
            return switch_over(run)
        message = f"given up as policy {run.record.request.policy} says: {action.why}"
        hint = "choose another policy, then retry"
        run.save(error=ErrorInfo(code="COMPLETION_TIMEOUT", message=message, hint=hint))
        run.lease.check()
        run.hypervisor.abort_job(run.source, run.uuid)
        return True


def _pause(run: StepRun) -> None:
    """One that stands still already, by its owner's will, is not paused for this, and so not resumed in the end."""
    view = run.hypervisor.find_domain(run.source, run.uuid)
    if run.intent("source_pause") is None and view is not None and view.state is DomainState.PAUSED:
        return
    run.effect("source_pause", run.source, "", partial(run.hypervisor.suspend, run.source, run.uuid))


def undo_pause(run: StepRun, entry: JournalEntry) -> None:
    """The VM stays, and ran before it was paused."""
    view = run.hypervisor.find_domain(entry.host, run.uuid)
    if view is not None and view.active:
        run.hypervisor.resume(entry.host, run.uuid)
