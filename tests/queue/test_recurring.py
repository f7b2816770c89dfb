"""Drains of the configuration: due moments by hand, and by real beats and workers, several at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from config.recurring import RecurringDrainSettings
from config.settings import Settings
from tasks import workflow
from tasks.model.drain import DrainRecord, DrainState
from tasks.workflow.recurring import list_recurring
from tests.queue.draining import add, ask, look, names_on, run_to_end
from tests.queue.harness import CHECKOUT, Beat, RedisServer, Worker, wait_for
from tests.queue.workbench import Bench

pytestmark = pytest.mark.queue

HOUR = 3600.0
NAME = "night"


@cache
def base_of(bench: Bench) -> float:
    """When the test began: a minute that ends meanwhile changes nothing."""
    return bench.runtime.store.now()


def clock(bench: Bench, hours: float) -> str:
    """Wall clock, UTC, so many hours from now."""
    return datetime.fromtimestamp(base_of(bench) + hours * HOUR, UTC).strftime("%H:%M")


def configure(bench: Bench, **values: Any) -> None:
    """As if workers had been started with it."""
    settings = RecurringDrainSettings.model_validate({"host": "alpha"} | values)
    object.__setattr__(bench.runtime.settings, "recurring_drains", {NAME: settings})


def away(bench: Bench, hours: float) -> None:
    """Nobody has looked for so long."""
    bench.runtime.drains.put_recurring_mark(NAME, bench.runtime.store.now() - hours * HOUR)


def begun(bench: Bench) -> list[DrainRecord]:
    workflow.begin_recurring(bench.runtime)
    return bench.runtime.drains.newest(100)


def test_one_that_is_due_begins_once(bench: Bench) -> None:
    add(bench, 1)
    configure(bench, at=clock(bench, -1), until=clock(bench, 2), labels={"ticket": "7"}, strict=True)
    away(bench, 2)
    (record,) = begun(bench)
    due = datetime.fromtimestamp(base_of(bench) - HOUR, UTC).strftime("%Y%m%dT%H%MZ")
    assert record.id == f"night-{due}"
    assert record.state is DrainState.PLANNING
    assert record.request.strict
    assert record.request.labels == {"ticket": "7"}
    assert record.request.deadline == pytest.approx(bench.runtime.store.now() + 2 * HOUR, abs=61)
    away(bench, 2)  # somebody else looks, who has not heard of it
    assert begun(bench) == [record]
    assert run_to_end(bench, record.id).state is DrainState.EMPTY
    away(bench, 2)
    assert [one.state for one in begun(bench)] == [DrainState.EMPTY], "what is over does not begin again"


def test_many_who_look_at_the_same_time(bench: Bench) -> None:
    configure(bench, at=clock(bench, -1), until=clock(bench, 2))
    away(bench, 2)
    together = threading.Barrier(8)

    def look_at_once() -> None:
        together.wait()
        workflow.begin_recurring(bench.runtime)

    threads = [threading.Thread(target=look_at_once) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bench.runtime.drains.newest(100)) == 1
    assert [told.event.state for told in bench.runtime.events.newest(100)] == ["planning"]


def test_what_is_newly_configured_does_not_begin_for_times_that_are_past(bench: Bench) -> None:
    configure(bench, at=clock(bench, -1), until=clock(bench, 2))
    assert begun(bench) == []
    assert begun(bench) == []


def test_what_was_missed_is_said(bench: Bench) -> None:
    """Everything was down for two nights; what could still be done tonight is done, the rest is said once."""
    configure(bench, at=clock(bench, -2), until=clock(bench, 1))
    away(bench, 51)
    last, *missed = begun(bench)
    assert last.state is DrainState.PLANNING
    assert [one.state for one in missed] == [DrainState.REFUSED, DrainState.REFUSED]
    for one in missed:
        assert one.error is not None
        assert one.error.code == "DRAIN_MISSED"
        assert "vmferry drain alpha" in one.error.hint
        assert one.finished_at
    assert len(begun(bench)) == 3
    told = [(t.event.state, t.event.error.code if t.event.error else "") for t in bench.runtime.events.newest(100)]
    assert sorted(told) == [("planning", ""), ("refused", "DRAIN_MISSED"), ("refused", "DRAIN_MISSED")]
    assert bench.runtime.drains.under_way() == {"alpha": last.id}


def test_what_was_missed_on_a_host_that_is_being_emptied_leaves_that_alone(bench: Bench) -> None:
    add(bench, 1)
    workflow.ask_drain(bench.runtime, {"host": "alpha"}, "other")
    configure(bench, at=clock(bench, -3), until=clock(bench, -1))
    away(bench, 4)
    records = {record.id: record for record in begun(bench)}
    missed = records[next(name for name in records if name != "other")]
    assert missed.error is not None
    assert missed.error.message == "it was due, and drain other is under way"
    assert bench.runtime.drains.under_way() == {"alpha": "other"}
    assert run_to_end(bench, "other").state is DrainState.EMPTY


def test_without_an_end_it_is_late_for_an_hour_at_most(bench: Bench) -> None:
    configure(bench, at=clock(bench, -0.5))
    away(bench, 1)
    assert [one.state for one in begun(bench)] == [DrainState.PLANNING]
    assert begun(bench)[0].request.deadline is None
    configure(bench, at=clock(bench, -1.5))
    away(bench, 2)
    assert begun(bench)[0].state is DrainState.REFUSED


def test_it_waits_for_another_drain_of_the_host(bench: Bench) -> None:
    add(bench, 1)
    workflow.ask_drain(bench.runtime, {"host": "alpha"}, "other")
    configure(bench, at=clock(bench, -1), until=clock(bench, 2))
    away(bench, 2)
    assert [one.id for one in begun(bench)] == ["other"]
    assert [one.id for one in begun(bench)] == ["other"]
    assert run_to_end(bench, "other").state is DrainState.EMPTY
    assert len(begun(bench)) == 2
    assert len(begun(bench)) == 2


def test_the_same_again_waits_for_the_one_before(bench: Bench) -> None:
    """Both ask for exactly the same, which asked twice by a person would be one drain."""
    configure(bench, at=clock(bench, -0.5))
    ask(bench, "earlier")
    away(bench, 1)
    assert [record.id for record in begun(bench)] == ["earlier"]
    assert run_to_end(bench, "earlier").state is DrainState.EMPTY
    assert len(begun(bench)) == 2, "it was not taken for dealt with"


def test_what_cannot_begin_says_why(bench: Bench) -> None:
    configure(bench, at=clock(bench, -1), until=clock(bench, 2), accept=["NO_SUCH_CODE"])
    away(bench, 2)
    (record,) = begun(bench)
    assert record.error is not None
    assert record.error.code == "UNKNOWN_FINDING"
    (status,) = list_recurring(bench.runtime)
    assert "NO_SUCH_CODE" in status.problem


def test_vms_come_back_at_their_time(bench: Bench) -> None:
    for number in (1, 2):
        add(bench, number)
    configure(bench, at=clock(bench, -3), until=clock(bench, 1), return_at=clock(bench, 2))
    away(bench, 4)
    (night,) = begun(bench)
    assert run_to_end(bench, night.id).state is DrainState.EMPTY
    assert names_on(bench, "alpha") == set()
    configure(bench, at=clock(bench, -3), until=clock(bench, -1), return_at=clock(bench, -0.5))
    away(bench, 1)
    back, _ = begun(bench)
    assert back.id == f"{night.id}-back"
    assert run_to_end(bench, back.id).state is DrainState.RETURNED
    assert names_on(bench, "alpha") == {"vm-1", "vm-2"}
    assert bench.runtime.cordons.find("alpha") is None
    away(bench, 1)
    assert len(begun(bench)) == 2


def test_nothing_comes_back_when_nothing_went_and_the_host_is_open_again(bench: Bench) -> None:
    configure(bench, at=clock(bench, -3), until=clock(bench, 1), return_at=clock(bench, 2))
    away(bench, 4)
    (night,) = begun(bench)
    assert run_to_end(bench, night.id).state is DrainState.EMPTY
    assert bench.runtime.cordons.find("alpha") is not None
    configure(bench, at=clock(bench, -3), until=clock(bench, -1), return_at=clock(bench, -0.5))
    away(bench, 1)
    assert begun(bench) == [bench.runtime.drains.load(night.id)]
    assert bench.runtime.cordons.find("alpha") is None


def test_coming_back_waits_for_the_drain_and_is_missed_after_an_hour(bench: Bench) -> None:
    add(bench, 1)
    configure(bench, at=clock(bench, -3), until=clock(bench, 1), return_at=clock(bench, 2))
    away(bench, 4)
    (night,) = begun(bench)
    look(bench, deliver=False)
    configure(bench, at=clock(bench, -3), until=clock(bench, -1), return_at=clock(bench, -0.5))
    away(bench, 1)
    assert len(begun(bench)) == 1
    configure(bench, at=clock(bench, -3), until=clock(bench, -2), return_at=clock(bench, -1.5))
    away(bench, 2)
    back, _ = begun(bench)
    assert back.error is not None
    assert back.error.code == "DRAIN_MISSED"
    assert f"--return-of {night.id}" in back.error.hint


def test_the_next_times_are_told(bench: Bench) -> None:
    configure(bench, at=clock(bench, -1), until=clock(bench, 2), return_at=clock(bench, 3))
    away(bench, 2)
    (record,) = begun(bench)
    (status,) = list_recurring(bench.runtime)
    assert (status.name, status.host, status.last, status.last_state) == (NAME, "alpha", record.id, "planning")
    assert status.problem == ""
    first, second, _ = status.coming
    assert first.due == pytest.approx(bench.runtime.store.now() + 23 * HOUR, abs=61)
    assert second.due - first.due == 24 * HOUR
    assert first.ends == first.due + 3 * HOUR
    assert first.returns == first.due + 4 * HOUR


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"host": "nowhere", "at": "22:00"}, "nowhere not in the inventory"),
        ({"host": "alpha", "at": "22:00", "to": ["nowhere"]}, "nowhere not in the inventory"),
        ({"host": "alpha", "at": "22:00", "policy": "none"}, "no policy none"),
        ({"host": "alpha", "at": "24:00"}, "at"),
        ({"host": "alpha", "at": "22:00", "until": "22:00"}, "ends when it begins"),
        ({"host": "alpha", "at": "22:00", "return_at": "06:00"}, "needs until"),
        ({"host": "alpha", "at": "22:00", "weeks": [2]}, "needs days"),
        ({"host": "alpha", "at": "22:00", "weeks": [6], "days": ["mon"]}, "weeks"),
        ({"host": "alpha", "at": "22:00", "days": ["someday"]}, "days"),
        ({"host": "alpha", "at": "22:00", "time_zone": "Mars/Olympus"}, "no such time zone"),
        ({"host": "alpha", "at": "22:00", "odd": 1}, "odd"),
    ],
)
def test_what_cannot_be_configured(values: dict[str, Any], words: str) -> None:
    hosts = {name: {"uri": f"qemu+tcp://{name}/system"} for name in ("alpha", "beta")}
    with pytest.raises(ValidationError, match=words):
        Settings.model_validate({"hosts": hosts, "recurring_drains": {"a": values}})


def test_names_that_make_no_ids() -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(
            {"hosts": {"a": {"uri": "qemu:///system"}}, "recurring_drains": {"x" * 25: {"host": "a", "at": "22:00"}}}
        )


# -- with everything as processes -------------------------------------------------------------------------------------


def write_config(folder: Path, url: str, minutes: list[datetime]) -> Path:
    """One drain of a host of its own for each of these minutes; nobody answers at those hosts' addresses."""
    lines = [f"broker_url = {json.dumps(url)}", "reconcile_period_s = 0.5", "connect_timeout_s = 1.0"]
    for number in range(len(minutes) + 1):
        lines += [f"[hosts.h{number}]", f'uri = "qemu+tcp://127.0.0.1:1/system?no_{number}=1"']
    for number, minute in enumerate(minutes):
        until = minute + timedelta(hours=2)
        lines += [f"[recurring_drains.r{number}]", f'host = "h{number}"', f'at = "{minute:%H:%M}"']
        lines += [f'until = "{until:%H:%M}"']
    path = folder / "vmferry.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_two_beats_and_two_workers_begin_each_once(tmp_path: Path) -> None:
    """Both beats send at the same time. The first drain was due while nothing ran; before the second is due, one beat
    and one worker are killed."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    minutes = [now, now + timedelta(minutes=1 if datetime.now(UTC).second < 25 else 2)]
    with RedisServer() as server:
        config = write_config(tmp_path, server.url, minutes)
        server.client().hset("vmferry:recurring", "r0", now.timestamp() - 30)
        beats = [Beat(config, tmp_path / f"b{n}", name=f"beat{n}") for n in (0, 1)]
        workers = [Worker(config, queues="vmferry", name=f"w{n}", folder=tmp_path / f"w{n}") for n in (0, 1)]
        try:
            for program in (*workers, *beats):
                program.start()
            wait_for(lambda: events(server), "the first", timeout_s=20)
            for beat in beats:
                beat.wait_log("tasks.advance_drains")
            beats[0].kill9()
            workers[0].kill9()
            assert datetime.now(UTC) < minutes[1], "it took too long to start"
            wait_for(lambda: len(events(server)) >= 2, "the second", timeout_s=130)
            assert datetime.now(UTC) >= minutes[1]
            time.sleep(3.0)  # a second copy would have come by now
            stamps = [f"r{n}-{minute:%Y%m%dT%H%MZ}" for n, minute in enumerate(minutes)]
            assert events(server) == [(stamps[0], "planning"), (stamps[1], "planning")]
            assert server.client().zrange("vmferry:drains", 0, -1) == [stamp.encode() for stamp in stamps]
            shown = json.loads(run_cli(config, "drains", "--recurring", "--json"))
            assert [(one["name"], one["last"], one["problem"]) for one in shown] == [
                (f"r{number}", stamps[number], "") for number in (0, 1)
            ]
            assert shown[1]["coming"][0]["due"] == (minutes[1] + timedelta(days=1)).timestamp()
            assert run_cli(config, "drains").count("\nr1\th1\t") == 3, "the next three times, below the drains"
        finally:
            for program in (*beats, *workers):
                program.kill9()


def run_cli(config: Path, *args: str) -> str:
    command = [sys.executable, str(CHECKOUT / "cli.py"), *args]
    env = os.environ | {"VMFERRY_CONFIG": str(config)}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True).stdout


def events(server: RedisServer) -> list[tuple[str, str]]:
    found = server.client().xrange("vmferry:events")
    told = [json.loads(fields[b"event"]) for _, fields in found]  # type: ignore[union-attr, index]
    return [(event["id"], event["state"]) for event in told]
