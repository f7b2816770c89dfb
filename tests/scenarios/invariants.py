"""The promises, checked after whatever was done to a migration: one function for all of them."""

from __future__ import annotations

from celery import states
from celery.result import AsyncResult

from tasks.model.errors import MigrationCancelled, MigrationFailed, MigrationRefused, NeedsAttention
from tasks.model.run import RunRecord, State
from tests.lab import Guest, GuestWatch, Lab
from tests.scenarios.stack import Stack, until

RESULT_OF = {
    State.FAILED: MigrationFailed,
    State.REFUSED: MigrationRefused,
    State.CANCELLED: MigrationCancelled,
    State.NEEDS_ATTENTION: NeedsAttention,
}


def check_invariants(
    stack: Stack,
    guest: Guest,
    record: RunRecord,
    *,
    was_running: bool,
    autostart: bool,
    watch: GuestWatch | None = None,
) -> None:
    """Exactly one startable copy, never two running, record = hosts = Celery's result, nothing left behind."""
    there = [host for host, seen in stack.lab.states(guest.uuid).items() if seen is not None]
    expected = record.destination if record.state is State.SUCCEEDED else record.source
    assert there == [expected], (
        f"the VM is on {there}, the record says {record.state} {record.source}→{record.destination}"
    )
    _check_copy(stack.lab, guest, str(expected), was_running=was_running, autostart=autostart)
    if watch is not None:
        watch.check_never_twice()
    _check_volumes(guest, record)
    _check_result(stack, record)
    _check_released(stack, record)


def _check_copy(lab: Lab, guest: Guest, host: str, *, was_running: bool, autostart: bool) -> None:
    seen = lab.states(guest.uuid)[host]
    assert seen is not None
    assert seen.active is was_running
    assert seen.persistent
    assert seen.autostart is autostart, f"autostart on {host} is {seen.autostart}"
    assert "urn:vmferry" not in seen.metadata, "a mark was left behind"


def _check_volumes(guest: Guest, record: RunRecord) -> None:
    """Of all volumes that bear this migration's mark there are those of a success, and no others."""
    mark = f".vmferry-{record.id}-"
    made = [(copy.pool, copy.volume) for copy in record.copies if not copy.device]
    made += [(b.pool, b.volume) for copy in record.copies for b in copy.backing if b.how == "copied"]
    places = [("shared" if pool == "shared" else record.destination, volume) for pool, volume in made]
    found = [(place, name) for place, name in guest.volumes() if mark in name]
    assert sorted(found) == (sorted(places) if record.state is State.SUCCEEDED else [])


def _check_result(stack: Stack, record: RunRecord) -> None:
    app = stack.plain_celery()
    result: AsyncResult = app.AsyncResult(record.id)
    until(
        lambda: result.backend.get_task_meta(record.id, cache=False)["status"] in states.READY_STATES,
        10,
        "no result was published",
    )
    if record.state is State.SUCCEEDED:
        assert result.get(timeout=5)["state"] == "succeeded"
        return
    kind = RESULT_OF[record.state]
    error = result.get(timeout=5, propagate=False)
    assert type(error).__name__ == kind.__name__
    assert record.error is not None
    assert error.args[0] == record.error.code


def _check_released(stack: Stack, record: RunRecord) -> None:
    redis = stack.redis.client()
    held = [key for key in redis.scan_iter("vmferry:tokens:*") if redis.sismember(key, record.id)]
    assert held == [], f"tokens were not given back: {held}"
    assert redis.get(f"vmferry:lock:vm:{record.uuid}") is None, "the VM's lock was not given back"
