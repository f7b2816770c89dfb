"""When a migration may start: windows, not-before, deadlines, on a real Redis and its clock."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from config.settings import Settings
from config.shared import LinkSettings
from tasks import workflow
from tasks.model.errors import InvalidRequest
from tasks.model.run import Channel, Progress, State
from tasks.workflow.timing import note_rate
from tests.fakes.hypervisor import domain_xml
from tests.queue.harness import RedisServer
from tests.queue.workbench import Bench

pytestmark = pytest.mark.queue

HOUR = 3600.0


def window(bench: Bench, begins_in_h: float, ends_in_h: float) -> str:
    now = bench.runtime.store.now()
    times = [datetime.fromtimestamp(now + hours * HOUR, UTC).strftime("%H:%M") for hours in (begins_in_h, ends_in_h)]
    return "-".join(times)


def test_outside_its_window_it_waits_and_says_until_when(bench: Bench) -> None:
    bench.vm()
    bench.submit(window=window(bench, 2, 4))
    record = bench.record()
    assert record.state is State.QUEUED
    assert record.waiting_for is not None
    assert record.waiting_for.startswith("the window opens at ")


def test_inside_its_window_it_starts(bench: Bench) -> None:
    bench.vm()
    bench.submit(window=window(bench, -1, 1), time_zone="UTC")
    assert bench.deliver_all().state is State.SUCCEEDED


def test_the_window_is_of_a_time_zone(bench: Bench) -> None:
    """Kiritimati is 14 hours ahead all the year: what is open here is over there."""
    bench.vm()
    bench.submit(window=window(bench, -1, 1), time_zone="Pacific/Kiritimati")
    assert bench.record().state is State.QUEUED


def test_not_before(bench: Bench) -> None:
    bench.vm()
    bench.submit(not_before=bench.runtime.store.now() + HOUR)
    waiting = bench.record()
    assert waiting.state is State.QUEUED
    assert waiting.waiting_for is not None
    assert waiting.waiting_for.startswith("not before ")


def test_after_its_deadline_it_is_refused(bench: Bench) -> None:
    bench.vm()
    bench.submit(deadline=bench.runtime.store.now() - 1)
    ended = bench.record()
    assert ended.state is State.REFUSED
    assert ended.error is not None
    assert ended.error.code == "DOES_NOT_FIT"
    assert ended.error.hint
    workflow.retry(bench.runtime, "m")
    assert bench.record().state is State.REFUSED


def test_what_is_expected_to_end_too_late_does_not_start(bench: Bench) -> None:
    """64 MiB at 1 KiB/s: nobody would wait for that until the deadline; at a good rate there is time enough."""
    bench.vm()
    bench.runtime.rates.note("alpha", "beta", 1024)
    bench.submit("slow", deadline=bench.runtime.store.now() + HOUR)
    ended = bench.record("slow")
    assert ended.state is State.REFUSED
    assert ended.error is not None
    assert "would end after the deadline" in ended.error.message
    for _ in range(8):
        bench.runtime.rates.note("alpha", "beta", 1e9)
    bench.submit("quick", deadline=bench.runtime.store.now() + HOUR)
    assert bench.deliver_all("quick").state is State.SUCCEEDED


def test_rates_are_of_one_way_and_the_last_few(bench: Bench) -> None:
    bench.vm()
    bench.submit()
    record = bench.deliver_all()
    moved = Channel(total_bytes=1 << 30, processed_bytes=1 << 30)
    for number in range(1, 12):
        progress = Progress(memory=moved, elapsed_ms=1000 * number)
        note_rate(bench.runtime, record.model_copy(update={"progress": progress}))
    seen = bench.runtime.rates.last("alpha", "beta")
    assert len(seen) == 8
    assert seen[-1] == round((1 << 30) / 11)
    assert bench.runtime.rates.last("beta", "alpha") == []
    tiny = Progress(memory=Channel(total_bytes=1024, processed_bytes=1024), elapsed_ms=1)
    note_rate(bench.runtime, record.model_copy(update={"progress": tiny}))
    assert bench.runtime.rates.last("alpha", "beta") == seen


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"window": "25:00-06:00"}, "INVALID_WINDOW"),
        ({"window": "22:00-22:00"}, "INVALID_WINDOW"),
        ({"window": "22:00-06:00", "time_zone": "Mars/Olympus"}, "UNKNOWN_TIME_ZONE"),
        ({"deadline": "tomorrow"}, "INVALID_REQUEST"),
        ({"not_before": float("nan")}, "INVALID_REQUEST"),
        ({"not_before": -1.0}, "INVALID_REQUEST"),
    ],
)
def test_bad_times(bench: Bench, values: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        bench.submit(**values)
    assert refused.value.code == code


def test_a_drain_passes_its_times_on(bench: Bench) -> None:
    bench.vm()
    closed = window(bench, 2, 4)
    workflow.ask_drain(bench.runtime, {"host": "alpha", "window": closed, "time_zone": "UTC"}, "d")
    for _ in range(3):
        workflow.advance_drains(bench.runtime)
        workflow.dispatch(bench.runtime)
    run = bench.record("d-1")
    assert (run.request.window, run.state) == (closed, State.QUEUED)
    assert run.waiting_for is not None
    assert run.waiting_for.startswith("the window opens at")


def test_priority_goes_before_age(bench: Bench) -> None:
    """Two wait for the one that may leave; the later one is more urgent."""
    bench.vm()
    for number in (1, 2, 3):
        uuid = f"00000000-2222-4000-8000-{number:012d}"
        bench.fake.add_domain("alpha", domain_xml(f"vm-{number}", uuid), running=True)
    for number, priority in ((1, 0), (2, 0), (3, 0), (0, 5)):
        vm = f"vm-{number}" if number else "web-7"
        workflow.submit(bench.runtime, {"vm": vm, "destination": "beta", "priority": priority}, f"p{number}")
    workflow.dispatch(bench.runtime)
    states = {run.id: run.state for run in bench.runtime.store.list_runs()}
    assert [name for name, state in sorted(states.items()) if state is State.CHECKING] == ["p0", "p1"]


def test_a_shared_link_has_a_limit_of_its_own(redis_server: RedisServer) -> None:
    """Alpha and beta are in one rack: what goes from there to gamma shares its uplink, what stays inside does not."""
    rack = LinkSettings(hosts=["alpha", "beta"], max_transfers=1)
    bench = Bench(redis_server.url, links={"rack": rack})
    for number, host in enumerate(("alpha", "beta", "alpha")):
        uuid = f"00000000-2222-4000-8000-{number:012d}"
        bench.fake.add_domain(host, domain_xml(f"vm-{number}", uuid), running=True)
    for number, destination in enumerate(("gamma", "gamma", "beta")):
        workflow.submit(bench.runtime, {"vm": f"vm-{number}", "destination": destination}, f"p{number}")
    workflow.dispatch(bench.runtime)
    states = {run.id: run.state for run in bench.runtime.store.list_runs()}
    assert states == {"p0": State.CHECKING, "p1": State.QUEUED, "p2": State.CHECKING}
    assert bench.record("p1").waiting_for == "as many go over link rack as are allowed"
    bench.deliver_all("p0")
    assert bench.record("p1").state is State.SUCCEEDED


def test_a_link_of_hosts_that_nobody_knows() -> None:
    with pytest.raises(ValidationError, match="not in the inventory"):
        Settings(links={"rack": LinkSettings(hosts=["nowhere"])})
