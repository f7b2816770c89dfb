"""Whatever dies, at whatever point: one startable copy, never two running, and a record that tells the truth.

One stack, and one guest of a kind, serve all cases; the guest is moved on from wherever the case before left it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.model.run import RunRecord, State
from tests.lab import Guest, GuestWatch, Lab
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack, until

pytestmark = pytest.mark.lab

COMMON = [
    *(f"preflight.{point}" for point in ("before", "claimed", "done", "handed")),
    *(f"prepare.{point}" for point in ("before", "claimed", "journaled", "effected", "done", "handed")),
    *(f"transfer.{point}" for point in ("before", "claimed", "done", "handed")),
    *(f"verify.{point}" for point in ("before", "claimed", "done", "handed")),
    *(f"finish.{point}" for point in ("before", "claimed", "journaled", "effected", "done", "settled")),
]
LIVE = [*COMMON, "transfer.moving"]
COPY = [
    "prepare.journaled-destination_volume",
    "prepare.effected-destination_volume",
    "transfer.claimed",
    "transfer.moving",
    "transfer.done",
    "verify.claimed",
    "finish.effected",
]
OFFLINE = [*COMMON, "transfer.journaled", "transfer.effected"]
OFFLINE_COPY = [
    "prepare.effected-destination_volume",
    "transfer.claimed",
    "transfer.moving",
    "transfer.effected",
    "verify.claimed",
    "finish.effected",
]
OFFLINE_HOSTS = [
    "prepare.effected-destination_volume",
    "transfer.claimed",
    "transfer.journaled-source_start",
    "transfer.effected-source_start",
    "transfer.moving",
    "transfer.journaled-destination_end",
    "transfer.effected-destination_end",
    "transfer.done",
    "verify.claimed",
    "finish.effected",
]
SAVED = [
    "prepare.effected",
    "transfer.journaled-source_save",
    "transfer.effected-source_save",
    "transfer.moving",
    "transfer.journaled-destination_restore",
    "transfer.effected-destination_restore",
    "verify.claimed",
    "finish.journaled-source_save_remove",
    "finish.effected-source_save_remove",
    "finish.effected-destination_resume",
]
SHUT_DOWN = [
    "prepare.journaled-source_shut_down",
    "prepare.effected-source_shut_down",
    "transfer.effected",
    "finish.journaled-destination_start",
    "finish.effected-destination_start",
    "finish.effected-source_undefine",
]
INCREMENTAL = [
    "prepare.effected-destination_volume",
    "transfer.moving",
    "transfer.effected-destination_volume",
    "transfer.done",
    "verify.claimed",
]
POINTS = {
    "offline-copy": OFFLINE_COPY,
    "offline-hosts": OFFLINE_HOSTS,
    "saved": SAVED,
    "shut-down": SHUT_DOWN,
    "incremental": INCREMENTAL,
    "live": LIVE,
    "copy": COPY,
    "offline": OFFLINE,
}
GUESTS: dict[str, dict[str, Any]] = {
    "live": {"fill_mib": 24},
    "offline": {"start": "off"},
    "copy": {"disk": "local", "write_kib_s": 16384, "write_stop": 256},
    "offline-copy": {"start": "off", "disk": "local", "disk_format": "raw", "disk_mib": 160},
    "offline-hosts": {"start": "off", "disk": "local", "disk_format": "raw", "disk_mib": 160},
    "saved": {"fill_mib": 24, "disk": "local"},
    "shut-down": {"button_ms": 100},
    "incremental": {
        "disk": "local",
        "disk_mib": 40,
        "below": ("qcow2",),
        "write_kib_s": 16384,
        "write_stop": 256,
    },
}
STREAMING = ("live", "copy", "incremental", "offline-hosts")
"""Kinds whose transfer is libvirt's own job."""
VERIFYING = ("copy", "incremental")
"""Guests that read their disks again all the time."""
FILLED = ("offline-copy", "offline-hosts")
ASKED: dict[str, dict[str, Any]] = {
    "offline-hosts": {"data_path": "hosts"},
    "saved": {"method": "saved"},
    "shut-down": {"method": "offline", "shut_down": "allowed"},
    "incremental": {"storage": "incremental"},
}
CASES = [(kind, point) for kind, points in POINTS.items() for point in points]
"""For two ways every point that there is, for the others what they do in a manner of their own."""
MOVING = dict.fromkeys(POINTS, "transfer.moving") | {"offline": "transfer.effected", "shut-down": "transfer.effected"}
WITHOUT_REDIS = [
    (kind, point)
    for kind, points in POINTS.items()
    for point in points
    if kind in ("live", "offline") or point == MOVING[kind]
]
"""A connection is lost in the same way whatever the VM does."""
TWICE = [
    (kind, step) for kind in ("live", "offline") for step in ("preflight", "prepare", "transfer", "verify", "finish")
]
TWICE += [(kind, "transfer") for kind in POINTS if kind not in ("live", "offline")]

