"""How fast moves between two hosts were: the last few of each way."""

from __future__ import annotations

import redis

from tasks.store.runs import PREFIX, translated

KEPT = 8


class RateStore:
    """Rates of one Redis database. Every method raises ``StoreUnavailable`` when Redis does not answer."""

    def __init__(self, client: redis.Redis, *, retention_s: int) -> None:
        self._redis = client
        self._retention_s = retention_s

    def note(self, source: str, destination: str, bytes_per_s: float) -> None:
        """One more move has ended."""
        key = _key(source, destination)
        with translated():
            pipe = self._redis.pipeline(transaction=True)
            pipe.rpush(key, f"{bytes_per_s:.0f}")
            pipe.ltrim(key, -KEPT, -1)
            pipe.expire(key, self._retention_s)
            pipe.execute()

    def last(self, source: str, destination: str) -> list[float]:
        """Bytes per second, the newest last."""
        with translated():
            found: list[str] = self._redis.lrange(_key(source, destination), 0, -1)  # type: ignore[assignment]
        return [float(rate) for rate in found]


def _key(source: str, destination: str) -> str:
    return f"{PREFIX}rates:{source}>{destination}"
