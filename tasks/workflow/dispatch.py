"""How a migration starts and how it ends: admission from the queue, and ``settle``."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from config.logging import log_context
from config.settings import Settings
from tasks.model.errors import InvalidRequest, StaleOwner
from tasks.model.lane import lane_of
from tasks.model.run import ErrorInfo, RunRecord, State, StepName
from tasks.steps.lease import Lease
from tasks.steps.locate import choose_source, look_everywhere
from tasks.steps.survey import STEPS
from tasks.store import Limits
from tasks.store.queue import Lane
from tasks.workflow.links import links_between, pools_used
from tasks.workflow.runtime import Runtime
from tasks.workflow.timing import may_start, note_rate, why_not_yet

log = logging.getLogger(__name__)

PIECE = 16
"""Ids read from a lane at a time."""
DEPTH = 500
"""How far a lane is looked into at one time, when those at its head wait for something of their own."""


def settle(
    runtime: Runtime, record: RunRecord, state: State, error: ErrorInfo | None = None, *, lease: Lease | None = None
) -> RunRecord:
    """The only way a migration ends: first the terminal record, then Celery's result.

    Whoever calls this admits what waited for its tokens afterwards, with ``dispatch``.

    Raises:
        StaleOwner: the record moved on; nothing was written.
    """
    if lease is not None:
        lease.stop()
    changes = {"state": state, "step": None, "owner": "", "error": error, "waiting_for": None, "stalled": False}
    after = record.model_copy(update=changes | {"finished_at": runtime.store.now()})
    release = "tokens" if state is State.NEEDS_ATTENTION else "all"
    guard = "fence" if lease is not None else "rev"
    record = runtime.store.commit(record, after, guard=guard, deadline_in=0, release=release)  # type: ignore[arg-type]
    with log_context(id=record.id, attempt=record.attempt):
        log.info("%s %s%s", record.id, state, f": {error.message}" if error else "")
    if state is State.SUCCEEDED:
        note_rate(runtime, record)
    publish(runtime, record)
    if record.drain:
        runtime.wake_drains()
    return record


def publish(runtime: Runtime, record: RunRecord) -> None:
    """Store the Celery result under the migration's id and under every id that waits for it; harmless to repeat."""
    for result_id in (record.id, *sorted(runtime.store.waiters(record.id) - {record.id})):
        runtime.messenger.store_settled(result_id, record)
    runtime.store.mark_published(record.id)


def dispatch(runtime: Runtime, *, thorough: bool = True) -> int:
    """Admit what can start now, by priority, then oldest first; returns how many.

    Looks at the head of each lane, and further into it only as long as heads start or wait for something of their own.
    ``thorough``: of lanes whose time has not come each migration is asked whether it fits into that time at all.
    Harmless when several run at the same time.
    """
    lanes = runtime.queue.lanes(PIECE)
    # Read at once, since most lanes can start nothing most of the time.
    first = {record.id: record for record in runtime.store.queued_among([lane.head for lane in lanes])}
    admitted, closed, held = 0, _Closed(_full(runtime, first.values())), runtime.drains.held()
    heads = [(lane.score, lane.key, _Line(runtime, lane, first.get(lane.head))) for lane in lanes]
    heapq.heapify(heads)
    whys: dict[str, str] = {}
    while heads:
        _, key, line = heapq.heappop(heads)
        record = line.next()
        if record is None:
            continue
        try:
            if why := _why_all_wait(runtime, record, held, closed):
                whys[key] = why
                if thorough and record.request.is_timed and record.drain not in held:
                    whys |= dict.fromkeys(_refuse_misfits(runtime, record, line), why)
                continue
            renewed = line.renewed(record)
            located = _locate(runtime, renewed) if renewed is not None else None
            if located is not None and _is_time(runtime, located):
                started, why = _admit(runtime, located, closed)
                admitted += started
                whys |= {lane_of(located): why} if why else {}
        except StaleOwner:
            pass  # somebody else dealt with it meanwhile
        except InvalidRequest as error:  # it came from where other zones or hosts are known
            _refuse(runtime, record, error)
        heapq.heappush(heads, (line.score, key, line))
    runtime.queue.note_whys(whys)
    runtime.queue.note_awaited({token for token in closed.tokens if token.startswith("pool:")} | closed.locks)
    return admitted


