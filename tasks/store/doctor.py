"""What one Redis tells about itself; what it forbids stays unseen."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import redis

from tasks.model.doctor import Clock, Problem, RedisFacts
from tasks.model.errors import StoreUnavailable
from tasks.store.client import connect
from tasks.store.runs import translated

T = TypeVar("T")

LOOPBACK = ("127.", "localhost", "::1")
OUR_KEYS = ("vmferry", "celery-task-meta-", "celery-taskset-meta-", "unacked")
BINDING = re.compile(r"_kombu\.binding(_deadlines$|(_permanent)?\.(vmferry|celeryev|(reply\.)?celery\.pidbox))")
"""kombu's lists of queues: of ours, and of the exchanges that every Celery application has."""
REPLY_QUEUE = ".reply.celery.pidbox"
POISON_KEY = "vmferry:poison"
KEYS_LOOKED_AT = 5000
"""Of the db, at most: enough to meet another application's."""
KEYS_NAMED = 3


def read_redis(url: str, roles: tuple[str, ...], *, sentinel_master: str = "mymaster") -> RedisFacts:
    """One look; never raises for what Redis says or does not say."""
    local = is_local(url)
    shown = shown_url(url)
    client = connect(url, sentinel_master=sentinel_master, retries=1)
    try:
        with translated():
            client.ping()
        return _read(client, RedisFacts(roles, shown, local), url)
    except StoreUnavailable as error:
        return RedisFacts(roles, shown, local, problem=Problem(error.code, error.message, error.hint))
    finally:
        client.close()


def _read(client: redis.Redis, base: RedisFacts, url: str) -> RedisFacts:
    info: dict[str, Any] = {}
    for section in ("server", "persistence", "memory", "replication"):
        info |= _allowed(lambda section=section: client.info(section)) or {}  # type: ignore[misc]
    # Managed services let neither CONFIG be read nor changed; INFO says most of it as well.
    config: dict[Any, Any] = _allowed(lambda: client.config_get("appendfsync")) or {}
    return RedisFacts(
        roles=base.roles,
        url=base.url,
        local=base.local,
        version=_text(info.get("redis_version")),
        replica=None if "role" not in info else info["role"] != "master",
        appendonly=None if "aof_enabled" not in info else bool(info["aof_enabled"]),
        append_works=None if "aof_last_write_status" not in info else info["aof_last_write_status"] == "ok",
        appendfsync=config.get("appendfsync"),
        eviction=_text(info.get("maxmemory_policy")),
        used_bytes=info.get("used_memory"),
        limit_bytes=info.get("maxmemory") or info.get("total_system_memory"),
        open_to_all=_is_open(url),
        foreign_keys=_allowed(lambda: _foreign_keys(client)),
        put_aside=_allowed(lambda: client.llen(POISON_KEY)) if "broker" in base.roles else None,
        clock=_allowed(lambda: _clock(client)),
    )


def _allowed(ask: Callable[[], T]) -> T | None:
    """The answer; None when Redis does not let us ask."""
    try:
        return ask()
    except redis.ResponseError:  # NOPERM and unknown or renamed commands
        return None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _clock(client: redis.Redis) -> Clock:
    before = time.time()
    seconds, micros = client.time()
    after = time.time()
    return Clock(float(seconds) + float(micros) / 1e6 - (before + after) / 2, (after - before) / 2)


def _foreign_keys(client: redis.Redis) -> tuple[str, ...]:
    keys = (str(key) for key in islice(client.scan_iter(count=500), KEYS_LOOKED_AT))
    return tuple(islice((key for key in keys if not is_ours(key)), KEYS_NAMED))


def is_ours(key: str) -> bool:
    """Whether a key is one that vmferry, Celery on its behalf, or its workers' replies make."""
    return key.startswith(OUR_KEYS) or key.endswith(REPLY_QUEUE) or BINDING.match(key) is not None


def _is_open(url: str) -> bool | None:
    """Whether a client without credentials is served; None for sentinel, where the address is not in the URL."""
    parts = urlsplit(url)
    if parts.scheme == "sentinel":
        return None
    if parts.password is None and parts.username is None:
        return True  # ours has none, and was served
    anonymous = connect(urlunsplit(parts._replace(netloc=parts.netloc.rsplit("@", 1)[1])), retries=0)
    try:
        anonymous.ping()
    except redis.RedisError:
        return False
    finally:
        anonymous.close()
    return True


def is_local(url: str) -> bool:
    """Whether the URL leads over a unix socket or loopback."""
    parts = urlsplit(url)
    return parts.scheme in ("unix", "redis+socket") or (parts.hostname or "localhost").startswith(LOOPBACK)


def shown_url(url: str) -> str:
    """The URL without password; a list of sentinels without all of theirs."""
    return ";".join(_without_password(piece) for piece in url.split(";"))


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return url.replace(f":{parts.netloc.rsplit('@', 1)[0].split(':', 1)[1]}@", ":***@", 1)
