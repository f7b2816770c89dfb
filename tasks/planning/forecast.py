"""How a whole drain will go, if nothing else moves: its VMs one after the other through its limits, by their estimates.

It is gone through three times, with each move as quick, as likely and as slow as estimated; what may start is decided
as it will be. Of moves without an estimate nothing is known: they are counted, and take no time here.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from tasks.model.estimate import Estimate
from tasks.planning.windows import Schedule, decide_start


@dataclass(frozen=True, slots=True)
class Move:
    """One VM that will move."""

    uuid: str
    tokens: tuple[str, ...]
    """Limits that it counts towards."""
    estimate: Estimate | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected."""

    begins: float | None
    """Seconds since the epoch; None: it never may."""
    expected: Estimate | None
    """From then to the end of the last; None when no move has an estimate."""
    late: Mapping[str, str] = field(default_factory=dict)
    """UUID -> why it will not be moved in time."""
    maybe_late: frozenset[str] = frozenset()
    """UUIDs of others that will not when all take as long as they may."""


def forecast(moves: Sequence[Move], limits: Mapping[str, int], schedule: Schedule, now: float) -> Forecast:
    """``moves`` in the order in which they will start; ``limits`` by token."""
    verdict = decide_start(schedule, now, None)
    begins = now if verdict.may_start else verdict.not_before
    if begins is None:
        return Forecast(None, None, {move.uuid: verdict.why for move in moves})
    low, middle, high = (
        _go_through(moves, limits, schedule, begins, pick)
        for pick in (lambda e: e.low_s, lambda e: e.seconds, lambda e: e.high_s)
    )
    known = any(move.estimate is not None for move in moves)
    expected = Estimate(middle[0], min(low[0], middle[0]), max(high[0], middle[0])) if known else None
    return Forecast(begins, expected, middle[1], frozenset(high[1]) - frozenset(middle[1]))


def _go_through(
    moves: Sequence[Move],
    limits: Mapping[str, int],
    schedule: Schedule,
    begins: float,
    pick: Callable[[Estimate], float],
) -> tuple[float, dict[str, str]]:
    """Seconds from the beginning to the end of the last, and what could not start in time."""
    waiting, used, late = list(moves), Counter[str](), dict[str, str]()
    under_way: list[tuple[float, int, Move]] = []
    now, last, numbers = begins, begins, count()
    while waiting:
        full = {token for token, limit in limits.items() if used[token] >= limit}
        left = []
        for move in waiting:
            if any(token in full for token in move.tokens):
                left.append(move)
            elif not (verdict := decide_start(schedule, now, move.estimate)).may_start:
                late[move.uuid] = verdict.why
            else:
                used.update(move.tokens)
                full |= {token for token in move.tokens if used[token] >= limits[token]}
                ends = now + (pick(move.estimate) if move.estimate is not None else 0.0)
                last = max(last, ends)
                heapq.heappush(under_way, (ends, next(numbers), move))
        waiting = left
        if not under_way:
            break
        now, _, ended = heapq.heappop(under_way)
        used.subtract(ended.tokens)
    return last - begins, late
