"""Which hosts take no VMs: one hash, host -> cordon."""

from __future__ import annotations

import redis

from tasks.model.cordon import Cordon
from tasks.store.runs import PREFIX, read_clock, translated

KEY = f"{PREFIX}cordons"


class CordonStore:
    """All cordons of one Redis database. Every method raises ``StoreUnavailable`` when Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def find(self, host: str) -> Cordon | None:
        """The host's cordon, None when it takes VMs."""
        with translated():
            found = self._redis.hget(KEY, host)
        return None if found is None else Cordon.model_validate_json(str(found))

    def all(self) -> dict[str, Cordon]:
        """Every cordon, by host."""
        with translated():
            found: dict[str, str] = self._redis.hgetall(KEY)  # type: ignore[assignment]
        return {host: Cordon.model_validate_json(text) for host, text in found.items()}

    def put(self, host: str, reason: str) -> Cordon:
        """Cordon a host; one that is cordoned already keeps since when, and takes the new reason, if one is given."""
        known = self.find(host)
        at = known.at if known else read_clock(self._redis)
        cordon = Cordon(host=host, reason=reason or (known.reason if known else ""), at=at)
        with translated():
            self._redis.hset(KEY, host, cordon.model_dump_json())
        return cordon

    def lift(self, host: str) -> bool:
        """Whether there was one."""
        with translated():
            return bool(self._redis.hdel(KEY, host))
