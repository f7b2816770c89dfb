"""Cancelling, by every means and in every state; trying again; and what is left for a person to settle."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from config.celery import CONTROL_QUEUE
from tasks.model.errors import InvalidRequest
from tasks.model.run import TERMINAL, RunRecord, State
from tests.lab import Guest, Lab
from tests.lab.faults import kill_qemu
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack, until

pytestmark = pytest.mark.lab

EMPTY_METADATA = re.compile(r"\s*<metadata(/>|>\s*</metadata>)")
Cancel = Callable[[Stack, RunRecord], None]


def by_client(running: Stack, record: RunRecord) -> None:
    running.client.cancel(record.id)


def by_task(running: Stack, record: RunRecord) -> None:
    sent = running.plain_celery().send_task("tasks.cancel", (record.id,), queue=CONTROL_QUEUE)
    answer = sent.get(timeout=10)
    assert answer["id"] == record.id
    assert answer["cancel_requested"] or answer["state"] == "cancelled"


def by_revoke(running: Stack, record: RunRecord) -> None:
    running.plain_celery().control.revoke(record.id)


def by_terminate(running: Stack, record: RunRecord) -> None:
    running.plain_celery().control.revoke(record.id, terminate=True, signal="SIGKILL")


def step_id(record: RunRecord) -> str:
    """The task id under which Flower shows the step."""
    return f"{record.id}.{record.attempt}.{record.send}.{record.step}"


def by_revoke_of_the_step(running: Stack, record: RunRecord) -> None:
    running.plain_celery().control.revoke(step_id(record))


def by_terminate_of_the_step(running: Stack, record: RunRecord) -> None:
    running.plain_celery().control.terminate(step_id(record))


WAYS: dict[str, Cancel] = {
    "client": by_client,
    "task": by_task,
    "revoke": by_revoke,
    "terminate": by_terminate,
    "revoke step": by_revoke_of_the_step,
    "terminate step": by_terminate_of_the_step,
}
POINTS = {
    "live": [
        "preflight.before",
        "preflight.claimed",
        "prepare.claimed",
        "prepare.effected",
        "transfer.claimed",
        "transfer.moving",
    ],
    "copy": [
        "prepare.journaled-destination_volume",
        "prepare.effected-destination_volume",
        "transfer.claimed",
        "transfer.moving",
    ],
    "offline": ["preflight.claimed", "prepare.effected", "transfer.claimed", "transfer.effected", "verify.claimed"],
}
TOO_LATE = {"live": ["verify.claimed", "finish.claimed"], "copy": ["verify.claimed"], "offline": ["finish.claimed"]}
CASES = (
    [(kind, point, "client") for kind, points in POINTS.items() for point in points]
    + [("live", "transfer.moving", way) for way in WAYS if way != "client"]
    + [("offline", "prepare.claimed", way) for way in WAYS if way != "client"]
)


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    policies = {"slow": {"bandwidth_mib_s": 16}}
    with stack(lab, tmp_path_factory.mktemp("cancel"), policies=policies) as made:
        made.start()
        yield made


@pytest.fixture(autouse=True)
def let_go(running: Stack) -> Iterator[None]:
    """A test that failed leaves no worker standing and no migration under way."""
    yield
    running.release()
    for record in running.client.list_runs():
        running.wait_end(record.id)


@pytest.fixture(scope="module")
def guests(lab: Lab) -> Iterator[dict[str, Guest]]:
    live = lab.guest("cancel-live", fill_mib=24, autostart=True)
    offline = lab.guest("cancel-off", start="off", disk=None, network=False, autostart=True)
    copy = lab.guest("cancel-copy", disk="local", write_kib_s=16384, write_stop=256, autostart=True)
    made = {"live": live, "copy": copy, "offline": offline}
    live.wait_ticking()
    copy.wait_verified(1)
    yield made
    for guest in made.values():
        guest.remove()


def move(running: Stack, lab: Lab, guest: Guest) -> RunRecord:
    """Ask for the guest to go to another host than where it is."""
    here = next(host for host, seen in lab.states(guest.uuid).items() if seen is not None)
    there = lab.spec.hosts[(lab.spec.hosts.index(here) + 1) % len(lab.spec.hosts)]
    return running.client.submit({"vm": guest.name, "destination": there, "policy": "slow"})


def held(running: Stack, lab: Lab, guest: Guest, point: str) -> RunRecord:
    """A migration that stands at a point."""
    running.hold(point)
    record = move(running, lab, guest)
    running.wait_held()
    return running.client.show(record.id)


def definitions(lab: Lab, guest: Guest) -> dict[str, str | None]:
    """The VM's definition on each host; libvirt keeps an empty element where the mark was."""
    states = lab.states(guest.uuid).items()
    return {host: EMPTY_METADATA.sub("", seen.xml) if seen is not None else None for host, seen in states}


