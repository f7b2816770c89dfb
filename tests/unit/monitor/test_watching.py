"""What Flower is told of a step, and what it makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flower.events import EventsState

from tasks.model.request import MigrationRequest
from tasks.model.run import Channel, ErrorInfo, Progress, RunRecord, State, StepName
from tasks.monitor.events import MigrationEvents
from tasks.monitor.pages import in_order, row_of
from tasks.watching import REPEAT_S, ProgressEvents, closing_event

MIB = 1 << 20
REQUEST = MigrationRequest(vm="web-7", destination="beta")
ERROR = ErrorInfo(code="DISK_MISSING", message="no disk")


def record(run_id: str = "m-1", state: State = State.TRANSFERRING, **changes: Any) -> RunRecord:
    made = RunRecord(id=run_id, request=REQUEST, fingerprint="f", vm="web-7", source="alpha", destination="beta")
    return made.model_copy(update={"state": state, "send": 2, **changes})


@pytest.mark.parametrize(
    ("seen", "step", "told"),
    [
        (None, StepName.TRANSFER, None),
        # A second copy of the message, while the first one works on it.
        (record(owner="somebody", step=StepName.TRANSFER), StepName.TRANSFER, None),
        (record(state=State.ROLLING_BACK, step=StepName.ROLLBACK, cancel_requested=True), StepName.TRANSFER, "revoked"),
        (record(state=State.CANCELLED, cancel_requested=True), StepName.TRANSFER, "revoked"),
        (record(state=State.CANCELLED, cancel_requested=True), StepName.ROLLBACK, "succeeded"),
        (record(state=State.FAILED, error=ERROR), StepName.ROLLBACK, "succeeded"),
        (record(state=State.NEEDS_ATTENTION, error=ERROR), StepName.ROLLBACK, "failed"),
        (record(state=State.REFUSED, error=ERROR), StepName.PREFLIGHT, "failed"),
        (record(step=StepName.TRANSFER, waiting_for="trying again: busy"), StepName.TRANSFER, "succeeded"),
        (record(step=StepName.TRANSFER, owner="somebody", send=3), StepName.TRANSFER, "succeeded"),
    ],
)
def test_a_step_without_a_result_does_not_look_as_if_it_ran_for_ever(
    seen: RunRecord | None, step: StepName, told: str | None
) -> None:
    event = closing_event(seen, step, f"m-1.1.2.{step}")
    assert (event and event[0]) == (told and f"task-{told}")


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        (record(state=State.FAILED, error=ERROR), "rolled back: failed"),
        (record(state=State.CANCELLED), "rolled back: cancelled"),
        (
            record(state=State.ROLLING_BACK, step=StepName.ROLLBACK, waiting_for="trying again: away"),
            "trying again: away",
        ),
        (record(state=State.ROLLING_BACK, step=StepName.ROLLBACK, send=3), "left to another worker"),
        (record(state=State.VERIFYING, step=StepName.VERIFY), "not rolled back: the VM has moved, and"),
        (record(state=State.SUCCEEDED), "not rolled back: the VM has moved, and"),
    ],
)
def test_nothing_is_called_rolled_back_that_is_not(seen: RunRecord, text: str) -> None:
    event = closing_event(seen, StepName.ROLLBACK, "m-1.1.2.rollback")
    assert event is not None
    assert str(event[1]["result"]).startswith(text)


class Task:
    """What ProgressEvents needs of a Celery task."""

    name = "tasks.steps.transfer"

    class request:  # noqa: N801 - as Celery has it
        argsrepr = "(web-7: alpha → beta)"

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.error: Exception | None = None

    def send_event(self, kind: str, *, retry: bool, **fields: Any) -> None:
        assert not retry
        if self.error:
            raise self.error
        self.sent.append((kind, fields["result"], fields["name"], fields["args"]))


def test_progress_is_told_once_a_second_and_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("tasks.watching.time.monotonic", lambda: now)
    task = Task()
    events = ProgressEvents(task)

    def after(seconds: float, remaining_mib: int) -> list[str]:
        nonlocal now
        now += seconds
        events(Progress(memory=Channel(total_bytes=10 * MIB, remaining_bytes=remaining_mib * MIB)))
        texts = [text for _, text, _, _ in task.sent]
        task.sent.clear()
        return texts

    events(Progress())
    assert not task.sent
    assert after(0, 9) == ["10 %: memory 1 of 10 MiB"]
    assert after(0.5, 8) == []
    assert after(0.5, 8) == ["20 %: memory 2 of 10 MiB"]
    assert after(1.0, 8) == []
    assert after(REPEAT_S, 8) == ["20 %: memory 2 of 10 MiB"]
    task.error = ConnectionError("Redis is away")
    assert after(1.0, 7) == []


def test_periodic_tasks_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    monkeypatch.setattr("flower.events.Events.on_event", lambda _self, event: kept.append(event["name"]))
    events = MigrationEvents.__new__(MigrationEvents)
    for name in ("tasks.dispatch", "tasks.steps.verify", "tasks.reconcile"):
        events.on_event({"type": "task-sent", "name": name})
    assert kept == ["tasks.steps.verify"]


class Loop:
    """What MigrationEvents needs of tornado's loop."""

    def add_callback(self, call: Callable[[], None]) -> None:
        call()


