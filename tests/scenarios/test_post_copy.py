"""Post-copy: a guest that is too busy runs on the destination at once; from there on it only goes forward."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import libvirt
import pytest

from tasks.model.errors import InvalidRequest
from tasks.model.run import RunRecord, State
from tests.lab import Guest, Lab
from tests.lab.faults import kill_qemu, libvirtd_killed, link_down, link_shaped
from tests.lab.host import Host
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack, until

pytestmark = pytest.mark.lab

POLICIES: dict[str, dict[str, Any]] = {
    "passes": {"post_copy_after_passes": 1},
    "time": {"completion_timeout_s": 8.0, "on_timeout": "post-copy"},
    "impatient": {"post_copy_after_passes": 1, "post_copy_recovery_s": 15.0},
}
BUSY: dict[str, Any] = {"memory_mib": 128, "fill_mib": 48, "dirty_mib_s": 96}
"""Changes all that it has filled twice a second."""
NUMBERS = count(1)
"""What a test that fails leaves behind is not in the way of the next one."""
MBIT = 60
"""The guest changes its memory more than ten times as fast as this link carries it."""


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(lab, tmp_path_factory.mktemp("post-copy"), policies=POLICIES) as made:
        made.start()
        yield made


@pytest.fixture
def busy(lab: Lab, make_guest: Callable[..., Guest]) -> Guest:
    guest = make_guest(f"post-{next(NUMBERS)}", **BUSY)
    guest.wait_ticking()
    return guest


def ask(running: Stack, lab: Lab, guest: Guest, policy: str, **more: Any) -> RunRecord:
    if not running.steps_workers:
        running.steps_worker()
    return running.client.submit({"vm": guest.name, "destination": "beta", "policy": policy, **more})


def wait_switched(running: Stack, lab: Lab, guest: Guest, run_id: str) -> RunRecord:
    """Until the guest runs there, and a part of its memory is still here."""

    def there() -> bool:
        seen = lab.states(guest.uuid)["beta"]
        return seen is not None and seen.state == libvirt.VIR_DOMAIN_RUNNING

    until(lambda: running.client.show(run_id).post_copy_begun, 60, lambda: running.diagnosis(run_id))
    until(there, 30, lambda: running.diagnosis(run_id))
    record = running.client.show(run_id)
    assert record.state is State.TRANSFERRING
    return record


@contextmanager
def in_post_copy(running: Stack, lab: Lab, guest: Guest, policy: str = "passes") -> Iterator[RunRecord]:
    """A migration that has been switched over a moment ago, over a slow link."""
    with link_shaped(lab.host("alpha"), MBIT):
        asked = ask(running, lab, guest, policy)
        record = wait_switched(running, lab, guest, asked.id)
        time.sleep(1.5)  # what the guest needs all the time has arrived
        yield record


def check_arrived(running: Stack, lab: Lab, guest: Guest, run_id: str, watch: Any, timeout_s: float = 90) -> RunRecord:
    record = running.wait_end(run_id, timeout_s)
    assert record.state is State.SUCCEEDED, running.diagnosis(run_id)
    assert record.progress.post_copy
    assert record.converging.post_copy_at is not None
    assert [(e.host, e.undone) for e in record.journal if e.kind == "post_copy"] == [("alpha", False)]
    check_invariants(running, guest, record, was_running=True, autostart=False, watch=watch)
    beats = len(watch.ticks())
    until(lambda: len(watch.ticks()) > beats + 20, 20, "the guest does not go on")
    watch.check_continued()
    return record


def test_after_passes(running: Stack, lab: Lab, busy: Guest) -> None:
    with busy.watch() as watch, link_shaped(lab.host("alpha"), MBIT):
        record = check_arrived(running, lab, busy, ask(running, lab, busy, "passes").id, watch)
    assert record.progress.iteration in (2, 3)
    shown = running.cli("show", record.id)
    assert "post-copy" in shown.stdout


def test_when_time_is_over(running: Stack, lab: Lab, busy: Guest) -> None:
    with busy.watch() as watch, link_shaped(lab.host("alpha"), MBIT):
        record = check_arrived(running, lab, busy, ask(running, lab, busy, "time").id, watch)
    kept = record.converging
    assert kept.began_at is not None
    assert kept.post_copy_at is not None
    assert 8 <= kept.post_copy_at - kept.began_at < 12
    assert record.finished_at is not None
    assert record.finished_at - kept.began_at < 45


def test_there_is_no_way_back(running: Stack, lab: Lab, busy: Guest) -> None:
    with busy.watch() as watch, in_post_copy(running, lab, busy) as record:
        with pytest.raises(InvalidRequest, match="memory that is still on alpha") as refused:
            running.client.cancel(record.id)
        assert refused.value.code == "TOO_LATE"
        check_arrived(running, lab, busy, record.id, watch)


def test_its_worker_dies(running: Stack, lab: Lab, busy: Guest) -> None:
    with busy.watch() as watch, in_post_copy(running, lab, busy) as record:
        for worker in running.steps_workers:
            worker.kill9()
        running.steps_worker()
        after = check_arrived(running, lab, busy, record.id, watch)
    assert after.fence > record.fence
    assert after.converging.post_copy_at == record.converging.post_copy_at


@pytest.mark.parametrize("point", ["journaled", "effected"])
def test_its_worker_dies_at_the_switch(running: Stack, lab: Lab, busy: Guest, point: str) -> None:
    """The intent is written; whether it was done, the next one sees on the hosts."""
    if not running.steps_workers:
        running.steps_worker()
    running.hold(f"transfer.{point}-post_copy")
    with busy.watch() as watch, link_shaped(lab.host("alpha"), MBIT):
        asked = ask(running, lab, busy, "passes")
        running.wait_held(60)
        for worker in running.steps_workers:
            worker.kill9()
        with pytest.raises(InvalidRequest):
            running.client.cancel(asked.id)
        running.release()
        running.steps_worker()
        check_arrived(running, lab, busy, asked.id, watch)


def test_the_link_is_cut_for_a_while(running: Stack, lab: Lab, busy: Guest) -> None:
    with busy.watch() as watch, in_post_copy(running, lab, busy) as record:
        with link_down(lab.host("beta")):
            time.sleep(8)
        check_arrived(running, lab, busy, record.id, watch)


@pytest.mark.parametrize("killed", [False, True])
def test_the_link_is_cut_for_so_long_that_libvirt_gives_up(running: Stack, lab: Lab, busy: Guest, killed: bool) -> None:
    """Also when the worker dies meanwhile: who adopts it helps it on."""
    with busy.watch() as watch, in_post_copy(running, lab, busy) as record:
        with link_down(lab.host("beta")):
            until(lambda: _reason(lab.host("alpha"), busy) == 13, 60, "libvirt has not noticed")
            for worker in running.steps_workers if killed else ():
                worker.kill9()
            if killed:
                running.steps_worker()
        check_arrived(running, lab, busy, record.id, watch, 150)


def test_a_person_is_asked_and_retry_helps_it_on(running: Stack, lab: Lab, busy: Guest) -> None:
    with busy.watch() as watch, in_post_copy(running, lab, busy, "impatient") as record:
        with link_down(lab.host("beta")):
            record = running.wait_end(record.id, 180)
            assert record.state is State.NEEDS_ATTENTION, running.diagnosis(record.id)
        assert record.error is not None
        assert "never destroy" in record.error.hint
        assert f"vmferry retry {record.id}" in record.error.hint
        running.client.retry(record.id)
        check_arrived(running, lab, busy, record.id, watch, 150)


def test_its_disk_goes_along(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    guest = make_guest("postdisk", disk="local", write_kib_s=512, write_stop=64, **BUSY)
    guest.wait_ticking()
    with guest.watch() as watch, link_shaped(lab.host("alpha"), MBIT):
        record = check_arrived(running, lab, guest, ask(running, lab, guest, "passes", storage="copy").id, watch)
    assert record.copies
    guest.wait_verified_anew("beta")


def test_the_source_daemon_dies(running: Stack, lab: Lab, busy: Guest) -> None:
    with busy.watch() as watch, in_post_copy(running, lab, busy) as record:
        with libvirtd_killed(lab.host("alpha")):
            time.sleep(2)
        check_arrived(running, lab, busy, record.id, watch)


@pytest.mark.parametrize("lost", ["alpha", "beta"])
def test_a_half_is_lost(running: Stack, lab: Lab, busy: Guest, lost: str) -> None:
    """The one thing that post-copy cannot survive: nothing is guessed, nothing is started or removed."""
    with in_post_copy(running, lab, busy) as record:
        kill_qemu(lab.host(lost), busy)
        record = running.wait_end(record.id, 120)
    assert record.state is State.NEEDS_ATTENTION, running.diagnosis(record.id)
    assert record.error is not None
    assert record.error.code == "NEEDS_ATTENTION_INCOMPLETE"
    seen = lab.states(busy.uuid)
    assert [name for name, one in seen.items() if one is not None] == ["alpha", "beta"]
    assert [name for name, one in seen.items() if one is not None and one.active] == [
        "beta" if lost == "alpha" else "alpha"
    ]


def _reason(host: Host, guest: Guest) -> int:
    conn = host.connect()
    try:
        return int(conn.lookupByUUIDString(guest.uuid).state()[1])
    finally:
        conn.close()
