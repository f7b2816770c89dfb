"""Windows, earliest and latest moments, and estimates."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.model.errors import InvalidRequest
from tasks.model.estimate import Estimate
from tasks.planning.estimates import FIXED_S, estimate_move
from tasks.planning.windows import Schedule, decide_start, parse_window

BERLIN = "Europe/Berlin"
NIGHT = parse_window("22:00-06:00", BERLIN)


def at(text: str, zone: str = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def test_over_midnight() -> None:
    evening, morning = at("2026-11-23T22:00"), at("2026-11-24T06:00")
    for now in ("2026-11-23T12:00", "2026-11-23T22:00", "2026-11-24T03:00", "2026-11-24T05:59"):
        assert NIGHT.opening(at(now)) == (evening, morning)
    assert NIGHT.opening(morning) == (at("2026-11-24T22:00"), at("2026-11-25T06:00"))


@pytest.mark.parametrize(("night", "hours"), [("2026-03-28", 7), ("2026-10-24", 9), ("2026-11-23", 8)])
def test_nights_on_which_clocks_change(night: str, hours: int) -> None:
    begins, ends = NIGHT.opening(at(f"{night}T21:00"))
    assert ends - begins == hours * 3600


def test_an_hour_that_does_not_exist() -> None:
    window = parse_window("02:10-02:50", BERLIN)
    begins, ends = window.opening(at("2026-03-29T00:30"))
    assert 0 <= ends - begins <= 3600


@given(
    st.integers(0, 2**32),
    st.times().map(lambda t: t.replace(second=0, microsecond=0)),
    st.times().map(lambda t: t.replace(second=0, microsecond=0)),
    st.sampled_from(["UTC", BERLIN, "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia"]),
)
def test_there_is_always_a_next_one(now: int, begins: object, ends: object, zone: str) -> None:
    if begins == ends:
        return
    opens, closes = parse_window(f"{begins:%H:%M}-{ends:%H:%M}", zone).opening(now)
    assert closes > now
    assert opens <= now + 49 * 3600  # some zones have skipped a day
    assert 0 <= closes - opens <= 25 * 3600


@pytest.mark.parametrize("text", ["", "22-06", "22:00", "24:00-06:00", "22:00-06:60", "22:00-22:00", "22:00–06:00"])
def test_what_is_no_window(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"window|begins"):
        parse_window(text)


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../etc/passwd", "Europe"])
def test_what_is_no_zone(zone: str) -> None:
    with pytest.raises(InvalidRequest, match="no time zone"):
        parse_window("22:00-06:00", zone)


HOUR = Estimate(3000, 2400, 3600)


@pytest.mark.parametrize(
    ("now", "schedule", "may", "why", "again"),
    [
        ("2026-11-23T23:00", Schedule(NIGHT), True, "", None),
        ("2026-11-24T05:00", Schedule(NIGHT), True, "", None),
        ("2026-11-24T05:01", Schedule(NIGHT), False, "closes at 2026-11-24 06:00 CET", "2026-11-24T22:00"),
        ("2026-11-23T12:00", Schedule(NIGHT), False, "opens at 2026-11-23 22:00 CET", "2026-11-23T22:00"),
        ("2026-11-23T12:00", Schedule(), True, "", None),
        ("2026-11-23T12:00", Schedule(not_before=at("2026-11-23T13:00")), False, "not before", "2026-11-23T13:00"),
        ("2026-11-23T12:01", Schedule(deadline=at("2026-11-23T13:00")), False, "after the deadline", None),
        ("2026-11-23T12:00", Schedule(deadline=at("2026-11-23T13:00")), True, "", None),
        ("2026-11-23T21:00", Schedule(NIGHT, deadline=at("2026-11-23T22:30")), False, "deadline", None),
        ("2026-11-23T22:30", Schedule(parse_window("22:00-22:45", BERLIN)), False, "about 50 min (40 to 60)", None),
    ],
)
def test_may_it_start(now: str, schedule: Schedule, may: bool, why: str, again: str | None) -> None:
    verdict = decide_start(schedule, at(now), HOUR)
    assert verdict.may_start is may
    assert why in verdict.why
    assert verdict.not_before == (None if again is None else at(again))


def test_nothing_is_known_yet() -> None:
    assert decide_start(Schedule(NIGHT), at("2026-11-24T05:59"), None).may_start
    assert not decide_start(Schedule(NIGHT), at("2026-11-24T06:00"), None).may_start


@given(st.integers(0, 10**13), st.lists(st.floats(0, 10**10), max_size=20))
def test_an_estimate_has_the_middle_in_the_middle(size: int, rates: list[float]) -> None:
    found = estimate_move(size, rates)
    if found is None:
        assert all(rate < 1 for rate in rates)
        return
    assert FIXED_S <= found.low_s <= found.seconds <= found.high_s
    assert found.words.startswith("about ")


def test_rates() -> None:
    assert estimate_move(100, []) is None
    assert estimate_move(100, [5e-324]) is None
    assert estimate_move(100, [10.0]) == Estimate(12.0, 7.0, 22.0)
    assert estimate_move(100, [10.0, 20.0, 50.0]) == Estimate(7.0, 4.0, 12.0)
    assert estimate_move(100, [1.0] + [10.0] * 8) == Estimate(12.0, 12.0, 12.0)
    assert Estimate(240, 180, 420).words == "about 4 min (3 to 7)"
    assert Estimate(9000, 9000, 9000).words == "about 2.5 h"


def test_a_night_that_is_an_hour_short_refuses_nothing_for_ever() -> None:
    """22:00-05:00 has six hours when the clocks go forward, and seven in the night after."""
    schedule = Schedule(parse_window("22:00-05:00", BERLIN))
    long = Estimate(22_000, 20_000, 6.5 * 3600)
    verdict = decide_start(schedule, at("2026-03-28T02:00"), long)
    assert (verdict.may_start, verdict.not_before) == (False, at("2026-03-29T22:00"))
    longer = Estimate(22_000, 20_000, 7.5 * 3600)
    assert decide_start(schedule, at("2026-03-28T02:00"), longer).not_before is None
