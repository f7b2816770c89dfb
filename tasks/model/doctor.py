"""What ``vmferry doctor`` sees, and what it says about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from tasks.model.host import HostFacts

PROBE_PREFIX = "vmferry-probe-"
"""Every probe VM's name begins like this; no other domain is ever destroyed."""


class Verdict(StrEnum):
    """How one check ended."""

    OK = "ok"
    UNSEEN = "unseen"
    """Could not be looked at; neither good nor bad."""
    WARNING = "warning"
    """Works, and an operator should know."""
    FAILED = "failed"
    """Migrations fail or are at risk until somebody acts."""


class CheckResult(BaseModel):
    """One result of one check."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    """Stable, upper case, for example ``REDIS_EVICTS``."""
    verdict: Verdict
    about: str
    """What was looked at: ``redis``, ``workers``, ``alpha``, ``alpha → beta``."""
    message: str
    """One sentence with the facts in it."""
    hint: str = ""
    """What to type or to change."""


class Diagnosis(BaseModel):
    """Everything that ``vmferry doctor`` found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    healthy: bool
    """No check failed."""
    reachable: bool
    """The queue and every host answered."""
    results: tuple[CheckResult, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """An error of vmferry's as a value."""

    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock compared with that of the machine that looks."""

    ahead_s: float
    """Seconds; negative when it is behind."""
    doubt_s: float
    """The true value lies within this, seconds either way."""


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """One Redis; None stands for what it does not let us see."""

    roles: tuple[str, ...]
    """What it is used for: broker, results, records."""
    url: str
    """Without password."""
    local: bool
    """Reached over loopback or a unix socket."""
    problem: Problem | None = None
    """Why it could not be asked at all."""
    version: str | None = None
    replica: bool | None = None
    appendonly: bool | None = None
    append_works: bool | None = None
    """Its last write to the append-only file succeeded."""
    appendfsync: str | None = None
    eviction: str | None = None
    """maxmemory-policy."""
    used_bytes: int | None = None
    limit_bytes: int | None = None
    """maxmemory, or the machine's memory when that is 0."""
    open_to_all: bool | None = None
    """It takes commands from clients that give no password."""
    foreign_keys: tuple[str, ...] | None = None
    """A few keys of the db that are not vmferry's."""
    put_aside: int | None = None
    """Messages that no worker could read; of the broker only."""
    clock: Clock | None = None


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """One worker process, as it answered."""

    name: str
    queues: frozenset[str] = frozenset()
    version: str | None = None
    """vmferry's; None when it does not know the question."""
    clock: Clock | None = None
    slots: int | None = None
    """Its threads; None when it does not say."""
    up_s: float = 0.0
    reconciled_ago_s: float | None = None
    """Seconds since it last ran the periodic reconciler; None: not since it started."""


@dataclass(frozen=True, slots=True)
class HostLook:
    """One host, as the machine that looks sees it."""

    name: str
    uri: str
    """Without password."""
    problem: Problem | None = None
    """Why it could not be asked."""
    peer_problem: Problem | None = None
    """Why its address is of no use to other hosts."""
    facts: HostFacts | None = None
    leftovers: tuple[str, ...] = ()
    """Probe VMs that nobody removed."""
    start_problem: Problem | None = None
    """Why the probe VM did not start there."""
    probed: bool = False
    """A probe VM was tried."""
    clock: Clock | None = None


class PairEnd(StrEnum):
    """How a probe VM's way from one host to another ended."""

    ARRIVED = "arrived"
    NO_PEER = "no_peer"
    """The source's libvirt did not get through to the destination's."""
    NO_PORT = "no_port"
    """The destination was waiting for the data, and the source could not reach its port."""
    REFUSED = "refused"
    """Anything else: emulator, configuration."""


@dataclass(frozen=True, slots=True)
class PairProbe:
    """One probe VM's way from one host to another."""

    source: str
    destination: str
    end: PairEnd
    took_s: float
    text: str = ""
    """libvirt's own words."""
    peer_uri: str = ""
    """What the source's libvirt opened; without password."""
    migrate_uri: str = ""
    """Where the data was sent; empty: where the destination's libvirt said."""


@dataclass(frozen=True, slots=True)
class DoctorFacts:
    """Everything that the checks look at."""

    version: str
    """vmferry's, of the machine that looks."""
    reconcile_period_s: float
    redis: tuple[RedisFacts, ...] = ()
    workers: tuple[WorkerFacts, ...] | None = None
    """None: the queue could not be asked."""
    hosts: tuple[HostLook, ...] = ()
    pairs: tuple[PairProbe, ...] = ()
    pairs_left_out: tuple[tuple[str, str], ...] = ()
    """Pairs that were not tried because there are too many."""
    pairs_not_wanted: bool = False
    """No probe VM was allowed."""
    max_total: int = 0
    """Migrations that may be under way at the same time."""
    silent: tuple[str, ...] = field(default=())
    """What did not come back in time, in words."""
