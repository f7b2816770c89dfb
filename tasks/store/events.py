"""The stream of events: written together with the change of state (see the Lua scripts), read here."""

from __future__ import annotations

import re
from typing import Any

import redis

from tasks.model.errors import InvalidRequest
from tasks.model.event import Event, Told
from tasks.store.runs import PREFIX, translated

KEY = f"{PREFIX}events"
BEGINNING = "0-0"
PAGE = 500


class EventStore:
    """All events of one Redis database. Every method raises ``StoreUnavailable`` when Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def newest(self, count: int) -> list[Told]:
        """The newest so many, oldest first."""
        with translated():
            found: Any = self._redis.xrevrange(KEY, count=count)
        return [_told(position, fields) for position, fields in reversed(found)]

    def read(self, after: str, *, wait_s: float = 0.0) -> list[Told]:
        """Up to ``PAGE`` events after a position, oldest first; waits for the first, when there is none, so long.

        Raises:
            InvalidRequest: ``INVALID_POSITION``.
        """
        block = int(wait_s * 1000) or None
        _number(after)
        with translated():
            found: Any = self._redis.xread({KEY: after}, count=PAGE, block=block)
        return [_told(position, fields) for _, entries in found for position, fields in entries]

    def lost_after(self, after: str) -> bool:
        """Whether events after this position may have fallen off the stream's end already."""
        with translated():
            if not self._redis.exists(KEY):
                return False
            info: Any = self._redis.xinfo_stream(KEY)
        first = info["first-entry"]
        dropped = info["entries-added"] > info["length"]
        return bool(dropped and first is not None and _number(after) < _number(first[0]))


def _told(position: str, fields: dict[str, str]) -> Told:
    return Told(position=position, at=float(fields["at"]), event=Event.model_validate_json(fields["event"]))


def _number(position: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,19})(?:-([0-9]{1,19}))?", position)
    if found is None:
        hint = "positions are those that events bear, such as 1795467094123-0; 0 is the beginning"
        raise InvalidRequest("INVALID_POSITION", f"{position!r:.60} is no position of the stream", hint)
    return int(found[1]), int(found[2] or 0)