def heard(*told: dict[str, Any]) -> Any:
    """The task as Flower has it after these events."""
    events = MigrationEvents.__new__(MigrationEvents)
    events.io_loop, events.state = Loop(), EventsState()
    for number, event in enumerate(told):
        common = {"uuid": "t", "hostname": "w", "timestamp": number, "local_received": number, "clock": number}
        events.on_event({**common, **event})
    return events.state.tasks["t"]


RECEIVED = {"type": "task-received", "name": "tasks.steps.transfer"}
STARTED = {"type": "task-started"}
PROGRESS = STARTED | {"result": "20 %", "name": "tasks.steps.transfer"}
FAILED = {"type": "task-failed", "exception": "E()"}
SECOND_COPY = {"type": "task-succeeded", "closing": True, "result": "left to another worker"}


def test_a_late_copy_of_a_message_does_not_make_a_success_of_a_failure() -> None:
    assert heard(RECEIVED, STARTED, FAILED, RECEIVED, STARTED, SECOND_COPY).state == "FAILURE"
    assert heard(RECEIVED, STARTED, SECOND_COPY).state == "SUCCESS"


def test_progress_does_not_move_the_start_nor_follow_the_end() -> None:
    task = heard(RECEIVED, STARTED, PROGRESS)
    assert (task.state, task.result, task.started) == ("STARTED", "20 %", 1)
    task = heard(RECEIVED, STARTED, FAILED, PROGRESS)
    assert (task.state, task.result) == ("FAILURE", None)
    late = heard(PROGRESS)
    assert (late.state, late.result, late.name) == ("STARTED", "20 %", "tasks.steps.transfer")


def test_the_page_shows_what_needs_somebody_first() -> None:
    records = [
        record("old", State.SUCCEEDED, submitted_at=1),
        record("asks", State.NEEDS_ATTENTION, submitted_at=0),
        record("new", State.CANCELLED, submitted_at=9),
        record("runs", State.ROLLING_BACK, submitted_at=2),
        record("starts", State.CHECKING, submitted_at=3),
        record("waits", State.QUEUED, submitted_at=4),
    ]
    assert [found.id for found in in_order(records)] == ["asks", "starts", "runs", "waits", "new", "old"]


def test_a_step_is_linked_only_when_flower_knows_it() -> None:
    running = record(step=StepName.TRANSFER)
    assert row_of(running, {"m-1.1.2.transfer"})["task"] == "m-1.1.2.transfer"
    assert row_of(running, {"m-1.1.1.transfer"})["task"] is None
    assert row_of(record(state=State.SUCCEEDED), set())["task"] is None