@dataclass
class _Closed:
    """Limits that are reached, or were found to be by an earlier migration: not to be overtaken by later ones."""

    tokens: set[str]
    locks: set[str] = field(default_factory=set)
    """Of VMs, that kept one migration from starting and no other."""

    def why(self, tokens: Iterable[str]) -> str:
        """The first of these that is reached, in words; empty when none is."""
        found = next((token for token in tokens if token in self.tokens), "")
        return why_waits("full", found) if found else ""


def _full(runtime: Runtime, heads: Iterable[RunRecord]) -> set[str]:
    """Limits that are reached: asked for once, rather than by trying to start what cannot. Not of pools: who waits for
    one must have been refused by it, since nobody else may take it then."""
    limits: dict[str, int] = {}
    for record in heads:
        tokens = limits_of(runtime.settings, record).tokens if record.source else {}
        limits |= {token: most for token, most in tokens.items() if not token.startswith("pool:")}
    used = runtime.store.tokens_in_use(list(limits))
    return {token for token, most in limits.items() if used[token] >= most}


class _Line:
    """A lane, read piece by piece."""

    def __init__(self, runtime: Runtime, lane: Lane, head: RunRecord | None) -> None:
        self._runtime, self._key, self._head = runtime, lane.key, head
        self.score = lane.score
        """Rank of the next one."""
        self._seen: set[str] = set()
        self._ahead = list(lane.ahead)

    def next(self) -> RunRecord | None:
        """The next that waits; None when there is none, or when so many were looked at that the others must wait."""
        while len(self._seen) < DEPTH:
            if not self._ahead:
                found = self._runtime.queue.after(self._key, self.score, PIECE)
                self._ahead = [entry for entry in found if entry[0] not in self._seen]
                if not self._ahead:
                    return None
            run_id, _ = self._ahead.pop(0)
            self._seen.add(run_id)
            if self._ahead:
                self.score = self._ahead[0][1]
            if self._head is not None and self._head.id == run_id:
                return self._head
            self._head = None
            if record := self._load(run_id):
                return record
        return None

    def renewed(self, record: RunRecord) -> RunRecord | None:
        """A head that was read with all others, as it is now; None when it does not wait any more."""
        if record is not self._head:
            return record
        self._head = None
        return self._load(record.id)

    def _load(self, run_id: str) -> RunRecord | None:
        return next(iter(self._runtime.store.queued_among([run_id])), None)


def _why_all_wait(runtime: Runtime, record: RunRecord, held: Collection[str], closed: _Closed) -> str:
    """What keeps every migration of this one's lane from starting; empty when nothing does."""
    if record.drain in held:
        return f"drain {record.drain} is paused"
    known = limits_of(runtime.settings, record).tokens if record.source else (f"in:{record.destination}", "total")
    return closed.why(known) or why_not_yet(runtime, record)


def _refuse_misfits(runtime: Runtime, record: RunRecord | None, line: _Line) -> set[str]:
    """Say of each that waits for its time, at once rather than then, that it does not fit into it; returns the lanes
    that all of them are in."""
    lanes = set()
    while record is not None:
        try:
            located = _locate(runtime, record)
            if located is not None:
                _is_time(runtime, located, note=False)
                lanes.add(lane_of(located))
        except StaleOwner:
            pass
        except InvalidRequest as error:
            _refuse(runtime, record, error)
        record = line.next()
    return lanes


def _refuse(runtime: Runtime, record: RunRecord, error: InvalidRequest) -> None:
    """One that cannot be meant must not keep the others from their turn."""
    why = ErrorInfo(code=error.code, message=error.message, hint=error.hint)
    with suppress(StaleOwner):  # else somebody else dealt with it meanwhile
        for queued in runtime.store.queued_among([record.id]):
            settle(runtime, queued, State.REFUSED, why)


