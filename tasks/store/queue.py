"""The queue's lanes: migrations that wait for the same things stand in one line, so that looking at its head is enough.

However many wait, whoever admits looks at one record a lane, and writes down once for the lane why it stands.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from tasks.model.lane import hosts_of_lane
from tasks.store.runs import PREFIX, translated


@dataclass(frozen=True, slots=True)
class Lane:
    """One line, and who is next in it."""

    key: str
    ahead: tuple[tuple[str, float], ...]
    """Ids of the first migrations in it, with their ranks; the smaller, the earlier, whatever the lane."""

    @property
    def head(self) -> str:
        """Id of the migration that is next."""
        return self.ahead[0][0]

    @property
    def score(self) -> float:
        """Its rank."""
        return self.ahead[0][1]


class QueueStore:
    """The lanes of one Redis database. Every method raises ``StoreUnavailable`` when Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def lanes(self, ahead: int = 1) -> list[Lane]:
        """All of them, in no order, each with so many of those that are next."""
        with translated():
            keys: list[str] = sorted(self._redis.smembers(f"{PREFIX}lanes"))  # type: ignore[arg-type]
            pipe = self._redis.pipeline(transaction=False)
            for key in keys:
                pipe.zrange(f"{PREFIX}lane:{key}", 0, ahead - 1, withscores=True)
            rows = pipe.execute()
        return [Lane(key, tuple(row)) for key, row in zip(keys, rows, strict=True) if row]

    def after(self, key: str, score: float, count: int) -> list[tuple[str, float]]:
        """Ids in a lane from a rank on, that one included, with their ranks."""
        with translated():
            found: Sequence[tuple[str, float]] = self._redis.zrangebyscore(  # type: ignore[assignment]
                f"{PREFIX}lane:{key}", score, "+inf", start=0, num=count, withscores=True
            )
        return list(found)

    def whys(self) -> dict[str, str]:
        """Lane -> why it stands, in one sentence."""
        with translated():
            return dict(self._redis.hgetall(f"{PREFIX}lanes:why"))  # type: ignore[arg-type]

    def note_whys(self, whys: dict[str, str]) -> None:
        """Write them down, for people; a lane that is left out goes on."""
        if self.whys() == whys:
            return
        said: dict[Any, Any] = dict(whys)
        with translated():
            pipe = self._redis.pipeline(transaction=True)
            pipe.delete(f"{PREFIX}lanes:why")
            if whys:
                pipe.hset(f"{PREFIX}lanes:why", mapping=said)
            pipe.execute()

    def note_awaited(self, names: Collection[str]) -> None:
        """Tokens that somebody in the queue waits for, which nobody who is out of it may take, and locks of VMs."""
        key = f"{PREFIX}awaited"
        with translated():
            if self._redis.smembers(key) == set(names):
                return
            pipe = self._redis.pipeline(transaction=True)
            pipe.delete(key)
            if names:
                pipe.sadd(key, *names)
            pipe.execute()

    def is_awaited(self, name: str) -> bool:
        """Whether somebody in the queue waits for it, as whoever looked last has seen."""
        with translated():
            return bool(self._redis.sismember(f"{PREFIX}awaited", name))

    def of_host(self, host: str, *, limit: int = 100) -> list[str]:
        """Ids of migrations that wait to leave a host, or to go to it; some of them when they are many."""
        with translated():
            keys: set[str] = self._redis.smembers(f"{PREFIX}lanes")  # type: ignore[assignment]
            found: list[str] = []
            for key in sorted(keys):
                if host in hosts_of_lane(key):
                    ids: list[str] = self._redis.zrange(f"{PREFIX}lane:{key}", 0, limit - 1)  # type: ignore[assignment]
                    found += ids
        return found[:limit]

    def strays(self) -> list[str]:
        """Ids in the queue that stand in no lane: written by an older vmferry."""
        with translated():
            keys: set[str] = self._redis.smembers(f"{PREFIX}lanes")  # type: ignore[assignment]
            pipe = self._redis.pipeline(transaction=True)
            pipe.zcard(f"{PREFIX}queued")
            for key in keys:
                pipe.zcard(f"{PREFIX}lane:{key}")
            total, *counts = pipe.execute()
            if total <= sum(counts):
                return []
            ids: list[str] = self._redis.zrange(f"{PREFIX}queued", 0, -1)  # type: ignore[assignment]
            pipe = self._redis.pipeline(transaction=False)
            for run_id in ids:
                pipe.hget(f"{PREFIX}run:{run_id}", "lane")
            return [run_id for run_id, lane in zip(ids, pipe.execute(), strict=True) if not lane]