def try_again(running: Stack, guest: Guest, record: RunRecord, *, active: bool) -> RunRecord:
    """``retry``: the same migration under the same id, this time to its end."""
    assert running.client.retry(record.id).attempt == record.attempt + 1
    ended = running.wait_end(record.id)
    assert (ended.state, ended.cancel_requested) == (State.SUCCEEDED, False), running.diagnosis(record.id)
    check_invariants(running, guest, ended, was_running=active, autostart=True)
    return ended


@pytest.mark.parametrize(("kind", "point", "way"), CASES)
def test_cancelled_and_rolled_back(
    running: Stack, lab: Lab, guests: dict[str, Guest], kind: str, point: str, way: str
) -> None:
    guest = guests[kind]
    before = definitions(lab, guest)
    with guest.watch() as watch:
        record = held(running, lab, guest, point)
        WAYS[way](running, record)
        until(lambda: running.client.show(record.id).cancel_requested, 5, lambda: running.diagnosis(record.id))
        running.release()
        ended = running.wait_end(record.id)
        assert ended.state is State.CANCELLED, running.diagnosis(record.id)
        check_invariants(running, guest, ended, was_running=kind != "offline", autostart=True, watch=watch)
        watch.check_continued()
    assert definitions(lab, guest) == before
    if kind == "copy":
        guest.wait_verified_anew(str(ended.source))


@pytest.mark.parametrize("way", WAYS)
def test_cancelled_while_queued(running: Stack, lab: Lab, guests: dict[str, Guest], way: str) -> None:
    """It waits for the lock of a VM that another migration holds; that one is not disturbed."""
    guest = guests["offline"]
    first = held(running, lab, guest, "prepare.claimed")
    waiting = running.client.submit({"vm": guest.name, "destination": first.destination, "policy": "slow"})
    until(lambda: running.client.show(waiting.id).waiting_for, 10, lambda: running.diagnosis(waiting.id))
    if way.endswith("step"):
        # It has no step yet: this is the id that its first one would get.
        waiting = waiting.model_copy(update={"send": 1, "step": "preflight"})
    WAYS[way](running, waiting)
    ended = running.wait_end(waiting.id, timeout_s=10)
    assert (ended.state, ended.journal) == (State.CANCELLED, ())
    error = running.plain_celery().AsyncResult(waiting.id).get(timeout=5, propagate=False)
    assert (type(error).__name__, error.args[0]) == ("MigrationCancelled", "CANCELLED")
    running.release()
    ended = running.wait_end(first.id)
    assert ended.state is State.SUCCEEDED, running.diagnosis(first.id)
    check_invariants(running, guest, ended, was_running=False, autostart=True)


@pytest.mark.parametrize(("kind", "point"), [(kind, point) for kind, points in TOO_LATE.items() for point in points])
def test_too_late_to_cancel(running: Stack, lab: Lab, guests: dict[str, Guest], kind: str, point: str) -> None:
    guest = guests[kind]
    with guest.watch() as watch:
        record = held(running, lab, guest, point)
        with pytest.raises(InvalidRequest, match=r"TOO_LATE: .*migrate it back"):
            running.client.cancel(record.id)
        sent = running.plain_celery().send_task("tasks.cancel", (record.id,), queue=CONTROL_QUEUE)
        assert sent.get(timeout=10, propagate=False).args[0] == "TOO_LATE"
        by_terminate_of_the_step(running, record)
        until(lambda: f"revoke of {record.id}: TOO_LATE" in running.logs(), 10, running.logs)
        running.release()
        ended = running.wait_end(record.id)
    assert (ended.state, ended.cancel_requested) == (State.SUCCEEDED, False), running.diagnosis(record.id)
    check_invariants(running, guest, ended, was_running=kind != "offline", autostart=True, watch=watch)
    with pytest.raises(InvalidRequest, match="ALREADY_FINISHED"):
        running.client.cancel(record.id)
    with pytest.raises(InvalidRequest, match="NOT_RETRYABLE"):
        running.client.retry(record.id)


def test_what_was_cancelled_can_be_tried_again(running: Stack, lab: Lab, guests: dict[str, Guest]) -> None:
    guest = guests["live"]
    record = held(running, lab, guest, "transfer.moving")
    running.client.cancel(record.id)
    with pytest.raises(InvalidRequest, match="NOT_RETRYABLE"):
        running.client.retry(record.id)
    running.release()
    ended = running.wait_end(record.id)
    assert ended.state is State.CANCELLED
    again = try_again(running, guest, ended, active=True)
    assert (again.attempt, again.error) == (2, None)


