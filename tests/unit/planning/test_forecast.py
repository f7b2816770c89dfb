"""How a whole drain is expected to go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasks.model.estimate import Estimate
from tasks.planning.forecast import Move, forecast
from tasks.planning.windows import Schedule, parse_window

NOON = 1_800_014_400.0
"""12:00 UTC."""
HOUR = 3600.0


def moves(*seconds: float, tokens: tuple[str, ...] = ("out",)) -> list[Move]:
    return [Move(f"vm{n}", tokens, Estimate(s, s / 2, s * 2)) for n, s in enumerate(seconds)]


def test_one_after_the_other_and_two_at_a_time() -> None:
    found = forecast(moves(100, 100, 100, 100), {"out": 1}, Schedule(), NOON)
    assert found.expected == Estimate(400, 200, 800)
    assert found.begins == NOON
    assert forecast(moves(100, 100, 100, 100), {"out": 2}, Schedule(), NOON).expected == Estimate(200, 100, 400)


def test_the_tightest_limit_counts() -> None:
    both = [Move("a", ("out", "in:x"), Estimate(10, 10, 10)), Move("b", ("out", "in:x"), Estimate(10, 10, 10))]
    assert forecast(both, {"out": 9, "in:x": 1}, Schedule(), NOON).expected == Estimate(20, 20, 20)


def test_what_does_not_fit_is_said_and_what_perhaps_does_not() -> None:
    """Four hours; three that take an hour as likely, two at most, one after the other; the first hour is lost."""
    schedule = Schedule(parse_window("13:00-17:00"))
    found = forecast(moves(HOUR, HOUR, HOUR), {"out": 1}, schedule, NOON)
    assert found.begins == NOON + HOUR
    assert found.late == {}
    assert found.maybe_late == {"vm2"}
    found = forecast(moves(HOUR, HOUR, 2 * HOUR), {"out": 1}, schedule, NOON)
    assert set(found.late) == {"vm2"}
    assert "would end after the window" in found.late["vm2"]


def test_after_the_deadline_nothing_goes() -> None:
    found = forecast(moves(10), {"out": 1}, Schedule(deadline=NOON - 1), NOON)
    assert found.begins is None
    assert set(found.late) == {"vm0"}


def test_without_estimates_nothing_is_claimed() -> None:
    found = forecast([Move("a", ("out",), None)], {"out": 1}, Schedule(), NOON)
    assert found.expected is None
    assert found.late == {}


def test_a_limit_of_none_at_all_does_not_hang() -> None:
    assert forecast(moves(10), {"out": 0}, Schedule(), NOON).expected == Estimate(0, 0, 0)


@given(st.lists(st.floats(1, 1000), min_size=1, max_size=30), st.integers(1, 5))
def test_between_the_longest_and_all_of_them(seconds: list[float], slots: int) -> None:
    expected = forecast(moves(*seconds), {"out": slots}, Schedule(), NOON).expected
    assert expected is not None
    slack = 1e-3
    assert max(seconds) - slack <= expected.seconds <= sum(seconds) + slack
    assert expected.seconds >= sum(seconds) / slots - slack
    assert expected.low_s <= expected.seconds <= expected.high_s
