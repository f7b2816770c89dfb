"""A redis-py client from the same kinds of URL that Celery takes."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote, urlsplit

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

SOCKET_TIMEOUT_S = 5.0
"""A command that takes longer has lost its server; redis-py's default would wait for ever."""


def connect(url: str, *, sentinel_master: str = "mymaster", retries: int = 3) -> redis.Redis:
    """A client for ``url`` (redis, rediss, sentinel, redis+socket or unix); connects at the first command."""
    options = {
        "decode_responses": True,
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": SOCKET_TIMEOUT_S,
        "health_check_interval": 30,
        "retry": Retry(ExponentialBackoff(cap=1.0, base=0.05), retries),
        "retry_on_error": [redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError],
    }
    scheme, _, rest = url.partition("://")
    if scheme == "sentinel":
        return _connect_sentinel(url, sentinel_master, options)
    if scheme == "redis+socket":  # Celery's spelling; the db is ?virtual_host=N there and ?db=N here
        url = "unix://" + re.sub(r"\bvirtual_host=", "db=", rest)
    client: redis.Redis = redis.Redis.from_url(url, **options)
    return client


def _connect_sentinel(url: str, master: str, options: dict[str, object]) -> redis.Redis:
    """``sentinel://[:password@]host:port[/db][;sentinel://host:port…]``, as Celery spells it."""
    parts = [urlsplit(piece) for piece in url.split(";")]
    sentinels = [(p.hostname or "localhost", p.port or 26379) for p in parts]
    db = int(parts[-1].path.strip("/") or parse_qs(parts[-1].query).get("db", ["0"])[0])
    password = next((unquote(p.password) for p in parts if p.password), None)
    sentinel = Sentinel(sentinels, socket_timeout=SOCKET_TIMEOUT_S)  # type: ignore[no-untyped-call]
    client: redis.Redis = sentinel.master_for(  # type: ignore[no-untyped-call]
        master, db=db, password=password, **options
    )
    return client