def test_what_was_refused_can_be_tried_again(running: Stack, lab: Lab, guests: dict[str, Guest]) -> None:
    """A shut-off domain of the same name stands in the way, until somebody removes it."""
    guest = guests["offline"]
    here = next(host for host, seen in lab.states(guest.uuid).items() if seen is not None)
    there = lab.spec.hosts[(lab.spec.hosts.index(here) + 1) % len(lab.spec.hosts)]
    xml = guest.xml.replace(f"<uuid>{guest.uuid}</uuid>", "")
    with closing(lab.host(there).connect()) as conn:
        domain = conn.defineXML(xml)
        try:
            record = running.client.submit({"vm": guest.uuid, "destination": there})
            ended = running.wait_end(record.id)
        finally:
            domain.undefine()
    assert ended.state is State.REFUSED
    try_again(running, guest, ended, active=False)


@pytest.mark.parametrize("disk", ["shared", "local"])
def test_what_failed_can_be_tried_again(running: Stack, lab: Lab, make_guest: Callable[..., Guest], disk: str) -> None:
    """QEMU dies on the destination in the middle of the transfer."""
    guest = make_guest(f"fails-{disk}", "alpha", fill_mib=24, autostart=True, disk=disk)
    guest.wait_ticking()
    with guest.watch() as watch:
        running.hold("transfer.moving")
        record = running.client.submit({"vm": guest.name, "destination": "beta", "policy": "slow"})
        running.wait_held()
        kill_qemu(lab.host("beta"), guest)
        running.release()
        ended = running.wait_end(record.id)
        assert ended.state is State.FAILED, running.diagnosis(record.id)
        assert ended.error is not None
        assert ended.error.hint
        check_invariants(running, guest, ended, was_running=True, autostart=True, watch=watch)
        assert try_again(running, guest, ended, active=True).attempt == 2
    watch.check_never_twice()


def test_a_vm_that_vanished_needs_attention_until_it_is_back(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest]
) -> None:
    """Somebody destroys and undefines it in the middle: nothing is guessed, the lock is kept, and retry looks again."""
    guest = make_guest("lost-1", "alpha", start="off", disk=None, network=False)
    running.hold("transfer.effected")
    record = running.client.submit({"vm": guest.name, "destination": "beta"})
    running.wait_held()
    xml = lab.states(guest.uuid)["alpha"]
    for host in ("alpha", "beta"):
        lab.host(host).virsh("undefine", guest.name)
    running.release()
    ended = running.wait_end(record.id)
    assert ended.state is State.NEEDS_ATTENTION, running.diagnosis(record.id)
    check_asks_for_attention(running, ended)
    other = running.client.submit({"vm": guest.name, "destination": "gamma"})
    assert running.wait_end(other.id).state is State.REFUSED
    # Still nothing there: retry says so again, and holds the lock on.
    running.client.retry(record.id)
    ended = running.wait_end(record.id)
    assert (ended.state, ended.attempt) == (State.NEEDS_ATTENTION, 2)
    check_asks_for_attention(running, ended)
    assert xml is not None
    with closing(lab.host("alpha").connect()) as conn:
        conn.defineXML(xml.xml)
    waiting = running.client.submit({"vm": guest.name, "destination": "gamma"})
    until(lambda: running.client.show(waiting.id).waiting_for, 10, lambda: running.diagnosis(waiting.id))
    assert record.id in str(running.client.show(waiting.id).waiting_for)
    running.client.cancel(waiting.id)
    running.client.retry(record.id)
    ended = running.wait_end(record.id)
    assert ended.state is State.FAILED, running.diagnosis(record.id)
    check_invariants(running, guest, ended, was_running=False, autostart=False)
    running.client.retry(record.id)
    ended = running.wait_end(record.id)
    assert (ended.state, ended.attempt) == (State.SUCCEEDED, 4), running.diagnosis(record.id)
    check_invariants(running, guest, ended, was_running=False, autostart=False)


def check_asks_for_attention(running: Stack, record: RunRecord) -> None:
    """It says what was seen on both hosts and what to type, holds the VM's lock, and its result is the error."""
    assert record.state in TERMINAL
    assert record.error is not None
    assert record.error.code.startswith("NEEDS_ATTENTION_")
    for host in (str(record.source), record.destination):
        assert host in record.error.message
        assert host in record.error.hint
    assert f"vmferry retry {record.id}" in record.error.hint
    assert str(record.uuid) in record.error.hint
    assert running.redis.client().get(f"vmferry:lock:vm:{record.uuid}") == record.id.encode()
    error = running.plain_celery().AsyncResult(record.id).get(timeout=10, propagate=False)
    assert (type(error).__name__, error.args[0]) == ("NeedsAttention", record.error.code)
