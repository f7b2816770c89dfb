"""How far webhooks were told, and what could not be delivered."""

from __future__ import annotations

import redis

from tasks.model.webhook import Delivery, Undelivered
from tasks.store.runs import PREFIX, translated

KEPT = 1000
"""Events that were given up are listed up to this many, for each webhook."""


class WebhookStore:
    """Of one Redis database. Every method raises ``StoreUnavailable`` when Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def find(self, name: str) -> Delivery | None:
        """How far one got; None when it was never told anything."""
        with translated():
            found = self._redis.hget(f"{PREFIX}webhooks", name)
        return None if found is None else Delivery.model_validate_json(str(found))

    def put(self, name: str, delivery: Delivery) -> None:
        """Note how far one got."""
        with translated():
            self._redis.hset(f"{PREFIX}webhooks", name, delivery.model_dump_json())

    def give_up(self, name: str, lost: Undelivered, after: Delivery) -> None:
        """List an event as undelivered and go on after it, both or neither."""
        key = f"{PREFIX}webhook:{name}:undelivered"
        with translated():
            pipe = self._redis.pipeline(transaction=True)
            pipe.rpush(key, lost.model_dump_json())
            pipe.ltrim(key, -KEPT, -1)
            pipe.hset(f"{PREFIX}webhooks", name, after.model_dump_json())
            pipe.execute()

    def undelivered(self, name: str) -> list[Undelivered]:
        """What was given up, oldest first."""
        with translated():
            found: list[str] = self._redis.lrange(f"{PREFIX}webhook:{name}:undelivered", 0, -1)  # type: ignore[assignment]
        return [Undelivered.model_validate_json(text) for text in found]
