"""Requests that meet each other: the same one twice, two for one VM, and VMs that people moved meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from config.celery import CONTROL_QUEUE
from tasks.model.errors import InvalidRequest
from tasks.model.run import RunRecord, State
from tests.lab import Guest, Lab
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack, until

pytestmark = pytest.mark.lab

PLAIN_CLIENT = """
import json, sys
sys.modules["tasks"] = sys.modules["config"] = None  # another system does not have them
from celery import Celery
url, kwargs = sys.argv[1], json.loads(sys.argv[2])
app = Celery("elsewhere", broker=url, backend=url)
try:
    print(json.dumps(["SUCCESS", app.send_task("tasks.migrate", (), kwargs, queue="vmferry").get(timeout=60)]))
except Exception as error:
    print(json.dumps([type(error).__name__, list(error.args)]))
"""


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack in which one migration at a time arrives at gamma."""
    policies = {"slow": {"bandwidth_mib_s": 32}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VMFERRY_HOSTS__GAMMA__MAX_INCOMING", "1")
        with stack(lab, tmp_path_factory.mktemp("requests"), policies=policies) as made:
            made.start()
            yield made


@pytest.fixture(autouse=True)
def let_go(running: Stack) -> Iterator[None]:
    """A test that failed leaves no worker standing."""
    yield
    running.release()


@pytest.fixture(scope="module")
def guest(lab: Lab) -> Iterator[Guest]:
    made = lab.guest("asked-1", fill_mib=16)
    made.wait_ticking()
    yield made
    made.remove()


def hosts_from(lab: Lab, guest: Guest) -> tuple[str, str, str]:
    """Where the guest is, and the two other hosts."""
    here = next(host for host, seen in lab.states(guest.uuid).items() if seen is not None)
    first = lab.spec.hosts.index(here)
    names = [lab.spec.hosts[(first + step) % 3] for step in range(3)]
    return names[0], names[1], names[2]


def send(running: Stack, *, task_id: str | None = None, **kwargs: Any) -> Any:
    """A plain Celery client's message."""
    return running.plain_celery().send_task("tasks.migrate", (), kwargs, queue=CONTROL_QUEUE, task_id=task_id)


def from_elsewhere(running: Stack, folder: Path, **kwargs: Any) -> Any:
    """What a process that has Celery and nothing of vmferry gets when it waits for its migration."""
    command = [sys.executable, "-c", PLAIN_CLIENT, running.redis.url, json.dumps(kwargs)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=90, check=True)
    return json.loads(done.stdout)


def refused(record: RunRecord, code: str) -> None:
    """It was refused with this code, and says what to do."""
    assert record.error is not None, record.state
    assert (record.state, record.error.code, bool(record.error.hint)) == (State.REFUSED, code, True)


def test_the_same_request_twice_is_one_migration(running: Stack, lab: Lab, guest: Guest) -> None:
    _, there, _ = hosts_from(lab, guest)
    request: dict[str, Any] = {"vm": guest.name, "destination": there, "policy": "slow", "labels": {"b": "2", "a": "1"}}
    with guest.watch() as watch:
        running.hold("transfer.moving")
        first = send(running, id="twice", **request)
        running.wait_held()
        again = request | {"labels": {"a": "1", "b": "2"}}
        second = send(running, id="twice", **again)
        assert running.client.submit(again, run_id="twice").state is State.TRANSFERRING
        running.release()
        results = [sent.get(timeout=40) for sent in (first, second)]
    late = send(running, id="twice", **request).get(timeout=10)
    by_id = running.plain_celery().AsyncResult("twice").get(timeout=10)
    assert results[0] == results[1] == late == by_id
    assert (by_id["state"], by_id["attempt"], by_id["destination"]) == ("succeeded", 1, there)
    record = running.wait_end("twice")
    assert [timing.step for timing in record.timings] == ["preflight", "prepare", "transfer", "verify", "finish"]
    check_invariants(running, guest, record, was_running=True, autostart=False, watch=watch)


def test_another_request_under_a_taken_id_disturbs_nothing(running: Stack, lab: Lab, guest: Guest) -> None:
    _, there, third = hosts_from(lab, guest)
    with guest.watch() as watch:
        running.hold("transfer.moving")
        own = send(running, task_id="taken", vm=guest.name, destination=there, policy="slow")
        running.wait_held()
        with pytest.raises(InvalidRequest, match=r"ID_CONFLICT: .*taken.*asked-1"):
            running.client.submit({"vm": guest.name, "destination": third}, run_id="taken")
        other = send(running, id="taken", vm=guest.name, destination=third)
        error = other.get(timeout=10, propagate=False)
        assert (error.args[0], bool(error.args[2])) == ("ID_CONFLICT", True)
        # A message whose own task id is the migration's: its error has nowhere to go but over the result.
        send(running, task_id="taken", vm=guest.name, destination=third)
        until(lambda: "result of the running migration taken kept" in running.logs(), 10, running.logs)
        assert own.state == "STARTED"
        running.release()
        result = own.get(timeout=40)
    assert (result["state"], result["destination"]) == ("succeeded", there)
    assert other.get(timeout=10, propagate=False).args[0] == "ID_CONFLICT"
    check_invariants(running, guest, running.wait_end("taken"), was_running=True, autostart=False, watch=watch)


def test_migrations_of_one_vm_go_one_after_the_other(running: Stack, lab: Lab, guest: Guest) -> None:
    """A later one starts from where the earlier one has put the VM, unless it said where it must be."""
    here, there, third = hosts_from(lab, guest)
    with guest.watch() as watch:
        running.hold("transfer.moving")
        submit = running.client.submit
        first = submit({"vm": guest.name, "destination": there, "policy": "slow"}, run_id="one-1")
        running.wait_held()
        same = submit({"vm": guest.name, "destination": there, "labels": {"n": "2"}}, run_id="one-2")
        fixed = submit({"vm": guest.name, "destination": third, "source": here}, run_id="one-3")
        onward = submit({"vm": guest.uuid, "destination": third}, run_id="one-4")
        for waiting in (fixed, onward):
            until(
                lambda w=waiting: running.client.show(w.id).waiting_for, 10, lambda w=waiting: running.diagnosis(w.id)
            )
            assert running.client.show(waiting.id).state is State.QUEUED
        assert "one-1" in str(running.client.show(onward.id).waiting_for)
        running.release()
        first, same, fixed, onward = (running.wait_end(r.id) for r in (first, same, fixed, onward))
    assert first.state is State.SUCCEEDED, running.diagnosis(first.id)
    refused(same, "ALREADY_ON_DESTINATION")
    refused(fixed, "VM_NOT_ON_SOURCE")
    assert onward.state is State.SUCCEEDED, running.diagnosis(onward.id)
    assert (onward.source, onward.destination) == (there, third)
    transfers = [next(t for t in r.timings if t.step == "transfer") for r in (first, onward)]
    assert transfers[0].ended_at is not None
    assert first.finished_at is not None
    assert transfers[1].started_at > first.finished_at
    check_invariants(running, guest, onward, was_running=True, autostart=False, watch=watch)
    watch.check_continued()


def move_by_hand(lab: Lab, guest: Guest, here: str, there: str) -> None:
    """What an operator types."""
    target = lab.host(there)
    options = ["--live", "--p2p", "--persistent", "--undefinesource", "--migrateuri", f"tcp://{target.address}"]
    lab.host(here).virsh("migrate", *options, guest.name, target.peer_uri("tcp"))


def test_a_vm_that_was_moved_by_hand_while_its_migration_waited(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest]
) -> None:
    """It is found where it is now, unless the request said where it must be."""
    guest = make_guest("by-hand", "alpha", start="paused", disk=None, network=False, memory_mib=32)
    blocker = make_guest("blocker", "beta", start="off", disk=None, network=False)
    running.hold("prepare.claimed")
    blocking = running.client.submit({"vm": "blocker", "destination": "gamma"})
    running.wait_held()
    found = running.client.submit({"vm": guest.name, "destination": "gamma"})
    fixed = running.client.submit({"vm": guest.name, "destination": "gamma", "source": "alpha"})
    why = "as many arrive at gamma as are allowed"
    for waiting in (found, fixed):
        until(
            lambda w=waiting: running.client.show(w.id).waiting_for == why,
            10,
            lambda w=waiting: running.diagnosis(w.id),
        )
    move_by_hand(lab, guest, "alpha", "beta")
    running.release()
    blocking, found, fixed = (running.wait_end(record.id) for record in (blocking, found, fixed))
    assert (found.state, found.source) == (State.SUCCEEDED, "beta"), running.diagnosis(found.id)
    refused(fixed, "VM_NOT_ON_SOURCE")
    check_invariants(running, guest, found, was_running=True, autostart=False)
    check_invariants(running, blocker, blocking, was_running=False, autostart=False)


