"""Drains: asked for once, then moved on by whoever looks next. Each look is harmless to repeat and to lose.

A drain owns nothing but its record: VMs move by ordinary migrations, whose records say how they ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from tasks.model.domain import DomainView
from tasks.model.drain import DRAIN_TRANSITIONS, DrainRecord, DrainRequest, DrainState, DrainVm, Fate, parse_drain
from tasks.model.errors import InvalidRequest, StaleOwner, StoreUnavailable, VmferryError
from tasks.model.request import parse_request
from tasks.model.run import ErrorInfo, RunRecord, State
from tasks.planning.draining import may_take, migration_values, refreshed
from tasks.workflow.errands import errand_of, lift_cordon, run_of
from tasks.workflow.forecasting import with_forecast
from tasks.workflow.operations import cancel as cancel_migration
from tasks.workflow.operations import check_inventory, submit
from tasks.workflow.places import find_places, look_at_fleet
from tasks.workflow.runtime import Runtime
from tasks.workflow.turns import turn

log = logging.getLogger(__name__)

NOTHING_MORE: Mapping[str, Any] = MappingProxyType({})
DRAINS_LOOKED_AT = 1000
"""How many of the newest drains are looked at for the last one of a host."""
MISSED = "drains-missed"
"""The note of whoever was sent for news of drains and has found somebody looking already."""

# -- what people and other systems may do -----------------------------------------------------------------------------


def ask_drain(runtime: Runtime, values: dict[str, Any], drain_id: str) -> DrainRecord:
    """Write a drain's record; the same question again is the same drain.

    Raises:
        InvalidRequest: ``INVALID_REQUEST``, ``UNKNOWN_HOST``, ``UNKNOWN_POLICY``, ``ID_TAKEN``, ``DRAIN_UNDER_WAY``.
    """
    request = check_drain(runtime, values)
    try:
        record = DrainRecord(id=drain_id, request=request, wanted=_wanted(runtime, request))
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
    others = may_take(request, runtime.hosts)
    if not others:
        message = f"there is no other host that the VMs of {request.host} could go to"
        raise InvalidRequest("NO_DESTINATION", message, "add hosts to the inventory, or name others with --to")
    for host in others:  # each is a destination that a migration may be asked to
        probe = {"vm": "any", "destination": host} | request.passed
        probe |= {"source": request.host} if request.returns is None else {}
        check_inventory(runtime, parse_request(probe))
    return request


def plan_drain(runtime: Runtime, values: dict[str, Any]) -> DrainRecord:
    """A dry run: what would become of each VM; changes nothing.

    Raises:
        InvalidRequest, HypervisorError
    """
    request = check_drain(runtime, values)
    record = DrainRecord(id="dry-run", request=request, wanted=_wanted(runtime, request))
    fleet = look_at_fleet(runtime, record)
    vms = find_places(runtime, record, fleet, errand_of(record).to_move(record, fleet))
    return with_forecast(runtime, record.model_copy(update={"vms": vms}))


def last_drain_of(runtime: Runtime, host: str) -> DrainRecord:
    """The newest drain of a host that took VMs away.

    Raises:
        InvalidRequest: ``NOTHING_TO_RETURN``.
    """
    for record in runtime.drains.newest(DRAINS_LOOKED_AT):
        if record.request.host == host and record.request.returns is None and taken_away(runtime, record):
            return record
    message = f"no drain of {host} is known that moved a VM"
    raise InvalidRequest("NOTHING_TO_RETURN", message, "vmferry drains shows those that there were")


def taken_away(runtime: Runtime, record: DrainRecord) -> dict[str, str]:
    """UUID -> name of the VMs that a drain has moved, also by migrations that were tried again after its end."""
    return {vm.uuid: vm.name for vm in record.vms if _was_moved(runtime, record, vm)}


def _was_moved(runtime: Runtime, record: DrainRecord, vm: DrainVm) -> bool:
    if vm.fate not in (Fate.FAILED, Fate.GONE):
        return vm.fate is Fate.MOVED
    run = run_of(runtime, record, vm)
    return run is not None and run.state is State.SUCCEEDED


def _wanted(runtime: Runtime, request: DrainRequest) -> dict[str, str]:
    """The VMs that shall come back.

    Raises:
        UnknownMigration: ``UNKNOWN_ID``.
        InvalidRequest: ``NOT_ENDED``, ``OTHER_HOST``, ``NOTHING_TO_RETURN``.
    """
    if request.returns is None:
        return {}
    earlier = runtime.drains.load(request.returns)
    if not earlier.is_ended:
        message = f"drain {earlier.id} is {earlier.state}"
        raise InvalidRequest("NOT_ENDED", message, f"wait for its end: vmferry watch {earlier.id}")
    if earlier.request.host != request.host:
        message = f"drain {earlier.id} emptied {earlier.request.host}, not {request.host}"
        raise InvalidRequest("OTHER_HOST", message, f"vmferry drain {earlier.request.host} --return-of {earlier.id}")
    wanted = taken_away(runtime, earlier) if earlier.request.returns is None else {}
    if not wanted:
        message = f"drain {earlier.id} has moved no VM away from {request.host}"
        raise InvalidRequest("NOTHING_TO_RETURN", message, f"vmferry show {earlier.id}")
    return wanted


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
    over = (state for state, after in DRAIN_TRANSITIONS.items() if after == {DrainState.PLANNING})
    record, more = runtime.drains.load(drain_id), {}
    if record.is_ended and record.request.returns is not None and not record.wanted:
        more["wanted"] = _wanted(runtime, record.request)  # a recurring one that could not begin has never asked
    return _change(runtime, drain_id, dict.fromkeys(over, DrainState.PLANNING), "NOT_RETRYABLE", more)


def _change(
    runtime: Runtime,
    drain_id: str,
    allowed: Mapping[DrainState, DrainState],
    code: str,
    more: Mapping[str, Any] = NOTHING_MORE,
) -> DrainRecord:
    for _ in range(10):
        record = runtime.drains.load(drain_id)
        if record.state in allowed.values() and record.state not in allowed:
            return record  # asked twice
        if record.state not in allowed:
            raise InvalidRequest(code, f"drain {drain_id} is {record.state}", f"vmferry show {drain_id}")
        changes: dict[str, Any] = {"state": allowed[record.state], "waiting_for": None, **more}
        if record.is_ended:
            changes |= {"round": record.round + 1, "finished_at": None, "error": None, "left": ()}
        try:
            return runtime.drains.commit(record, record.model_copy(update=changes))
        except StaleOwner:
            continue
    raise InvalidRequest("BUSY", f"drain {drain_id} changes too fast", "try again")


# -- moving on ------------------------------------------------------------------------------------------------------


def advance_drains(runtime: Runtime) -> int:
    """Look at every drain that is not over; returns at how many. One process at a time does it: places are found for
    one drain after the other, so that none is given away twice. What happens meanwhile is looked at once more."""
    turns = runtime.turns
    if not runtime.drains.under_way():
        turns.see_to("drains")  # else the next drain's first news would send nobody
        return 0
    with turn(runtime, "drains") as mine:
        if not mine:
            if turns.is_wanted("drains"):
                turns.want(MISSED)
            return 0
        turns.see_to("drains")
        turns.see_to(MISSED)
        under_way = sorted(runtime.drains.under_way().values())
        for drain_id in under_way:
            _advance(runtime, drain_id)
    if turns.is_wanted(MISSED):
        runtime.send_again()
    return len(under_way)


def _advance(runtime: Runtime, drain_id: str) -> None:
    record = runtime.drains.find(drain_id)
    if record is None or record.is_ended:
        return
    try:
        _MOVES[record.state](runtime, record)
    except StaleOwner:
        log.info("drain %s was changed by somebody else meanwhile", drain_id)
    except StoreUnavailable:
        raise
    except VmferryError as error:
        log.warning("drain %s: %s", drain_id, error.message)
        _note(runtime, drain_id, error.message)
    except Exception:  # one drain must not keep the others from being looked at
        log.exception("drain %s", drain_id)
        _note(runtime, drain_id, "something went wrong that the control worker's log tells")


def _note(runtime: Runtime, drain_id: str, why: str) -> None:
    record = runtime.drains.find(drain_id)
    if record is not None and not record.is_ended and record.waiting_for != why:
        with suppress(StaleOwner):
            runtime.drains.commit(record, record.model_copy(update={"waiting_for": why}))


def _plan(runtime: Runtime, record: DrainRecord) -> None:
    errand = errand_of(record)
    record = errand.make_ready(runtime, record)
    fleet = look_at_fleet(runtime, record)
    views = errand.to_move(record, fleet)
    kept = tuple(vm for vm in record.vms if vm.fate is Fate.MOVED)
    found = find_places(runtime, record, fleet, views)
    vms = (*(vm for vm in kept if vm.uuid not in {v.uuid for v in found}), *found)
    chosen = {view.uuid for view in views if fleet.why_left_alone(record.request, view)}
    stuck = [vm for vm in found if vm.fate is Fate.STAYS and vm.uuid not in chosen]
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
    runtime.wake_drains()


def _run(runtime: Runtime, record: DrainRecord) -> None:
    record, views = _refresh(runtime, record)
    fresh = errand_of(record).newcomers(record, views)
    if fresh:
        places = find_places(runtime, record, look_at_fleet(runtime, record), fresh)
        kept = tuple(vm for vm in record.vms if vm.uuid not in {view.uuid for view in fresh})
        record = runtime.drains.commit(record, record.model_copy(update={"vms": (*kept, *places)}))
    if any(vm.fate is Fate.WAITING for vm in record.vms):
        # Written down before it is asked for: whoever looks next asks again, under the same ids.
        record = runtime.drains.commit(record, _numbered(record))
    record = _ask_for_migrations(runtime, record)
    if any(vm.fate is Fate.MOVING for vm in record.vms):
        return
    record = _second_look(runtime, record, views)
    if any(vm.fate is Fate.WAITING for vm in record.vms):
        return
    ending = errand_of(record).end(runtime, record)
    if isinstance(ending, str):
        _note(runtime, record.id, ending)
    else:
        _end(runtime, record, ending[0], left=ending[1])


def _ask_for_migrations(runtime: Runtime, record: DrainRecord) -> DrainRecord:
    """Of each VM that shall move and has none; one that cannot be asked for does not keep the others back."""
    refused = {}
    for vm in sorted(record.vms, key=lambda vm: -vm.memory_kib):  # what takes longest begins first
        if vm.fate is Fate.MOVING and run_of(runtime, record, vm) is None:
            values = migration_values(record, vm)
            try:
                submit(runtime, values, vm.migration, drain=record.id, expected_bytes=vm.expected_bytes)
            except InvalidRequest as error:
                refused[vm.uuid] = {"fate": Fate.FAILED, "reason": f"{error.code}: {error.message}"}
    if not refused:
        return record
    vms = tuple(vm.model_copy(update=refused.get(vm.uuid)) for vm in record.vms)
    return runtime.drains.commit(record, record.model_copy(update={"vms": vms}))


def _second_look(runtime: Runtime, record: DrainRecord, views: Sequence[DomainView]) -> DrainRecord:
    """What kept a VM where it is may have passed when all others have gone: a backup that ran, a host that was full."""
    stays = {vm.uuid for vm in record.vms if vm.fate is Fate.STAYS}
    again = [view for view in views if view.uuid in stays]
    fleet = look_at_fleet(runtime, record) if again else None
    if fleet is None or all(fleet.why_left_alone(record.request, view) for view in again):
        return record
    found = {vm.uuid: vm for vm in find_places(runtime, record, fleet, again)}
    vms = tuple(found.get(vm.uuid, vm) for vm in record.vms)
    return record if vms == record.vms else runtime.drains.commit(record, record.model_copy(update={"vms": vms}))


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
        run = run_of(runtime, record, vm) if vm.fate is Fate.MOVING else None
        if run is not None and not run.is_terminal:
            try:
                cancel_migration(runtime, vm.migration)
            except InvalidRequest as error:  # too late: it arrives
                log.info("%s of drain %s: %s", vm.migration, record.id, error.message)
    # By the records alone: a host that is dead must not keep a drain from being cancelled.
    runs = _runs(runtime, record)
    vms = tuple(refreshed(vm, runs.get(vm.uuid), True) for vm in record.vms)
    if vms != record.vms:
        record = runtime.drains.commit(record, record.model_copy(update={"vms": vms}))
    if not any(vm.fate is Fate.MOVING and run_of(runtime, record, vm) is not None for vm in record.vms):
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
    runs = _runs(runtime, record)
    views, gone = errand_of(record).look(runtime, record)
    vms = tuple(refreshed(vm, runs.get(vm.uuid), vm.uuid not in gone) for vm in record.vms)
    if vms == record.vms and record.waiting_for is None:
        return record, views
    return runtime.drains.commit(record, record.model_copy(update={"vms": vms, "waiting_for": None})), views


def _runs(runtime: Runtime, record: DrainRecord) -> dict[str, RunRecord | None]:
    """The migrations of VMs that have one; one that failed may have been tried again."""
    asked = [vm for vm in record.vms if vm.fate in (Fate.MOVING, Fate.FAILED)]
    return {vm.uuid: run_of(runtime, record, vm) for vm in asked}


def _end(
    runtime: Runtime,
    record: DrainRecord,
    state: DrainState,
    *,
    left: tuple[str, ...] = (),
    error: ErrorInfo | None = None,
) -> None:
    if state in (DrainState.CANCELLED, DrainState.REFUSED):
        # First: who dies in between comes here again, while nobody looks at a drain that is over.
        lift_cordon(runtime, record.request.host, record.id)
    changes = {"state": state, "finished_at": runtime.store.now(), "left": left, "error": error, "waiting_for": None}
    runtime.drains.commit(record, record.model_copy(update=changes))
    log.info("drain %s of %s: %s", record.id, record.request.host, state)
