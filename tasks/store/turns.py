"""Turns: what only one process at a time shall do, kept while it works and lost soon after it died."""

from __future__ import annotations

import uuid

import redis

from tasks.store.runs import PREFIX, translated

RENEW = "if redis.call('GET', ARGV[1]) == ARGV[2] then return redis.call('PEXPIRE', ARGV[1], ARGV[3]) end return 0"
"""An expiry of 0 deletes."""
WANTED_S = 60
"""A note whose message was lost is seen to by the periodic look, long before."""


class TurnStore:
    """All turns of one Redis database. Every method raises ``StoreUnavailable`` when Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._renew = client.register_script(RENEW)

    def take(self, what: str, seconds: float) -> str:
        """Be the only one for so long; returns what to renew and to give back with, empty when it is somebody else's
        turn."""
        token = str(uuid.uuid4())
        with translated():
            taken = self._redis.set(f"{PREFIX}turn:{what}", token, nx=True, px=int(seconds * 1000))
        return token if taken else ""

    def renew(self, what: str, token: str, seconds: float) -> None:
        """Stay the only one; nothing happens when it is somebody else's turn by now."""
        with translated():
            self._renew(args=[f"{PREFIX}turn:{what}", token, int(seconds * 1000)])

    def want(self, what: str) -> bool:
        """Leave a note that there is something new to be seen; returns whether there was none yet."""
        with translated():
            return bool(self._redis.set(f"{PREFIX}turn:{what}:wanted", 1, nx=True, ex=WANTED_S))

    def is_wanted(self, what: str) -> bool:
        """Whether such a note was left since it was last seen to."""
        with translated():
            return bool(self._redis.exists(f"{PREFIX}turn:{what}:wanted"))

    def see_to(self, what: str) -> None:
        """What the note is about, if there is one, is about to be looked at."""
        with translated():
            self._redis.delete(f"{PREFIX}turn:{what}:wanted")

    def give_back(self, what: str, token: str) -> None:
        """Let others."""
        self.renew(what, token, 0)
