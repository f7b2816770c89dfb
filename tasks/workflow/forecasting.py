"""What is expected of moves, before anything is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.model.drain import DrainForecast, DrainRecord, DrainVm, Fate
from tasks.model.errors import StoreUnavailable
from tasks.model.estimate import Estimate
from tasks.model.plan import Plan
from tasks.model.request import MigrationRequest, parse_request
from tasks.planning.draining import expected_run, migration_values
from tasks.planning.forecast import Forecast, Move, forecast
from tasks.planning.windows import Schedule
from tasks.steps.survey import survey
from tasks.workflow.dispatch import limits_of
from tasks.workflow.operations import check_inventory
from tasks.workflow.runtime import Runtime
from tasks.workflow.timing import estimate_of, schedule_of


def plan_migration(runtime: Runtime, values: dict[str, Any]) -> Plan:
    """A dry run: looks at the hosts, changes nothing, needs no queue.

    Raises:
        InvalidRequest, HypervisorError
    """
    request = parse_request(values)
    check_inventory(runtime, request)
    try:
        cordon = runtime.cordons.find(request.destination)
    except StoreUnavailable:
        cordon = None
    post_copy = runtime.settings.policy(request.policy).asks_for_post_copy
    plan = survey(runtime.hypervisor, runtime.hosts, request, cordon=cordon, post_copy=post_copy)
    if plan.outlook is None or plan.source is None:
        return plan
    size_bytes = plan.outlook.memory_bytes + plan.outlook.disk_bytes
    expected = _estimate(runtime, request, plan.source, size_bytes)
    return plan.model_copy(update={"outlook": plan.outlook.model_copy(update={"expected": expected})})


def _estimate(runtime: Runtime, request: MigrationRequest, source: str, size_bytes: int) -> Estimate | None:
    """None when no move was seen between the two, or nobody can be asked."""
    try:
        return estimate_of(runtime, request, source, size_bytes)
    except StoreUnavailable:
        return None


def with_forecast(runtime: Runtime, record: DrainRecord) -> DrainRecord:
    """The drain with what is expected of each VM and of all of it; only those that would move count."""
    moving = sorted((vm for vm in record.vms if vm.fate is Fate.WAITING), key=lambda vm: -vm.memory_kib)
    requests = {vm.uuid: parse_request(migration_values(record, vm)) for vm in moving}
    estimates = {vm.uuid: _estimate(runtime, requests[vm.uuid], vm.source, vm.expected_bytes) for vm in moving}
    tokens = {vm.uuid: _tokens(runtime, requests[vm.uuid], vm) for vm in moving}
    limits = {token: limit for own in tokens.values() for token, limit in own.items()}
    moves = [Move(vm.uuid, tuple(tokens[vm.uuid]), estimates[vm.uuid]) for vm in moving]
    schedule = schedule_of(record.request)
    found = forecast(moves, limits, schedule, runtime.store.now())
    vms = tuple(vm.model_copy(update=_expected(vm, estimates.get(vm.uuid), found)) for vm in record.vms)
    return record.model_copy(update={"vms": vms, "forecast": _summary(moves, found, schedule)})


def _tokens(runtime: Runtime, request: MigrationRequest, vm: DrainVm) -> dict[str, int]:
    return dict(limits_of(runtime.settings, expected_run(request, vm)).tokens)


def _expected(vm: DrainVm, estimate: Estimate | None, found: Forecast) -> dict[str, Any]:
    return {
        "expected": estimate,
        "late": found.late.get(vm.uuid, ""),
        "maybe_late": vm.uuid in found.maybe_late,
    }


def _summary(moves: Sequence[Move], found: Forecast, schedule: Schedule) -> DrainForecast:
    closes = [schedule.deadline] if schedule.deadline is not None else []
    if schedule.window is not None and found.begins is not None:
        closes.append(schedule.window.opening(found.begins)[1])
    return DrainForecast(
        begins=found.begins,
        closes=min(closes, default=None),
        expected=found.expected,
        without_estimate=sum(move.estimate is None for move in moves),
        late=len(found.late),
        maybe_late=len(found.maybe_late),
    )
