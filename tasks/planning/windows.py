"""When a drain may start something: windows of the day in a time zone, and the earliest and latest moments.

Times go in and out as seconds since the epoch; the clock is the caller's. A window is a wall clock's: on the two days a
year that the clock is changed it is an hour longer or shorter, as everybody there expects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tasks.model.errors import InvalidRequest
from tasks.model.estimate import Estimate

WINDOW = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")
EXAMPLE = "for example 22:00-06:00; over midnight is fine"


@dataclass(frozen=True, slots=True)
class Window:
    """The same hours of every day."""

    begins: time
    ends: time
    """Of the next day when it is not after ``begins``."""
    zone: str
    """IANA name, for example ``Europe/Berlin``."""

    def opening(self, now: float) -> tuple[float, float]:
        """The window that is open now, else the next one: its beginning and its end."""
        today = datetime.fromtimestamp(now, ZoneInfo(self.zone)).date()
        spans = (self._on(today + timedelta(days=days)) for days in (-1, 0, 1, 2))
        return next(span for span in spans if span[1] > now)

    def _on(self, day: date) -> tuple[float, float]:
        zone = ZoneInfo(self.zone)
        last = day if self.ends > self.begins else day + timedelta(days=1)
        begins = datetime.combine(day, self.begins, zone).timestamp()
        # A span that the change of clocks makes end before it begins is empty, and never longer than a day.
        return begins, max(begins, datetime.combine(last, self.ends, zone).timestamp())


def parse_window(text: str, zone: str = "UTC") -> Window:
    """A window as people type it.

    Raises:
        InvalidRequest: code ``INVALID_WINDOW`` or ``UNKNOWN_TIME_ZONE``.
    """
    found = WINDOW.fullmatch(text.strip())
    if found is None:
        raise InvalidRequest("INVALID_WINDOW", f"{text!r:.40} is no window of time", EXAMPLE)
    hours = [int(part) for part in found.groups()]
    begins, ends = time(hours[0], hours[1]), time(hours[2], hours[3])
    if begins == ends:
        raise InvalidRequest("INVALID_WINDOW", f"{text} begins when it ends", f"leave it out for all day; {EXAMPLE}")
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        hint = "an IANA name such as Europe/Berlin; is tzdata installed?"
        raise InvalidRequest("UNKNOWN_TIME_ZONE", f"{zone!r:.60} is no time zone", hint) from None
    return Window(begins, ends, zone)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something may run; everything that is None does not limit it."""

    window: Window | None = None
    not_before: float | None = None
    deadline: float | None = None
    """Nothing may be under way after it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one migration may start now."""

    may_start: bool
    why: str = ""
    """Why not, in words."""
    not_before: float | None = None
    """When it may be asked again; None: it will never fit."""


def decide_start(schedule: Schedule, now: float, estimate: Estimate | None) -> Verdict:
    """Whether something that takes as long as estimated may start now.

    What counts is the estimate's upper end. Without an estimate it may start while the window is open: nothing is known
    before the first was moved, and nobody is served by waiting for ever.
    """
    needs = estimate.high_s if estimate is not None else 0.0
    if schedule.not_before is not None and now < schedule.not_before:
        return Verdict(False, f"not before {_said(schedule.not_before, schedule)}", schedule.not_before)
    if schedule.deadline is not None and now + needs > schedule.deadline:
        return Verdict(False, f"{_takes(estimate)}would end after the deadline {_said(schedule.deadline, schedule)}")
    if schedule.window is None:
        return Verdict(True)
    opens, closes = schedule.window.opening(now)
    if now < opens:
        return _later(schedule, needs, opens, f"the window opens at {_said(opens, schedule)}", estimate)
    if now + needs <= closes:
        return Verdict(True)
    why = f"{_takes(estimate)}would end after the window, which closes at {_said(closes, schedule)}"
    for _ in range(2):  # the next one may be the night in which the clocks are changed
        opens, closes = schedule.window.opening(closes)
        if needs <= closes - opens:
            return _later(schedule, needs, opens, why, estimate)
    return Verdict(False, why)


def _later(schedule: Schedule, needs: float, at: float, why: str, estimate: Estimate | None) -> Verdict:
    if schedule.deadline is not None and at + needs > schedule.deadline:
        until = _said(schedule.deadline, schedule)
        return Verdict(False, f"{why}; {_takes(estimate)}would end after the deadline {until} then")
    return Verdict(False, why, at)


def _takes(estimate: Estimate | None) -> str:
    return "it " if estimate is None else f"it takes {estimate.words} and "


def _said(at: float, schedule: Schedule) -> str:
    zone = ZoneInfo(schedule.window.zone) if schedule.window is not None else UTC
    return datetime.fromtimestamp(at, zone).strftime("%Y-%m-%d %H:%M %Z")
