"""Gathers what ``vmferry doctor`` looks at: Redis, workers, hosts, and the ways between hosts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from config.celery import celery_settings
from config.settings import Settings
from tasks.hypervisor.address import HostAddress, without_password
from tasks.hypervisor.prober import Prober
from tasks.model.doctor import Clock, Diagnosis, DoctorFacts, HostLook, PairProbe, Problem, RedisFacts, WorkerFacts
from tasks.model.errors import InvalidRequest
from tasks.parallel import gather
from tasks.planning.doctor import diagnose
from tasks.store.doctor import is_local, read_redis, shown_url

log = logging.getLogger(__name__)

ABOUT_COMMAND = "vmferry_about"
ASK_WORKERS_S = (1.5, 5.0)
"""Who answers is waited for to the end; asked again, for longer, when a queue seems to be served by nobody."""
LOOK_S = 30.0
"""Beyond the connect timeout, for a host that took the connection."""
PAIR_S = 60.0
"""For one probe; many at the same time slow each other down."""
HOSTS_AT_ONCE = 64
PAIRS_AT_ONCE = 4
"""A host starts and stops two QEMUs for each probe."""
ALL_PAIRS_UP_TO = 5
"""Hosts; beyond that every host is tried once as source and once as destination, unless more is asked for."""

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which probes to send."""

    probe: bool = True
    pairs: tuple[Pair, ...] = ()
    """These only; all that make sense when empty."""
    to: tuple[str, ...] = ()
    """From all hosts to these only."""
    all_pairs: bool = False


def examine(settings: Settings, wanted: Wanted | None = None) -> Diagnosis:
    """Look at everything, and say what it means. Changes nothing that stays.

    Raises:
        InvalidRequest: ``UNKNOWN_HOST``.
    """
    wanted = wanted or Wanted()
    check_names(settings, wanted)
    with _prober(settings) as prober:
        calls: dict[str, Callable[[], Any]] = {
            "queue": lambda: _look_at_queue(settings),
            "hosts": lambda: _look_at_hosts(settings, prober, wanted),
        }
        seen = gather(calls, at_once=2, timeout_s=settings.connect_timeout_s * 3 + LOOK_S * 2)
        redis, workers = seen.get("queue") or (_silent_queue(settings), None)
        hosts = seen.get("hosts") or tuple(_silent(settings, name) for name in settings.hosts)
        facts = DoctorFacts(
            version("vmferry"), settings.reconcile_period_s, redis, workers, hosts, max_total=settings.max_total
        )
        return diagnose(_look_at_pairs(settings, prober, wanted, facts))


def check_names(settings: Settings, wanted: Wanted) -> None:
    """Raise ``InvalidRequest`` for a host that is not in the inventory, or a pair of one host."""
    for name in (*wanted.to, *(name for pair in wanted.pairs for name in pair)):
        if name not in settings.hosts:
            known = ", ".join(settings.hosts) or "none"
            raise InvalidRequest("UNKNOWN_HOST", f"{name} is not in the inventory", f"known hosts: {known}")
    for source, destination in wanted.pairs:
        if source == destination:
            raise InvalidRequest("INVALID_PAIR", f"{source}:{destination} is one host", "--pair SOURCE:DESTINATION")


@contextmanager
def _prober(settings: Settings) -> Iterator[Prober]:
    addresses = {
        name: HostAddress(uri=host.uri, peer_uri=host.peer_uri, migration_address=host.migration_address)
        for name, host in settings.hosts.items()
    }
    prober = Prober(addresses, connect_timeout_s=settings.connect_timeout_s)
    try:
        yield prober
    finally:
        prober.clean()
        prober.close()


# -- the queue -------------------------------------------------------------------------------------------------------


def _look_at_queue(settings: Settings) -> tuple[tuple[RedisFacts, ...], tuple[WorkerFacts, ...] | None]:
    roles = redis_roles(settings)
    redis = tuple(read_redis(url, names, sentinel_master=settings.sentinel_master) for url, names in roles.items())
    broker, records = redis[0], next(facts for facts in redis if "records" in facts.roles)
    return redis, None if broker.problem else _ask_workers(settings, records.clock)


