"""Drains of the configuration, and when they begin."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.model.recurring import RecurringStatus
from tasks.rendering.records import when
from tasks.rendering.tables import print_rows


def print_recurring(found: Sequence[RecurringStatus]) -> None:
    """A row for each of the next times of each of them, in local time."""
    rows = []
    for status in found:
        last = f"{status.last}: {status.last_state}" if status.last else None
        for number, one in enumerate(status.coming):
            own = (last, status.problem) if number == 0 else (None, None)
            rows.append([status.name, status.host, when(one.due), when(one.ends), when(one.returns), *own])
        if not status.coming:
            rows.append([status.name, status.host, None, None, None, last, status.problem or "it never begins"])
    columns = ["RECURRING", "HOST", "BEGINS", "UNTIL", "RETURNS", "LAST", "PROBLEM"]
    print_rows(columns, rows, empty="no recurring drains: see [recurring_drains.NAME] in docs/drains.md")
