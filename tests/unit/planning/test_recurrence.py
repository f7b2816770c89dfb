"""When drains of the configuration are due: clocks are passed in, also over changes of summer time."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.planning.recurrence import (
    LATE_S,
    Recurrence,
    next_occasions,
    occasions_between,
    parse_recurrence,
    returns_between,
)

BERLIN = "Europe/Berlin"
DAY = 86400.0


def made(at: str = "22:00", until: str | None = "05:00", **more: Any) -> Recurrence:
    values: dict[str, Any] = {"return_at": None, "days": [], "weeks": [], "zone": BERLIN} | more
    return parse_recurrence(at, until, **values)


def moment(text: str, zone: str = BERLIN, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def wall(seconds: float | None, zone: str = BERLIN) -> str:
    assert seconds is not None
    return datetime.fromtimestamp(seconds, ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M %Z")


def test_each_evening_until_the_morning() -> None:
    found = next_occasions(made(), moment("2026-11-26 12:00"), 2)
    assert [(wall(o.due), wall(o.ends)) for o in found] == [
        ("2026-11-26 22:00 CET", "2026-11-27 05:00 CET"),
        ("2026-11-27 22:00 CET", "2026-11-28 05:00 CET"),
    ]
    assert [o.stamp for o in found] == ["20261126T2100Z", "20261127T2100Z"]


def test_days_and_which_of_them_in_the_month() -> None:
    now = moment("2026-11-26 12:00")
    tuesdays = next_occasions(made(days=["tue", "sat"]), now, 3)
    assert [wall(o.due)[:10] for o in tuesdays] == ["2026-11-28", "2026-12-01", "2026-12-05"]
    second = next_occasions(made(days=["tue"], weeks=[2]), now, 2)
    assert [wall(o.due)[:10] for o in second] == ["2026-12-08", "2027-01-12"]
    last = next_occasions(made(days=["sun"], weeks=[-1]), now, 3)
    assert [wall(o.due)[:10] for o in last] == ["2026-11-29", "2026-12-27", "2027-01-31"]
    fifth = next_occasions(made(days=["mon"], weeks=[5]), now, 2)
    assert [wall(o.due)[:10] for o in fifth] == ["2026-11-30", "2027-03-29"]


def test_the_same_day_when_it_ends_later_than_it_begins() -> None:
    (one,) = next_occasions(made("01:00", "04:30"), moment("2026-11-26 12:00"), 1)
    assert (wall(one.due), wall(one.ends)) == ("2026-11-27 01:00 CET", "2026-11-27 04:30 CET")


def test_when_vms_come_back() -> None:
    (one,) = next_occasions(made(return_at="05:30"), moment("2026-11-26 12:00"), 1)
    assert wall(one.returns) == "2026-11-27 05:30 CET"
    (one,) = next_occasions(made(return_at="04:00"), moment("2026-11-26 12:00"), 1)
    assert wall(one.returns) == "2026-11-28 04:00 CET"
    assert [wall(o.due) for o in returns_between(made(return_at="05:30"), one.due, one.due + DAY)] == [
        "2026-11-26 22:00 CET"
    ]


def test_a_time_that_does_not_exist_counts_by_the_clock_before() -> None:
    """On 2027-03-28 Berlin's clocks go from 02:00 to 03:00."""
    (one,) = occasions_between(made("02:30", "04:00"), moment("2027-03-27 12:00"), moment("2027-03-28 12:00"))
    assert (wall(one.due), wall(one.ends)) == ("2027-03-28 03:30 CEST", "2027-03-28 04:00 CEST")
    assert one.may_begin(one.due)


def test_hours_that_do_not_exist_leave_no_time() -> None:
    (one,) = occasions_between(made("02:15", "03:00"), moment("2027-03-27 12:00"), moment("2027-03-28 12:00"))
    assert not one.has_time
    assert not one.may_begin(one.due)
    coming = next_occasions(made("02:15", "03:00"), moment("2027-03-27 12:00"), 1)
    assert wall(coming[0].due) == "2027-03-29 02:15 CEST", "it is not announced either"


def test_a_time_that_comes_twice_counts_once() -> None:
    """On 2027-10-31 they go from 03:00 back to 02:00: half past two comes twice."""
    found = occasions_between(made("02:30", "05:00"), moment("2027-10-30 12:00"), moment("2027-10-31 12:00"))
    assert [wall(o.due) for o in found] == ["2027-10-31 02:30 CEST"]
    second = moment("2027-10-31 02:30", fold=1)
    assert occasions_between(made("02:30", "05:00"), second - 1, second + 1) == []


def test_the_night_of_a_change_is_an_hour_longer_or_shorter() -> None:
    shorter, longer = (
        occasions_between(made(), moment(f"{day} 12:00"), moment(f"{day} 23:00"))[0]
        for day in ("2027-03-27", "2027-10-30")
    )
    assert (shorter.ends or 0) - shorter.due == 6 * 3600
    assert (longer.ends or 0) - longer.due == 8 * 3600


def test_what_was_missed_may_begin_late_as_long_as_there_is_time() -> None:
    (one,) = next_occasions(made(return_at="05:30"), moment("2026-11-26 12:00"), 1)
    assert one.may_begin(moment("2026-11-27 04:59"))
    assert not one.may_begin(moment("2026-11-27 05:00"))
    assert one.may_return(moment("2026-11-27 06:29"))
    assert not one.may_return(moment("2026-11-27 06:31"))
    (endless,) = next_occasions(made(until=None), moment("2026-11-26 12:00"), 1)
    assert endless.may_begin(endless.due + LATE_S - 1)
    assert not endless.may_begin(endless.due + LATE_S)


ZONES = st.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu"])
CLOCKS = st.times().map(lambda t: t.strftime("%H:%M"))
MOMENTS = st.floats(datetime(2009, 1, 1, tzinfo=UTC).timestamp(), datetime(2030, 1, 1, tzinfo=UTC).timestamp())


@given(zone=ZONES, at=CLOCKS, begin=MOMENTS, cuts=st.lists(st.floats(0, 30 * DAY), max_size=8))
def test_however_often_it_is_looked_each_occasion_is_seen_once(
    zone: str, at: str, begin: float, cuts: list[float]
) -> None:
    recurrence = parse_recurrence(at, None, None, [], [], zone)
    ends = sorted({begin, *(begin + cut for cut in cuts), begin + 30 * DAY})
    pieces = [occasions_between(recurrence, one, other) for one, other in pairwise(ends)]
    together = occasions_between(recurrence, begin, begin + 30 * DAY)
    assert [o for piece in pieces for o in piece] == together
    assert len({o.stamp for o in together}) == len(together)
    assert 29 <= len(together) <= 31
    assert next_occasions(recurrence, begin, 1) == together[:1]


@pytest.mark.parametrize("days", [["mon"], ["mon", "fri"], []])
def test_at_the_very_moment_it_is_due(days: list[str]) -> None:
    (one,) = next_occasions(made(days=days), moment("2026-11-26 12:00"), 1)
    assert occasions_between(made(days=days), one.due - 1, one.due) == [one]
    assert occasions_between(made(days=days), one.due, one.due + 1) == []
