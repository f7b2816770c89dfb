"""How long a move will take: what is to be moved over the rate that was last seen, and how far off that may be."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from tasks.model.estimate import Estimate

SEEN = 8
"""How many of the last moves over a link count: enough for a spread, few enough to follow a link that changes."""
FIRST_GUESS = 2.0
"""With one rate seen the true one may be half or twice of it; said so, rather than measured."""
LEAST_BPS = 1.0
"""A byte a second is no rate: nothing was measured, and to divide by it says nothing."""
FIXED_S = 2.0
"""What every move takes beside its bytes: looking, preparing, verifying, letting go."""


def with_wait(estimate: Estimate, most_s: float) -> Estimate:
    """The same with a wait before it, of which only the end is known."""
    return Estimate(estimate.seconds + most_s / 2, estimate.low_s, estimate.high_s + most_s)


def estimate_move(bytes_to_move: int, rates: Sequence[float]) -> Estimate | None:
    """``rates`` in bytes per second, the newest last, of moves over the same link; None when none was seen.

    The middle is that of the last few; the ends are the fastest and the slowest of them.
    """
    seen = [rate for rate in rates if rate >= LEAST_BPS][-SEEN:]
    if not seen:
        return None
    middle, slow, fast = statistics.median(seen), min(seen), max(seen)
    if len(seen) == 1:
        slow, fast = middle / FIRST_GUESS, middle * FIRST_GUESS
    seconds, high, low = (FIXED_S + bytes_to_move / rate for rate in (middle, slow, fast))
    return Estimate(seconds, low, high)
