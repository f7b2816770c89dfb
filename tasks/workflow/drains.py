"""Drains: asked for once, then moved on by whoever looks next. Each look is harmless to repeat and to lose.

A drain owns nothing but its record: VMs move by ordinary migrations, whose records say how they ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from tasks.model.domain import DomainView
from tasks.model.drain import DrainRecord, DrainRequest, DrainState, DrainVm, Fate, parse_drain
from tasks.model.errors import HypervisorError, InvalidRequest, StaleOwner
from tasks.model.request import parse_request
from tasks.model.run import ErrorInfo
from tasks.planning.draining import migration_values, refreshed, what_is_left, why_left_alone
from tasks.workflow.operations import cancel as cancel_migration
from tasks.workflow.operations import check_inventory, submit
from tasks.workflow.places import Fleet, find_places, look_at_fleet
from tasks.workflow.runtime import Runtime
from tasks.workflow.turns import turn

log = logging.getLogger(__name__)

# -- what people and other systems may do -----------------------------------------------------------------------------


def ask_drain(runtime: Runtime, values: dict[str, Any], drain_id: str) -> DrainRecord:
    """Write a drain's record; the same question again is the same drain.

    Raises:
        InvalidRequest: ``INVALID_REQUEST``, ``UNKNOWN_HOST``, ``UNKNOWN_POLICY``, ``ID_TAKEN``, ``DRAIN_UNDER_WAY``.
    """
    request = check_drain(runtime, values)
    try:
        record = DrainRecord(id=drain_id, request=request)
    except ValueError:
        message = f"{drain_id!r:.80} is not an id of a drain"
        raise InvalidRequest("INVALID_ID", message, "ids are 1 to 48 of A-Z a-z 0-9 _ -") from None
    return runtime.drains.create(record)


def check_drain(runtime: Runtime, values: dict[str, Any]) -> DrainRequest:
    """A drain's request, with names that the configuration has.

    Raises:
        InvalidRequest
    """
    request = parse_drain(values)
    others = [host for host in request.to or runtime.hosts if host != request.host]
    if not others:
        message = f"there is no other host that the VMs of {request.host} could go to"
        raise InvalidRequest("NO_DESTINATION", message, "add hosts to the inventory, or name others with --to")
    for host in others:  # each is a destination that a migration may be asked to
        probe = {"vm": "any", "destination": host, "source": request.host, "policy": request.policy}
        more = {"accept": list(request.accept), "remedies": list(request.remedies), **request.times}
        check_inventory(runtime, parse_request(probe | more))
    return request


def plan_drain(runtime: Runtime, values: dict[str, Any]) -> DrainRecord:
    """A dry run: what would become of each VM; changes nothing.

    Raises:
        InvalidRequest, HypervisorError
    """
    record = DrainRecord(id="dry-run", request=check_drain(runtime, values))
    fleet = look_at_fleet(runtime, record)
    return record.model_copy(update={"vms": find_places(runtime, record, fleet, fleet.of(record.request.host))})


def pause_drain(runtime: Runtime, drain_id: str) -> DrainRecord:
    """What is under way arrives, nothing new starts. Raises ``InvalidRequest`` (``NOT_RUNNING``)."""
    return _change(runtime, drain_id, {DrainState.RUNNING: DrainState.PAUSED}, "NOT_RUNNING")


def resume_drain(runtime: Runtime, drain_id: str) -> DrainRecord:
    """Go on with one that is paused. Raises ``InvalidRequest`` (``NOT_PAUSED``)."""
    return _change(runtime, drain_id, {DrainState.PAUSED: DrainState.RUNNING}, "NOT_PAUSED")


def cancel_drain(runtime: Runtime, drain_id: str) -> DrainRecord:
    """End it: what is queued or under way is cancelled. Raises ``InvalidRequest`` (``ALREADY_FINISHED``)."""
    states = (DrainState.PLANNING, DrainState.RUNNING, DrainState.PAUSED)
    return _change(runtime, drain_id, dict.fromkeys(states, DrainState.CANCELLING), "ALREADY_FINISHED")


def retry_drain(runtime: Runtime, drain_id: str) -> DrainRecord:
    """Look at the host again, and try what did not move. Raises ``InvalidRequest`` (``NOT_RETRYABLE``)."""
    over = (DrainState.PARTIAL, DrainState.CANCELLED, DrainState.REFUSED, DrainState.EMPTY)
    return _change(runtime, drain_id, dict.fromkeys(over, DrainState.PLANNING), "NOT_RETRYABLE")


def _change(runtime: Runtime, drain_id: str, allowed: Mapping[DrainState, DrainState], code: str) -> DrainRecord:
    for _ in range(10):
        record = runtime.drains.load(drain_id)
        if record.state in allowed.values() and record.state not in allowed:
            return record  # asked twice
        if record.state not in allowed:
            raise InvalidRequest(code, f"drain {drain_id} is {record.state}", f"vmferry show {drain_id}")
        changes: dict[str, Any] = {"state": allowed[record.state], "waiting_for": None}
        if record.is_ended:
            changes |= {"round": record.round + 1, "finished_at": None, "error": None, "left": ()}
        try:
            return runtime.drains.commit(record, record.model_copy(update=changes))
        except StaleOwner:
            continue
    raise InvalidRequest("BUSY", f"drain {drain_id} changes too fast", "try again")


# -- moving on ------------------------------------------------------------------------------------------------------


def advance_drains(runtime: Runtime) -> int:
    """Look once at every drain that is not over; returns at how many. One process at a time does it: places are found
    for one drain after the other, so that none is given away twice."""
    under_way = runtime.drains.under_way()
    if not under_way:
        return 0
    with turn(runtime, "drains") as mine:
        for drain_id in sorted(under_way.values()) if mine else ():
            _advance(runtime, drain_id)
    return len(under_way) if mine else 0


def _advance(runtime: Runtime, drain_id: str) -> None:
    record = runtime.drains.find(drain_id)
    if record is None or record.is_ended:
        return
    try:
        _MOVES[record.state](runtime, record)
    except StaleOwner:
        log.info("drain %s was changed by somebody else meanwhile", drain_id)
    except HypervisorError as error:
        log.warning("drain %s: %s", drain_id, error.message)
        _note(runtime, drain_id, error.message)


def _note(runtime: Runtime, drain_id: str, why: str) -> None:
    record = runtime.drains.find(drain_id)
    if record is not None and not record.is_ended and record.waiting_for != why:
        with suppress(StaleOwner):
            runtime.drains.commit(record, record.model_copy(update={"waiting_for": why}))


def _plan(runtime: Runtime, record: DrainRecord) -> None:
    record = _cordon(runtime, record)
    fleet = look_at_fleet(runtime, record)
    kept = tuple(vm for vm in record.vms if vm.fate is Fate.MOVED)
    found = find_places(runtime, record, fleet, fleet.of(record.request.host))
    vms = (*(vm for vm in kept if vm.uuid not in {v.uuid for v in found}), *found)
    stuck = [vm for vm in found if vm.fate is Fate.STAYS and not _by_request(record, fleet, vm)]
    if record.request.strict and stuck:
        names = ", ".join(vm.name for vm in stuck)
        error = ErrorInfo(
            code="DRAIN_REFUSED",
            message=f"{len(stuck)} of {len(found)} VMs cannot move: {names}",
            hint=f"vmferry show {record.id} says why; without --strict the others move",
        )
        _end(runtime, record.model_copy(update={"vms": vms}), DrainState.REFUSED, error=error)
        return
    runtime.drains.commit(
        record, record.model_copy(update={"state": DrainState.RUNNING, "vms": vms, "waiting_for": None})
    )


def _run(runtime: Runtime, record: DrainRecord) -> None:
    record, views = _refresh(runtime, record)
    fresh = _newcomers(record, views)
    if fresh:
        places = find_places(runtime, record, look_at_fleet(runtime, record), fresh)
        kept = tuple(vm for vm in record.vms if vm.uuid not in {view.uuid for view in fresh})
        record = runtime.drains.commit(record, record.model_copy(update={"vms": (*kept, *places)}))
    if any(vm.fate is Fate.WAITING for vm in record.vms):
        # Written down before it is asked for: whoever looks next asks again, under the same ids.
        record = runtime.drains.commit(record, _numbered(record))
    for vm in sorted(record.vms, key=lambda vm: -vm.memory_kib):  # what takes longest begins first
        if vm.fate is Fate.MOVING and runtime.store.find(vm.migration) is None:
            submit(runtime, migration_values(record, vm), vm.migration, drain=record.id)
    if not any(vm.fate is Fate.MOVING for vm in record.vms):
        _close(runtime, record)


def _newcomers(record: DrainRecord, views: Sequence[DomainView]) -> list[DomainView]:
    """VMs that appeared since; one that has moved away and is back is one of them."""
    known = {vm.uuid for vm in record.vms if vm.fate not in (Fate.MOVED, Fate.GONE)}
    return [view for view in views if view.uuid not in known]


def _numbered(record: DrainRecord) -> DrainRecord:
    """Each VM that waits gets a migration of its own, with an id that no other of this drain ever had."""
    vms, asked = [], record.asked
    for vm in record.vms:
        if vm.fate is Fate.WAITING:
            asked += 1
            vm = vm.model_copy(update={"fate": Fate.MOVING, "migration": record.migration_id(asked)})
        vms.append(vm)
    return record.model_copy(update={"vms": tuple(vms), "asked": asked})


def _pause(runtime: Runtime, record: DrainRecord) -> None:
    _refresh(runtime, record)


def _cancel(runtime: Runtime, record: DrainRecord) -> None:
    for vm in record.vms:
        run = runtime.store.find(vm.migration) if vm.fate is Fate.MOVING else None
        if run is not None and not run.is_terminal:
            try:
                cancel_migration(runtime, vm.migration)
            except InvalidRequest as error:  # too late: it arrives
                log.info("%s of drain %s: %s", vm.migration, record.id, error.message)
    record, _ = _refresh(runtime, record)
    if not any(vm.fate is Fate.MOVING and runtime.store.find(vm.migration) is not None for vm in record.vms):
        _end(runtime, record, DrainState.CANCELLED)


_MOVES: Mapping[DrainState, Callable[[Runtime, DrainRecord], None]] = {
    DrainState.PLANNING: _plan,
    DrainState.RUNNING: _run,
    DrainState.PAUSED: _pause,
    DrainState.CANCELLING: _cancel,
}


def _refresh(runtime: Runtime, record: DrainRecord) -> tuple[DrainRecord, Sequence[DomainView]]:
    """Fates as records and the host tell them, and what the host has.

    Records first: a VM whose migration has succeeded is not on the host when that is looked at afterwards.
    """
    runs = {vm.uuid: runtime.store.find(vm.migration) for vm in record.vms if vm.fate is Fate.MOVING}
    views = list(runtime.hypervisor.list_domains(record.request.host))
    there = {view.uuid for view in views}
    vms = tuple(refreshed(vm, runs.get(vm.uuid), vm.uuid in there) for vm in record.vms)
    if vms == record.vms and record.waiting_for is None:
        return record, views
    return runtime.drains.commit(record, record.model_copy(update={"vms": vms, "waiting_for": None})), views


def _close(runtime: Runtime, record: DrainRecord) -> None:
    """The host is looked at once more: what counts is what is there, not what was done."""
    host = record.request.host
    views, pools = runtime.hypervisor.list_domains(host), runtime.hypervisor.list_pools(host)
    if _newcomers(record, views):
        return  # they join at the next look
    left = what_is_left(host, views, pools, (*runtime.store.active(), *runtime.store.queued()))
    _end(runtime, record, DrainState.PARTIAL if left else DrainState.EMPTY, left=left)


def _end(
    runtime: Runtime,
    record: DrainRecord,
    state: DrainState,
    *,
    left: tuple[str, ...] = (),
    error: ErrorInfo | None = None,
) -> None:
    changes = {"state": state, "finished_at": runtime.store.now(), "left": left, "error": error, "waiting_for": None}
    runtime.drains.commit(record, record.model_copy(update=changes))
    log.info("drain %s of %s: %s", record.id, record.request.host, state)
    if state in (DrainState.CANCELLED, DrainState.REFUSED) and record.cordoned_by_us:
        cordon = runtime.cordons.find(record.request.host)
        if cordon is not None and cordon.reason == _reason(record):
            runtime.cordons.lift(record.request.host)


def _cordon(runtime: Runtime, record: DrainRecord) -> DrainRecord:
    host = record.request.host
    cordon = runtime.cordons.find(host)
    if cordon is None:
        cordon = runtime.cordons.put(host, _reason(record))
    ours = cordon.reason == _reason(record)
    if ours == record.cordoned_by_us:
        return record
    return runtime.drains.commit(record, record.model_copy(update={"cordoned_by_us": ours}))


def _reason(record: DrainRecord) -> str:
    return f"drain {record.id}"


def _by_request(record: DrainRecord, fleet: Fleet, vm: DrainVm) -> bool:
    view = next((v for v in fleet.of(record.request.host) if v.uuid == vm.uuid), None)
    return view is not None and bool(why_left_alone(record.request, view))