Move = Callable[[str], tuple[RunRecord, Guest]]
Check = Callable[[RunRecord, Guest], None]


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(lab, tmp_path_factory.mktemp("crashes"), policies={"slow": {"bandwidth_mib_s": 16}}) as made:
        made.start(steps=0)
        yield made


@pytest.fixture(scope="module")
def kind(request: pytest.FixtureRequest) -> str:
    """The way the guest goes. Of a module's scope, so that all tests of one kind follow each other."""
    return str(request.param)


@pytest.fixture(scope="module")
def guest(lab: Lab, kind: str) -> Iterator[Guest]:
    """One at a time: guests that run and wait for their turn would take the others' processors."""
    made = lab.guest(f"crash-{kind}", autostart=True, **GUESTS[kind])
    if kind in FILLED:
        made.fill_disk(((0, 2), (70, 2), (140, 2)))
    elif not kind.startswith("offline"):
        made.wait_ticking()
    if kind in VERIFYING:
        made.wait_verified(1)
    yield made
    made.remove()


@pytest.fixture
def nobody(running: Stack) -> None:
    """No steps worker but those that the test starts: whoever else took a message would be held instead."""
    for worker in running.steps_workers:
        worker.kill9()


@pytest.fixture
def worker(running: Stack) -> None:
    """A steps worker, which lives on until a test wants none."""
    if not running.steps_workers:
        running.steps_worker()


def move(running: Stack, lab: Lab, guest: Guest, kind: str = "live") -> RunRecord:
    """Ask for the guest to go to another host than where it is."""
    here = next(host for host, seen in lab.states(guest.uuid).items() if seen is not None)
    there = lab.spec.hosts[(lab.spec.hosts.index(here) + 1) % len(lab.spec.hosts)]
    return running.client.submit({"vm": guest.name, "destination": there, "policy": "slow"} | ASKED.get(kind, {}))


def finish(running: Stack, guest: Guest, record: RunRecord, kind: str, watch: GuestWatch) -> RunRecord:
    """Wait for the end and check every promise."""
    ended = running.wait_end(record.id)
    check_invariants(running, guest, ended, was_running=not kind.startswith("offline"), autostart=True)
    if kind in VERIFYING:
        here = ended.destination if ended.state is State.SUCCEEDED else ended.source
        guest.wait_verified_anew(str(here))
    if kind == "shut-down":  # the next case asks it again: it must have booted
        here = str(ended.destination if ended.state is State.SUCCEEDED else ended.source)
        until(lambda: watch.beats_on(here), 60, "it does not beat")
    if kind in FILLED:
        guest.check_filled(ended.destination if ended.state is State.SUCCEEDED else str(ended.source))
    return ended


def check_beats(watch: GuestWatch, kind: str, *, continued: bool = True) -> None:
    """It never ran twice, and went on where it was unless it was shut down."""
    watch.check_never_twice(rebooted=kind == "shut-down")
    if continued and kind != "shut-down":
        watch.check_continued()


@pytest.mark.parametrize(("kind", "point"), CASES, indirect=["kind"])
def test_kill9_of_the_worker(running: Stack, nobody: None, lab: Lab, guest: Guest, kind: str, point: str) -> None:
    with guest.watch() as watch:
        running.hold(point)
        victim = running.steps_worker()
        record = move(running, lab, guest, kind)
        running.wait_held()
        victim.kill9()
        survivor = running.steps_worker()
        ended = finish(running, guest, record, kind, watch)
        survivor.kill9()
    assert ended.state is State.SUCCEEDED, running.diagnosis(record.id)
    check_beats(watch, kind)


