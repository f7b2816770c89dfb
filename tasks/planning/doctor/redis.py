"""Checks of Redis: it must neither lose nor throw away what it is given, and not everybody may give it something."""

from __future__ import annotations

from collections.abc import Callable

from tasks.model.doctor import CheckResult, DoctorFacts, RedisFacts
from tasks.planning.doctor.registry import check, failed, ok, unseen, warning

MIN_VERSION = (6, 2)
"""The oldest that is still maintained by distributions; older ones lack ACL details."""
MEMORY_WARNING = 0.75
MEMORY_FULL = 0.9
"""Shares of the memory limit; with noeviction a full Redis refuses every write."""


def each(look: Callable[[RedisFacts], list[CheckResult]], facts: DoctorFacts) -> list[CheckResult]:
    """The results for every Redis that could be asked."""
    return [result for redis in facts.redis if redis.problem is None for result in look(redis)]


def name_of(redis: RedisFacts) -> str:
    """How results call it."""
    return "redis" if len(redis.roles) > 1 else f"redis ({redis.roles[0]})"


@check(
    REDIS_ANSWERS="Redis answers.",
    REDIS_UNREACHABLE="Redis does not answer.",
    REDIS_AUTH_FAILED="Redis refuses the credentials.",
    REDIS_OLD="Redis is older than 6.2.",
    REDIS_IS_REPLICA="Redis is a replica, which takes no writes.",
)
def check_answers(facts: DoctorFacts) -> list[CheckResult]:
    """Reachable, and what it is."""
    found = [
        failed(r.problem.code, name_of(r), f"{r.url}: {r.problem.message}", r.problem.hint)
        for r in facts.redis
        if r.problem is not None
    ]
    return found + each(_answers, facts)


def _answers(redis: RedisFacts) -> list[CheckResult]:
    name = name_of(redis)
    if redis.replica:
        hint = "point broker_url at its master, or use sentinel://"
        return [failed("REDIS_IS_REPLICA", name, f"{redis.url} is a replica: it takes no writes", hint)]
    if redis.version is None:
        return [unseen("REDIS_ANSWERS", name, f"{redis.url} answers, and does not tell its version")]
    number = tuple(int(part) for part in redis.version.split(".")[:2] if part.isdigit())
    if number < MIN_VERSION:
        message = f"{redis.url} is Redis {redis.version}, older than anything vmferry was tested with"
        return [warning("REDIS_OLD", name, message, "upgrade it to 7.0 or newer")]
    return [ok("REDIS_ANSWERS", name, f"{redis.url} is Redis {redis.version} ({', '.join(redis.roles)})")]


@check(
    REDIS_PERSISTS="Redis writes everything to its append-only file.",
    REDIS_NO_AOF="Redis has no append-only file: a restart forgets migrations that are under way.",
    REDIS_AOF_BROKEN="Redis could not write its append-only file.",
    REDIS_FSYNC_OFF="Redis never syncs its append-only file: a power cut forgets up to half a minute.",
)
def check_persistence(facts: DoctorFacts) -> list[CheckResult]:
    """The run record is the truth, so it must outlive a restart."""
    return each(_persistence, facts)


def _persistence(redis: RedisFacts) -> list[CheckResult]:
    name = name_of(redis)
    if redis.appendonly is None:
        hint = "look yourself: redis-cli CONFIG GET appendonly"
        return [unseen("REDIS_PERSISTS", name, "Redis does not tell whether it has an append-only file", hint)]
    if not redis.appendonly:
        hint = "redis-cli CONFIG SET appendonly yes; and 'appendonly yes' in redis.conf, else it is gone at a restart"
        message = "Redis has no append-only file: when it restarts, migrations that are under way are forgotten"
        return [failed("REDIS_NO_AOF", name, message, hint)]
    if redis.append_works is False:
        message = "Redis could not write its append-only file"
        return [failed("REDIS_AOF_BROKEN", name, message, "is its disk full or read-only? its log says more")]
    if redis.appendfsync == "no":
        message = "Redis never syncs its append-only file: a power cut forgets what happened last"
        return [warning("REDIS_FSYNC_OFF", name, message, "redis-cli CONFIG SET appendfsync everysec; and redis.conf")]
    how = f", synced {redis.appendfsync}" if redis.appendfsync else ""
    return [ok("REDIS_PERSISTS", name, f"Redis writes an append-only file{how}")]


@check(
    REDIS_KEEPS="Redis never evicts keys.",
    REDIS_EVICTS="Redis may throw away records, locks and messages when its memory is full.",
)
def check_eviction(facts: DoctorFacts) -> list[CheckResult]:
    """Nothing may be evicted: neither a lock nor a message."""
    return each(_eviction, facts)


