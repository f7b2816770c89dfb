"""What queued migrations wait for."""

from __future__ import annotations

import json
from typing import Final

from tasks.model.run import RunRecord

RANK_S: Final = 1e10
"""One step of priority goes before every difference of time that there is."""


def lane_of(record: RunRecord) -> str:
    """What a queued migration waits for, but for its own VM: all in one lane may start, or none of them."""
    request = record.request
    times = [request.window, request.time_zone, request.not_before, request.deadline] if request.is_timed else []
    pools = [sorted(record.pools)] if record.pools else []
    return json.dumps([record.drain, record.source or "", record.destination, times, *pools])


def hosts_of_lane(lane: str) -> tuple[str, str]:
    """Source (empty: not known yet) and destination of all that stand in it."""
    _, source, destination, *_ = json.loads(lane)
    return str(source), str(destination)
