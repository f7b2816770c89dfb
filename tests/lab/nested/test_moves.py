"""The guide's own experiments on its own three machines: two hosts and an NFS server, through the queue, over qemu+ssh.

Every row is one way a guest goes. No unsafe flag anywhere: libvirt itself finds the storage shared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tasks.model.run import RunRecord, State
from tests.lab import GuestWatch
from tests.lab.faults import pool_gone
from tests.lab.nested import NestedGuest, NestedLab
from tests.lab.nested.state import host_state
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack

pytestmark = [pytest.mark.nested, pytest.mark.timeout(900)]

END_S = 600.0
PATIENT = {
    "lease_s": 20.0,
    "hand_over_s": 20.0,
    "connect_timeout_s": 60.0,
    "unreachable_timeout_s": 120.0,
}
"""An emulated host takes seconds to answer where a real one takes milliseconds."""


@dataclass(frozen=True, slots=True)
class Row:
    """One way."""

    name: str
    method: str
    storage: str
    start: str
    fault: str
    """``cancel`` or ``fail``, and the point of the step at which it comes."""
    asked: dict[str, Any]
    """The request beside VM and destination."""
    options: dict[str, Any]
    """The guest."""
    lacks: str = ""
    """A pool that the destination does not have when the guest is to go there."""


TO_LVM = {"pools": {"*": "vg0"}}
RAW = {"disk_format": "raw", "disk_mib": 16}
LVM = RAW | {"disk": "vg0", "second_disk": "vg0"}
BUSY = {"write_kib_s": 1024, "write_stop": 512}
# fmt: off
ROWS = [
    #   name            method     storage   start      fault                      asked   guest
    Row("live-nfs",     "live",    "shared", "running", "cancel transfer.moving",  {},     {}),
    Row("offline-nfs",  "offline", "shared", "off",     "fail transfer.effected",  {},     RAW),
    Row("offline-lvm",  "offline", "copy",   "off",     "fail transfer.moving",    TO_LVM, LVM),
    Row("live-no-pool", "live",    "shared", "running", "fail transfer.moving",    {},     {}, lacks="shared"),
    Row("live-lvm",     "live",    "copy",   "running", "cancel transfer.moving",  TO_LVM, LVM | BUSY),
]
# fmt: on


@pytest.fixture(scope="module")
def running(nested: NestedLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    policies = {"slow": {"bandwidth_mib_s": 4}}
    with stack(nested, tmp_path_factory.mktemp("nested"), transport="ssh", policies=policies, **PATIENT) as made:
        made.start()
        yield made


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.name)
def row(request: pytest.FixtureRequest) -> Row:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def guest(nested: NestedLab, row: Row) -> Iterator[NestedGuest]:
    """One for both tests of a row."""
    with ExitStack() as stack:
        if row.lacks:
            stack.enter_context(pool_gone(nested.host("two"), row.lacks))
        made = nested.guest(f"way-{row.name}", start=row.start, autostart=True, **row.options)
        stack.callback(made.remove)
        if row.start == "off":
            made.fill_disk(((0, 1), (13, 2)))
        else:
            made.wait_ticking(timeout_s=END_S)
        if row.options.get("write_stop"):
            made.wait_verified(1, timeout_s=END_S)
        yield made


def check_everything(running: Stack, row: Row, guest: NestedGuest, record: RunRecord, watch: GuestWatch) -> None:
    """Where it is, that it goes on there where it was, and what is on its disks."""
    here = record.destination if record.state is State.SUCCEEDED else str(record.source)
    if row.start == "running":
        seen = len(watch.ticks_by_host()[here])
        guest.wait_beats(watch, here, seen + 10)
        watch.check_continued()
    if row.options.get("write_stop"):
        guest.wait_verified_anew(here)
    check_invariants(running, guest, record, was_running=row.start != "off", autostart=True, watch=watch)
    if guest.filled:
        guest.check_filled(here)


def test_a_fault_leaves_nothing_behind(running: Stack, nested: NestedLab, row: Row, guest: NestedGuest) -> None:
    destination = nested.host("two")
    before = host_state(destination)
    how, point = row.fault.split()
    request = {"vm": guest.name, "destination": "two", "policy": "slow"} | row.asked
    with guest.watch() as watch:
        if how == "fail":
            running.fail(point)
            record = running.client.submit(request)
        else:
            running.hold(point)
            record = running.client.submit(request)
            running.wait_held(END_S)
            running.client.cancel(record.id)
            running.release()
        ended = running.wait_end(record.id, END_S)
        expected = State.FAILED if how == "fail" else State.CANCELLED
        assert ended.state is expected, running.diagnosis(record.id)
        check_everything(running, row, guest, ended, watch)
    assert host_state(destination) == before


def test_it_arrives(running: Stack, row: Row, guest: NestedGuest) -> None:
    began = time.monotonic()
    with guest.watch() as watch:
        record = running.client.submit({"vm": guest.name, "destination": "two"} | row.asked)
        ended = running.wait_end(record.id, END_S)
        took_s = time.monotonic() - began
        assert ended.state is State.SUCCEEDED, running.diagnosis(record.id)
        assert (ended.method, ended.storage) == (row.method, row.storage)
        check_everything(running, row, guest, ended, watch)
    print(f"{row.name}: {took_s:.1f} s, pause {watch.max_gap_ms() / 1000:.1f} s")


def test_an_export_that_makes_root_nobody(
    running: Stack, nested: NestedLab, make_nested_guest: Callable[..., NestedGuest]
) -> None:
    """QEMU's user may write there and libvirt may not: nothing can be made there to prove that both see the same."""
    guest = make_nested_guest("squashed", start="off", disk="squashed", **RAW)
    before = host_state(nested.host("two"))
    ended = running.wait_end(running.client.submit({"vm": guest.name, "destination": "two"}).id, END_S)
    assert ended.state is State.FAILED, running.diagnosis(ended.id)
    assert ended.error is not None
    assert ended.error.code == "SHARE_NOT_PROVEN"
    assert "no_root_squash" in ended.error.hint
    check_invariants(running, guest, ended, was_running=False, autostart=False)
    assert host_state(nested.host("two")) == before


def test_the_command_line(running: Stack, make_nested_guest: Callable[..., NestedGuest]) -> None:
    """As an operator does it, and back again."""
    make_nested_guest("by-hand", start="off", disk=None)
    for destination in ("two", "one"):
        done = running.cli("migrate", "by-hand", "--to", destination, "--wait", timeout_s=END_S)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "by-hand" in running.cli("vms", "one", timeout_s=END_S).stdout
