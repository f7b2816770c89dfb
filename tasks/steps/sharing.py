"""One transfer's part of the links that it goes over, as long as it lasts.

What it is allotted stands in the store and is never less than what it uses: more is used after it was allotted, less is
noted after less is used. So the sum of what all use stays within a link's limit, whoever dies when. What a dead owner's
transfer is allotted stays so until it is adopted or over.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tasks.model.bandwidth import Flow
from tasks.model.errors import OperatorMustFix
from tasks.planning.shares import share_out
from tasks.steps.run import StepRun
from tasks.steps.verdict import Waits

BEGINS_WITHIN_S = 3.0
"""Others come down at their next look; whoever cannot begin by then gives its worker's slot back."""
BEGIN_PERIOD_S = 0.1

Apply = Callable[[int], bool]
"""Puts a limit in force, MiB/s; tells whether it is."""


class Sharing:
    """What one transfer may use, MiB/s; decided anew at each look."""

    def __init__(self, run: StepRun, apply: Apply = lambda _: True) -> None:
        self._run, self._apply = run, apply
        self._applied: int | None = None
        mirrored = run.method.streams_memory or run.record.mirrored_off
        least = max(1, len(run.record.copies)) if mirrored else 1
        most = max(run.policy.bandwidth_mib_s, least) if run.policy.bandwidth_mib_s else 0
        self._flow = Flow(run.record.id, run.route.links, least, most)

    def begin(self) -> int:
        """What may be used from now on, 0: no limit; waits a moment for others to come down.

        Raises:
            Waits: nothing is left of a link, and nobody came down in time.
            OperatorMustFix: ``LINK_TOO_NARROW``.
        """
        run = self._run
        if not run.route.links:
            return self._flow.most
        self._check_width()
        until = time.monotonic() + BEGINS_WITHIN_S
        while True:
            run.interrupt_if_asked()
            mine, everyone = run.shares.ask(run.record, self._flow, run.route)
            goal = share_out(everyone, run.route.limits)[mine.id]
            if goal and not mine.held:
                mine, everyone = run.shares.ask(run.record, self._flow, run.route, goal)
            if mine.held:
                if run.record.waiting_for is not None:
                    run.save(waiting_for=None)
                return mine.held
            if time.monotonic() > until:
                raise Waits(_why(self._flow, everyone))
            run.stopping.wait(BEGIN_PERIOD_S)

    def look(self, *, again: bool = False) -> None:
        """Come down to one's share, or go up as far as something is left; ``again``: also when it did not change."""
        run = self._run
        if not run.route.links:
            self._put(self._flow.most, again=False)
            return
        mine, everyone = run.shares.ask(run.record, self._flow, run.route)
        goal = share_out(everyone, run.route.limits)[mine.id] or mine.held
        if goal > mine.held:
            mine, _ = run.shares.ask(run.record, self._flow, run.route, goal)
            goal = mine.held
        if goal and self._put(goal, again=again) and goal < mine.held:
            run.shares.ask(run.record, self._flow, run.route, goal)

    def _put(self, mib_s: int, *, again: bool) -> bool:
        if mib_s != self._applied or again:
            self._run.lease.check()
            if not mib_s or not self._apply(mib_s):
                return False
            self._applied = mib_s
        return True

    def _check_width(self) -> None:
        limits, least = self._run.route.limits, self._flow.least
        narrow = [link for link in self._flow.links if limits.get(link, least) < least]
        if narrow:
            message = f"{least} disks at once need {least} MiB/s, and {_shown(narrow[0])} has {limits[narrow[0]]}"
            raise OperatorMustFix("LINK_TOO_NARROW", message, "give the link more, or move the VM shut off")


def _why(flow: Flow, everyone: list[Flow]) -> str:
    users = sorted(o.id for o in everyone if o.held and set(o.links) & set(flow.links))
    others = f"; {', '.join(users[:3])}{' and others' if len(users) > 3 else ''} have it" if users else ""
    return f"no bandwidth is left of {' and '.join(map(_shown, flow.links))}{others}"


def _shown(link: str) -> str:
    kind, _, name = link.partition(":")
    return {"out": f"the way out of {name}", "in": f"the way into {name}"}.get(kind, f"link {name}")