@contextmanager
def defined(lab: Lab, host: str, xml: str, number: str) -> Iterator[Callable[[], str]]:
    """A shut-off domain on a host; yields what reads its definition."""
    with closing(lab.host(host).connect()) as conn:
        domain = conn.defineXML(xml)
        try:
            yield lambda: str(conn.lookupByUUIDString(number).XMLDesc(0))
        finally:
            domain.undefine()


@pytest.mark.parametrize("start", ["running", "off"])
@pytest.mark.parametrize("kind", ["name", "name and uuid"])
def test_a_shut_off_vm_of_that_name_on_the_destination(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest], tmp_path: Path, kind: str, start: str
) -> None:
    guest = make_guest("twin", "alpha", start="paused" if start == "running" else start, disk=None, memory_mib=32)
    number = str(uuid.uuid4()) if kind == "name" else guest.uuid
    xml = guest.xml.replace(guest.uuid, number).replace("<memory unit='MiB'>32", "<memory unit='MiB'>48")
    with defined(lab, "beta", xml, number) as definition:
        before, source = definition(), lab.states(guest.uuid)["alpha"]
        code = "DESTINATION_HAS_SAME_NAME" if kind == "name" else "DESTINATION_HAS_SAME_UUID"
        answer = from_elsewhere(running, tmp_path, vm="twin", source="alpha", destination="beta", id=str(uuid.uuid4()))
        assert answer[0] == "MigrationRefused"
        assert answer[1][0] == code
        assert "beta" in answer[1][1]
        assert definition() == before
        assert lab.states(guest.uuid)["alpha"] == source


def test_a_plain_client_waits_for_the_whole_migration(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest], tmp_path: Path
) -> None:
    guest = make_guest("plain-1", start="paused", disk=None, memory_mib=32, network=False)
    kind, result = from_elsewhere(running, tmp_path, vm="plain-1", destination="gamma", labels={"ticket": "77"})
    assert (kind, result["state"], result["labels"]) == ("SUCCESS", "succeeded", {"ticket": "77"})
    record = running.client.show(result["id"])
    assert json.loads(record.model_dump_json()) == result
    check_invariants(running, guest, record, was_running=True, autostart=False)
    assert from_elsewhere(running, tmp_path, vm="nobody", destination="gamma")[1][0] == "VM_NOT_FOUND"