def redis_roles(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Each Redis's URL, the broker's first, and what it is used for."""
    roles: dict[str, tuple[str, ...]] = {settings.broker_url: ("broker",)}
    for role, url in (("results", settings.result_backend), ("records", settings.record_url)):
        roles[url or settings.broker_url] = (*roles.get(url or settings.broker_url, ()), role)
    return roles


def _silent_queue(settings: Settings) -> tuple[RedisFacts, ...]:
    problem = Problem("REDIS_UNREACHABLE", "it did not answer in time", "is it running? check broker_url")
    return tuple(
        RedisFacts(names, shown_url(url), is_local(url), problem) for url, names in redis_roles(settings).items()
    )


def _ask_workers(settings: Settings, redis_clock: Clock | None) -> tuple[WorkerFacts, ...] | None:
    app = Celery("vmferry-doctor", set_as_current=False)
    app.conf.update(celery_settings(settings))
    workers: tuple[WorkerFacts, ...] = ()
    try:
        for timeout_s in ASK_WORKERS_S:
            replies = app.control.broadcast(ABOUT_COMMAND, reply=True, timeout=timeout_s) or []
            workers = tuple(_worker(name, said, redis_clock) for reply in replies for name, said in reply.items())
            if {"vmferry", "vmferry.steps"} <= {queue for worker in workers for queue in worker.queues}:
                break
    except OperationalError as error:
        log.debug("workers not asked: %s", error)
        return None
    finally:
        app.close()
    return workers


def _worker(name: str, said: Any, redis_clock: Clock | None) -> WorkerFacts:
    """What a worker said; one that does not know the question said that it does not."""
    if not isinstance(said, dict) or "queues" not in said:
        return WorkerFacts(name)
    clock = None
    if redis_clock is not None and "redis_ahead_s" in said:
        clock = Clock(redis_clock.ahead_s - said["redis_ahead_s"], redis_clock.doubt_s + said["doubt_s"])
    return WorkerFacts(
        name=name,
        queues=frozenset(said["queues"]),
        version=said["version"],
        clock=clock,
        slots=said.get("slots"),
        up_s=said["up_s"],
        reconciled_ago_s=said["reconciled_ago_s"],
    )


# -- hosts -----------------------------------------------------------------------------------------------------------


def _look_at_hosts(settings: Settings, prober: Prober, wanted: Wanted) -> tuple[HostLook, ...]:
    calls = {name: partial(_look_at_host, prober, name, probe=wanted.probe) for name in settings.hosts}
    seen = gather(calls, at_once=HOSTS_AT_ONCE, timeout_s=settings.connect_timeout_s * 2 + LOOK_S)
    return tuple(seen.get(name) or _silent(settings, name) for name in settings.hosts)


def _look_at_host(prober: Prober, name: str, *, probe: bool) -> HostLook:
    look = prober.look(name)
    if look.facts is None or not probe:
        return look
    problem, clock = prober.try_start(look.facts)
    return replace(look, probed=True, start_problem=problem, clock=clock)


def _silent(settings: Settings, name: str) -> HostLook:
    problem = Problem("HOST_SILENT", f"{name} took the connection and did not answer any more", "restart its libvirtd")
    return HostLook(name, without_password(settings.hosts[name].uri), problem=problem)


# -- ways between hosts ----------------------------------------------------------------------------------------------


def _look_at_pairs(settings: Settings, prober: Prober, wanted: Wanted, facts: DoctorFacts) -> DoctorFacts:
    if not wanted.probe:
        return replace(facts, pairs_not_wanted=True)
    usable = {host.name: host.facts for host in facts.hosts if host.facts is not None and host.start_problem is None}
    may = [pair for pair in possible_pairs(settings, facts.hosts) if wanted_pair(wanted, pair)]
    left_out: list[Pair] = []
    chosen = may
    if not (wanted.pairs or wanted.to or wanted.all_pairs):
        chosen, left_out = choose_pairs(may, list(settings.hosts))
    ready = [(source, destination) for source, destination in chosen if source in usable and destination in usable]
    calls = {pair: partial(prober.travel, usable[pair[0]], usable[pair[1]]) for pair in ready}
    timeout_s = PAIR_S * (1 + len(calls) // PAIRS_AT_ONCE)
    tried: dict[Pair, PairProbe] = gather(calls, at_once=PAIRS_AT_ONCE, timeout_s=timeout_s)
    return replace(
        facts,
        pairs=tuple(tried.values()),
        pairs_left_out=tuple(left_out),
        silent=tuple(_why_not_tried(chosen, ready, tried)),
    )


def _why_not_tried(chosen: Sequence[Pair], ready: Sequence[Pair], tried: dict[Pair, PairProbe]) -> list[str]:
    words = [
        f"{source} → {destination} did not come to an end"
        for source, destination in ready
        if (source, destination) not in tried
    ]
    blocked = [f"{source} → {destination}" for source, destination in chosen if (source, destination) not in ready]
    if blocked:
        shown = ", ".join(blocked[:6]) + (f" and {len(blocked) - 6} more" if len(blocked) > 6 else "")
        words.append(f"a host of it did not answer or starts no probe VM, so that these were not tried: {shown}")
    return words


def possible_pairs(settings: Settings, hosts: Sequence[HostLook]) -> list[Pair]:
    """Every way that a VM may go by the inventory's limits and addresses."""
    return [
        (source.name, destination.name)
        for source in hosts
        for destination in hosts
        if source is not destination
        and destination.peer_problem is None
        and settings.hosts[source.name].max_outgoing
        and settings.hosts[destination.name].max_incoming
    ]


def wanted_pair(wanted: Wanted, pair: Pair) -> bool:
    """Whether the caller's choice, if there is one, has the pair."""
    if not wanted.pairs and not wanted.to:
        return True
    return pair in wanted.pairs or pair[1] in wanted.to


def choose_pairs(pairs: Sequence[Pair], hosts: Sequence[str]) -> tuple[list[Pair], list[Pair]]:
    """Those to be tried, and those left out: all for a few hosts, a ring for many."""
    if len(hosts) <= ALL_PAIRS_UP_TO:
        return list(pairs), []
    ring = {(host, hosts[(number + 1) % len(hosts)]) for number, host in enumerate(hosts)}
    return [pair for pair in pairs if pair in ring], [pair for pair in pairs if pair not in ring]