def _eviction(redis: RedisFacts) -> list[CheckResult]:
    name = name_of(redis)
    if redis.eviction is None:
        hint = "look yourself: redis-cli CONFIG GET maxmemory-policy"
        return [unseen("REDIS_KEEPS", name, "Redis does not tell its eviction policy", hint)]
    if redis.eviction != "noeviction":
        message = f"maxmemory-policy is {redis.eviction}: a full Redis throws away records, locks and messages"
        hint = "redis-cli CONFIG SET maxmemory-policy noeviction; and 'maxmemory-policy noeviction' in redis.conf"
        return [failed("REDIS_EVICTS", name, message, hint)]
    return [ok("REDIS_KEEPS", name, "Redis evicts nothing (maxmemory-policy noeviction)")]


@check(
    REDIS_HAS_ROOM="Redis has memory left.",
    REDIS_NEARLY_FULL="Redis uses more than three quarters of the memory it may use.",
    REDIS_FULL="Redis has no memory left: it refuses writes, so that nothing can be enqueued.",
)
def check_memory(facts: DoctorFacts) -> list[CheckResult]:
    """Head-room below maxmemory, or below the machine's memory."""
    return each(_memory, facts)


def _memory(redis: RedisFacts) -> list[CheckResult]:
    name = name_of(redis)
    if redis.used_bytes is None or not redis.limit_bytes:
        return [unseen("REDIS_HAS_ROOM", name, "Redis does not tell how much memory it uses")]
    share = redis.used_bytes / redis.limit_bytes
    words = f"Redis uses {redis.used_bytes / 2**20:.1f} MiB of {redis.limit_bytes / 2**20:.0f} MiB ({share:.0%})"
    hint = "raise maxmemory, shorten retention_days and run 'vmferry prune', or move what else lives there"
    if share >= MEMORY_FULL:
        return [failed("REDIS_FULL", name, words, hint)]
    if share >= MEMORY_WARNING:
        return [warning("REDIS_NEARLY_FULL", name, words, hint)]
    return [ok("REDIS_HAS_ROOM", name, words)]


@check(
    REDIS_DB_OWN="The db holds nothing but vmferry's keys.",
    REDIS_DB_SHARED="The db holds keys of something else.",
)
def check_own_db(facts: DoctorFacts) -> list[CheckResult]:
    """Celery's queues and results have names that other applications use as well."""
    return each(_own_db, facts)


def _own_db(redis: RedisFacts) -> list[CheckResult]:
    name = name_of(redis)
    if redis.foreign_keys is None:
        return [unseen("REDIS_DB_OWN", name, "Redis does not let its keys be listed")]
    if redis.foreign_keys:
        message = f"{redis.url} holds keys that are not vmferry's, such as {', '.join(redis.foreign_keys)}"
        return [
            warning("REDIS_DB_SHARED", name, message, "give vmferry a db of its own: the number at broker_url's end")
        ]
    return [ok("REDIS_DB_OWN", name, "the db holds nothing but vmferry's keys")]


@check(
    MESSAGES_READABLE="No message had to be put aside.",
    MESSAGES_PUT_ASIDE="Messages were put aside because no worker could read them.",
)
def check_messages(facts: DoctorFacts) -> list[CheckResult]:
    """Somebody sends what is no Celery message, or tasks that do not exist."""
    return each(_messages, facts)


def _messages(redis: RedisFacts) -> list[CheckResult]:
    if redis.put_aside is None:
        return []
    if redis.put_aside:
        message = f"{redis.put_aside} messages were put aside because no worker could read them"
        hint = "redis-cli LRANGE vmferry:poison 0 0 shows the last one; DEL vmferry:poison when its sender is corrected"
        return [warning("MESSAGES_PUT_ASIDE", name_of(redis), message, hint)]
    return [ok("MESSAGES_READABLE", name_of(redis), "no message had to be put aside")]


@check(
    REDIS_GUARDED="Redis asks for a password, or is reached over loopback or a unix socket.",
    REDIS_OPEN="Whoever reaches Redis over the network commands all hosts: it asks for no password.",
)
def check_password(facts: DoctorFacts) -> list[CheckResult]:
    """Whoever can write to Redis commands all hosts of the inventory."""
    return each(_password, facts)


def _password(redis: RedisFacts) -> list[CheckResult]:
    name = name_of(redis)
    if redis.open_to_all is None:
        return [unseen("REDIS_GUARDED", name, "it could not be tried whether Redis asks for a password")]
    if redis.open_to_all and not redis.local:
        message = f"{redis.url} takes commands without a password, and whoever can write there commands all hosts"
        hint = "set requirepass or an ACL user in redis.conf, and name it in broker_url: redis://USER:PASSWORD@HOST/0"
        return [failed("REDIS_OPEN", name, message, hint)]
    how = "is reached over loopback or a unix socket" if redis.open_to_all else "asks for a password"
    return [ok("REDIS_GUARDED", name, f"Redis {how}")]
