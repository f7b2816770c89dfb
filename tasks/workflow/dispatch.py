"""How a migration starts and how it ends: admission from the queue, and ``settle``."""

from __future__ import annotations

import logging

from config.logging import log_context
from config.settings import Settings
from tasks.model.errors import InvalidRequest, StaleOwner
from tasks.model.run import ErrorInfo, RunRecord, State, StepName
from tasks.steps.lease import Lease
from tasks.steps.locate import choose_source, look_everywhere
from tasks.steps.survey import STEPS
from tasks.store import Limits
from tasks.workflow.runtime import Runtime
from tasks.workflow.timing import may_start, note_rate

log = logging.getLogger(__name__)


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
    return record


def publish(runtime: Runtime, record: RunRecord) -> None:
    """Store the Celery result under the migration's id and under every id that waits for it; harmless to repeat."""
    for result_id in (record.id, *sorted(runtime.store.waiters(record.id) - {record.id})):
        runtime.messenger.store_settled(result_id, record)
    runtime.store.mark_published(record.id)


def dispatch(runtime: Runtime) -> int:
    """Admit what can start now, by priority, then oldest first; returns how many.

    Harmless when several run at the same time.
    """
    admitted, full, held = 0, set[str](), runtime.drains.held()
    for record in sorted(runtime.store.queued(), key=lambda record: -record.request.priority):
        try:
            if record.drain in held:
                _note_why(runtime, record, f"drain {record.drain} is paused")
                continue
            located = _locate(runtime, record)
            if located is not None and _is_time(runtime, located):
                admitted += _admit(runtime, located, full)
        except StaleOwner:
            continue  # somebody else dealt with it meanwhile
    return admitted


def _locate(runtime: Runtime, record: RunRecord) -> RunRecord | None:
    """Find the VM when that was not done yet; refuse when it cannot be found."""
    if record.uuid is not None and record.source is not None:
        return record
    try:
        view = choose_source(
            look_everywhere(runtime.hypervisor, runtime.hosts, record.request.vm), record.vm, record.request.source
        )
    except InvalidRequest as error:
        settle(runtime, record, State.REFUSED, ErrorInfo(code=error.code, message=error.message, hint=error.hint))
        return None
    expected = view.memory_kib * 1024 if view.active else 0
    found = {"vm": view.name, "uuid": view.uuid, "source": view.host, "expected_bytes": expected}
    after = record.model_copy(update=found)
    return runtime.store.commit(record, after, guard="rev")


def _is_time(runtime: Runtime, record: RunRecord) -> bool:
    """Whether it may start now; one that can never start in its times is refused."""
    verdict = may_start(runtime, record)
    if not verdict.may_start and verdict.not_before is None:
        error = ErrorInfo(code="DOES_NOT_FIT", message=verdict.why, hint="ask for more time, or without a deadline")
        settle(runtime, record, State.REFUSED, error)
    elif not verdict.may_start:
        _note_why(runtime, record, verdict.why)
    return verdict.may_start


def _admit(runtime: Runtime, record: RunRecord, full: set[str]) -> int:
    limits = limits_of(runtime.settings, record)
    overtaken = full & set(limits.tokens)
    if overtaken:  # an older migration waits for the same token: not to be overtaken
        _note_why(runtime, record, _why("full", min(overtaken)))
        return 0
    changes = {"state": State.CHECKING, "step": StepName.PREFLIGHT, "send": record.send + 1, "waiting_for": None}
    after = record.model_copy(update=changes | {"started_at": record.started_at or runtime.store.now()})
    answer = runtime.store.admit(record, after, limits, deadline_in=runtime.settings.hand_over_s)
    if answer.admitted:
        runtime.messenger.send_steps(answer.record, STEPS)
        return 1
    if answer.missing == "full":
        full.add(answer.holder)
    _note_why(runtime, record, _why(answer.missing, answer.holder))
    return 0


def _note_why(runtime: Runtime, record: RunRecord, why: str) -> None:
    if record.waiting_for != why:
        runtime.store.commit(record, record.model_copy(update={"waiting_for": why}), guard="rev")


def _why(missing: str, detail: str) -> str:
    if missing == "locked":
        return f"migration {detail} holds the lock of this VM"
    kind, _, host = detail.partition(":")
    words = {
        "out": f"as many migrations leave {host} as are allowed",
        "in": f"as many arrive at {host} as are allowed",
        "link": f"as many go over link {host} as are allowed",
    }
    return words.get(kind, "as many migrations are in flight as are allowed")


def links_between(settings: Settings, record: RunRecord) -> list[str]:
    """Links that it goes over: those of which only one of its hosts is behind."""
    ends = (record.source, record.destination)
    return [name for name, link in settings.links.items() if sum(end in link.hosts for end in ends) == 1]


def limits_of(settings: Settings, record: RunRecord) -> Limits:
    """The tokens a migration must hold; a host that left the inventory allows none."""
    source, destination = settings.hosts.get(record.source or ""), settings.hosts.get(record.destination)
    tokens = {
        f"out:{record.source}": source.max_outgoing if source else 0,
        f"in:{record.destination}": destination.max_incoming if destination else 0,
        "total": settings.max_total,
    }
    tokens |= {f"link:{name}": settings.links[name].max_transfers for name in links_between(settings, record)}
    return Limits(tokens, f"vm:{record.uuid}")
