"""When drains of the configuration are due, by the wall clock of a time zone.

Times go in and out as seconds since the epoch; the clock is the caller's. Each day has a beginning exactly once, also
where clocks are changed: a time that is skipped counts by the clock as it was before (02:30 is 03:30 then), of a time
that comes twice the first counts. An end that would come before its beginning that way leaves no time at all.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

LATE_S = 3600.0
"""How late something is begun that has no end of its own."""
LONGEST = timedelta(days=3)
"""Beginning, end and return are within it."""
AHEAD_DAYS = 400
"""How far the next occasion is looked for; some months have no fifth Tuesday."""
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
STAMP = "%Y%m%dT%H%MZ"


@dataclass(frozen=True, slots=True)
class Recurrence:
    """When it begins, again and again."""

    at: time
    until: time | None
    return_at: time | None
    """First one after ``until``."""
    days: frozenset[int]
    """0 is Monday; every day when empty."""
    weeks: frozenset[int]
    """Which of these days in a month; -1: the last."""
    zone: str


@dataclass(frozen=True, slots=True)
class Occasion:
    """One time of those."""

    due: float
    ends: float | None
    """Nothing may be under way after it."""
    returns: float | None
    """When the VMs come back."""

    @property
    def stamp(self) -> str:
        """The same wherever and whenever it is asked for: ids are made of it."""
        return datetime.fromtimestamp(self.due, UTC).strftime(STAMP)

    @property
    def has_time(self) -> bool:
        """Whether there is anything between beginning and end."""
        return self.ends is None or self.ends > self.due

    def may_begin(self, now: float) -> bool:
        """Whether it is not too late."""
        return self.has_time and now < (self.due + LATE_S if self.ends is None else self.ends)

    def may_return(self, now: float) -> bool:
        """Whether it is not too late for the VMs to come back."""
        return self.returns is not None and now < self.returns + LATE_S


def parse_recurrence(
    at: str, until: str | None, return_at: str | None, days: list[str], weeks: list[int], zone: str
) -> Recurrence:
    """From what the configuration has, which was checked there."""
    ends = None if until is None else time.fromisoformat(until)
    back = None if return_at is None else time.fromisoformat(return_at)
    return Recurrence(time.fromisoformat(at), ends, back, frozenset(map(DAYS.index, days)), frozenset(weeks), zone)


def occasions_between(recurrence: Recurrence, after: float, until: float) -> list[Occasion]:
    """Those that are due after the one moment, and not after the other."""
    first = datetime.fromtimestamp(after, ZoneInfo(recurrence.zone)).date() - timedelta(days=1)
    last = datetime.fromtimestamp(until, ZoneInfo(recurrence.zone)).date() + timedelta(days=1)
    found = (_on(recurrence, day) for day in _days(first, (last - first).days + 1) if _is_meant(recurrence, day))
    return [occasion for occasion in found if after < occasion.due <= until]


def returns_between(recurrence: Recurrence, after: float, until: float) -> list[Occasion]:
    """Those whose VMs come back after the one moment, and not after the other."""
    begun = occasions_between(recurrence, after - LONGEST.total_seconds(), until)
    return [one for one in begun if one.returns is not None and after < one.returns <= until]


def next_occasions(recurrence: Recurrence, now: float, count: int) -> list[Occasion]:
    """The next few."""
    today = datetime.fromtimestamp(now, ZoneInfo(recurrence.zone)).date()
    coming = (_on(recurrence, day) for day in _days(today, AHEAD_DAYS) if _is_meant(recurrence, day))
    return list(islice((occasion for occasion in coming if occasion.due > now and occasion.has_time), count))


def _days(first: date, count: int) -> Iterator[date]:
    return (first + timedelta(days=number) for number in range(count))


def _is_meant(recurrence: Recurrence, day: date) -> bool:
    if recurrence.days and day.weekday() not in recurrence.days:
        return False
    is_last = day.day + 7 > monthrange(day.year, day.month)[1]
    which = {(day.day - 1) // 7 + 1} | ({-1} if is_last else set())
    return not recurrence.weeks or bool(which & recurrence.weeks)


def _on(recurrence: Recurrence, day: date) -> Occasion:
    due = _moment(day, recurrence.at, recurrence.zone)
    if recurrence.until is None:
        return Occasion(due, None, None)
    last = day if recurrence.until > recurrence.at else day + timedelta(days=1)
    ends = _moment(last, recurrence.until, recurrence.zone)
    if recurrence.return_at is None:
        return Occasion(due, ends, None)
    back = last if recurrence.return_at > recurrence.until else last + timedelta(days=1)
    return Occasion(due, ends, _moment(back, recurrence.return_at, recurrence.zone))


def _moment(day: date, clock: time, zone: str) -> float:
    return datetime.combine(day, clock, ZoneInfo(zone)).timestamp()