@pytest.mark.parametrize("kind", POINTS, indirect=True)
@pytest.mark.parametrize("point", ["before", "claimed", "effected", "done", "settled"])
def test_kill9_of_the_worker_that_rolls_back(
    running: Stack, nobody: None, lab: Lab, guest: Guest, kind: str, point: str
) -> None:
    with guest.watch() as watch:
        running.hold(MOVING[kind])
        victim = running.steps_worker()
        record = move(running, lab, guest, kind)
        running.wait_held()
        running.client.cancel(record.id)
        running.hold(f"rollback.{point}")
        running.wait_held()
        victim.kill9()
        survivor = running.steps_worker()
        ended = finish(running, guest, record, kind, watch)
        survivor.kill9()
    # Where nobody had aborted it yet, a transfer goes on without any worker, and may be over when the next one is up.
    may_arrive = point in ("before", "claimed") and kind in STREAMING
    wanted = {State.CANCELLED, State.SUCCEEDED} if may_arrive else {State.CANCELLED}
    assert ended.state in wanted, running.diagnosis(record.id)
    check_beats(watch, kind)


@pytest.mark.parametrize(("kind", "point"), WITHOUT_REDIS, indirect=["kind"])
def test_connection_blip(running: Stack, worker: None, lab: Lab, guest: Guest, kind: str, point: str) -> None:
    with guest.watch() as watch:
        running.hold(point)
        record = move(running, lab, guest, kind)
        running.wait_held()
        running.redis.client_kill_all()
        running.release()
        ended = finish(running, guest, record, kind, watch)
    assert ended.state is State.SUCCEEDED, running.diagnosis(record.id)
    check_beats(watch, kind, continued=False)


@pytest.mark.parametrize(("kind", "point"), WITHOUT_REDIS, indirect=["kind"])
def test_redis_killed_and_restarted(
    running: Stack, worker: None, lab: Lab, guest: Guest, kind: str, point: str
) -> None:
    with guest.watch() as watch:
        running.hold(point)
        record = move(running, lab, guest, kind)
        running.wait_held()
        running.redis.kill()
        running.release()
        running.redis.restart(away_s=0.5)
        ended = finish(running, guest, record, kind, watch)
    # Half a second without Redis must not cost the migration; if it does, the VM must be back where it was.
    assert ended.state is State.SUCCEEDED, running.diagnosis(record.id)
    check_beats(watch, kind, continued=False)


@pytest.mark.parametrize(("kind", "step"), TWICE, indirect=["kind"])
def test_message_delivered_twice(running: Stack, worker: None, lab: Lab, guest: Guest, kind: str, step: str) -> None:
    """Once while the first copy runs, and once after it: the second steps aside both times."""
    with guest.watch() as watch:
        running.hold(f"{step}.claimed")
        record = move(running, lab, guest, kind)
        running.wait_held()
        for _ in range(2):
            running.resend(record.id)
        until(lambda: running.logs().count("not its turn, or taken") >= 2, 10, running.logs)
        running.release()
        running.wait_end(record.id)
        running.resend(record.id, step)
        ended = finish(running, guest, record, kind, watch)
    assert ended.state is State.SUCCEEDED, running.diagnosis(record.id)
    assert ended.attempt == 1
    check_beats(watch, kind, continued=False)


def test_sigterm_during_a_transfer_detaches_and_another_worker_adopts(
    lab: Lab, make_guest: Callable[..., Guest], tmp_path: Path
) -> None:
    guest = make_guest("crash-term", fill_mib=24, autostart=True)
    guest.wait_ticking()
    with stack(lab, tmp_path, policies={"slow": {"bandwidth_mib_s": 4}}, lease_s=60.0, hand_over_s=60.0) as own:
        own.start(steps=0)
        first = own.steps_worker()
        with guest.watch() as watch:
            record = move(own, lab, guest)
            own.wait_state(record.id, State.TRANSFERRING)
            until(
                lambda: own.client.show(record.id).progress.memory.processed_bytes > 0,
                20,
                lambda: own.diagnosis(record.id),
            )
            second = own.steps_worker()
            took = first.term(timeout_s=20)
            assert own.client.show(record.id).state is State.TRANSFERRING, "the transfer was over before the worker was"
            ended = own.wait_end(record.id)
        # The lease and the hand-over are a minute long: only a real detaching can have handed it over so soon.
        assert ended.state is State.SUCCEEDED, own.diagnosis(record.id)
        assert ended.attempt == 1
        assert "left to another worker" in first.log()
        assert ended.fence > record.fence
        assert took < 15
        check_invariants(own, guest, ended, was_running=True, autostart=True, watch=watch)
        watch.check_continued()
        second.kill9()