def _locate(runtime: Runtime, record: RunRecord) -> RunRecord | None:
    """Find the VM when that was not done yet; refuse when it cannot be found."""
    if record.uuid is not None and record.source is not None:
        return record
    try:
        sightings = look_everywhere(runtime.hypervisor, runtime.hosts, record.request.vm)
        view = choose_source(sightings, record.vm, record.request.source, record.destination)
    except InvalidRequest as error:
        _refuse(runtime, record, error)
        return None
    memory = view.memory_kib * 1024 if view.active else 0
    found = {"vm": view.name, "uuid": view.uuid, "source": view.host}
    after = record.model_copy(update=found | {"expected_bytes": record.expected_bytes or memory})
    return runtime.store.commit(record, after, guard="rev")


def _is_time(runtime: Runtime, record: RunRecord, *, note: bool = True) -> bool:
    """Whether it may start now; one that can never start in its times is refused."""
    verdict = may_start(runtime, record)
    if not verdict.may_start and verdict.not_before is None:
        error = ErrorInfo(code="DOES_NOT_FIT", message=verdict.why, hint="ask for more time, or without a deadline")
        settle(runtime, record, State.REFUSED, error)
    elif not verdict.may_start and note:
        _note_why(runtime, record, verdict.why)
    return verdict.may_start


def _admit(runtime: Runtime, record: RunRecord, closed: _Closed) -> tuple[bool, str]:
    """Start it if it can start, else say why all that wait for the same limits wait; what is about its VM alone is
    noted in its record."""
    limits = limits_of(runtime.settings, record)
    if why := closed.why(limits.tokens):  # it was found elsewhere than its lane says
        return False, why
    changes = {"state": State.CHECKING, "step": StepName.PREFLIGHT, "send": record.send + 1, "waiting_for": None}
    after = record.model_copy(update=changes | {"started_at": record.started_at or runtime.store.now()})
    answer = runtime.store.admit(record, after, limits, deadline_in=runtime.settings.hand_over_s)
    if answer.admitted:
        runtime.messenger.send_steps(answer.record, STEPS)
        return True, ""
    why = why_waits(answer.missing, answer.holder)
    if answer.missing == "full":
        closed.tokens.add(answer.holder)
        return False, why
    closed.locks.add(limits.lock)
    _note_why(runtime, record, why)
    return False, ""


def lock_of(record: RunRecord) -> str:
    """Name of the lock of its VM, which one migration at a time holds."""
    return f"vm:{record.uuid}"


def _note_why(runtime: Runtime, record: RunRecord, why: str) -> None:
    if record.waiting_for != why:
        runtime.store.commit(record, record.model_copy(update={"waiting_for": why}), guard="rev")


def why_waits(missing: str, detail: str) -> str:
    """What it waits for, in words, from what the store said: ``full`` and a token, or ``locked`` and who holds it."""
    if missing == "locked":
        return f"migration {detail} holds the lock of this VM"
    kind, _, host = detail.partition(":")
    words = {
        "out": f"as many migrations leave {host} as are allowed",
        "in": f"as many arrive at {host} as are allowed",
        "link": f"as many go over link {host} as are allowed",
        "pool": f"as many copy out of or into pool {host} as are allowed",
    }
    return words.get(kind, "as many migrations are in flight as are allowed")


def limits_of(settings: Settings, record: RunRecord) -> Limits:
    """The tokens a migration must hold; a host that left the inventory allows none."""
    source, destination = settings.hosts.get(record.source or ""), settings.hosts.get(record.destination)
    tokens = {
        f"out:{record.source}": source.max_outgoing if source else 0,
        f"in:{record.destination}": destination.max_incoming if destination else 0,
        "total": settings.max_total,
    }
    tokens |= {f"link:{name}": settings.links[name].max_transfers for name in links_between(settings, record)}
    return Limits(tokens | pools_used(settings, record), lock_of(record))
