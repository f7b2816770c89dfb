"""When a migration may start: its window, not-before and deadline, against how long it is expected to take."""

from __future__ import annotations

from tasks.model.estimate import Estimate
from tasks.model.request import MigrationRequest, Times
from tasks.model.run import RunRecord
from tasks.planning.estimates import estimate_move, with_wait
from tasks.planning.windows import Schedule, Verdict, decide_start, parse_window
from tasks.workflow.runtime import Runtime

LEAST_BYTES = 1 << 24
"""Moves of less say more about beginnings and ends than about the link."""


def schedule_of(times: Times) -> Schedule:
    """A request's times.

    Raises:
        InvalidRequest: ``INVALID_WINDOW``, ``UNKNOWN_TIME_ZONE``.
    """
    window = parse_window(times.window, times.time_zone) if times.window else None
    return Schedule(window, times.not_before, times.deadline)


def may_start(runtime: Runtime, record: RunRecord) -> Verdict:
    """Whether it may start now; of what it has to move only the memory is known before it is looked at."""
    request: MigrationRequest = record.request
    if not request.is_timed:
        return Verdict(True)
    estimate = estimate_of(runtime, request, record.source or "", record.expected_bytes)
    return decide_start(schedule_of(request), runtime.store.now(), estimate)


def estimate_of(runtime: Runtime, request: MigrationRequest, source: str, size_bytes: int) -> Estimate | None:
    """How long it takes, the guest's time to shut down included; None when no move between the two was seen lately."""
    rates = runtime.rates.last(source, request.destination) if source else []
    estimate = estimate_move(size_bytes, rates)
    if estimate is None or request.shut_down == "never":
        return estimate
    return with_wait(estimate, runtime.settings.policy(request.policy).shut_down_timeout_s)


def why_not_yet(runtime: Runtime, record: RunRecord) -> str:
    """Why nothing with these times may start now, however little it has to move; empty when something may."""
    if not record.request.is_timed:
        return ""
    verdict = decide_start(schedule_of(record.request), runtime.store.now(), None)
    return "" if verdict.may_start or verdict.not_before is None else verdict.why


def note_rate(runtime: Runtime, record: RunRecord) -> None:
    """Remember how fast a move was that has just succeeded."""
    progress = record.progress
    moved = progress.memory.processed_bytes + progress.disk.processed_bytes
    if record.source and moved >= LEAST_BYTES and progress.elapsed_ms > 0:
        runtime.rates.note(record.source, record.destination, moved * 1000 / progress.elapsed_ms)
