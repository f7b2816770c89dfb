"""A guest that changes its memory faster than it is sent: it arrives, or is given up, as its policy says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import libvirt
import pytest

from tasks.model.run import RunRecord, State
from tests.lab import Guest, GuestWatch, Lab
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack, until

pytestmark = pytest.mark.lab

SLOW = {"bandwidth_mib_s": 8}
POLICIES = {
    "abort": SLOW | {"completion_timeout_s": 4.0},
    "per-gib": SLOW | {"completion_s_per_gib": 4.0},
    "stall": SLOW | {"stall_timeout_s": 4.0},
    "pause": {"bandwidth_mib_s": 24, "completion_timeout_s": 4.0, "on_timeout": "pause"},
    "hopeless": {"bandwidth_mib_s": 1, "completion_timeout_s": 2.0, "on_timeout": "pause"},
}
BUSY: dict[str, Any] = {"memory_mib": 128, "fill_mib": 48, "dirty_mib_s": 96}
"""Changes all that it has filled twice a second."""


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(lab, tmp_path_factory.mktemp("convergence"), policies=POLICIES) as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def busy(lab: Lab) -> Iterator[Guest]:
    made = lab.guest("busy", **BUSY)
    made.wait_ticking()
    yield made
    made.remove()


def ask(running: Stack, lab: Lab, guest: Guest, policy: str) -> RunRecord:
    here = next(host for host, seen in lab.states(guest.uuid).items() if seen is not None)
    there = lab.spec.hosts[(lab.spec.hosts.index(here) + 1) % len(lab.spec.hosts)]
    return running.client.submit({"vm": guest.name, "destination": there, "policy": policy})


def check_goes_on(lab: Lab, guest: Guest, host: str, watch: GuestWatch) -> None:
    seen = lab.states(guest.uuid)[host]
    assert seen is not None
    assert seen.state == libvirt.VIR_DOMAIN_RUNNING
    beats = len(watch.ticks())
    until(lambda: len(watch.ticks()) > beats + 20, 20, "the guest does not go on")


@pytest.mark.parametrize("policy", ["abort", "per-gib", "stall"])
def test_given_up(running: Stack, lab: Lab, busy: Guest, policy: str) -> None:
    with busy.watch() as watch:
        record = running.wait_end(ask(running, lab, busy, policy).id)
        assert record.state is State.FAILED, running.diagnosis(record.id)
        assert record.error is not None
        assert record.error.code == "COMPLETION_TIMEOUT"
        assert policy in record.error.message
        check_invariants(running, busy, record, was_running=True, autostart=False, watch=watch)
        watch.check_continued()
    assert record.converging.aborted
    assert record.converging.began_at is not None
    assert record.finished_at is not None
    assert record.finished_at - record.converging.began_at < 20


def test_it_stands_still_and_arrives(running: Stack, lab: Lab, busy: Guest) -> None:
    with busy.watch() as watch:
        record = running.wait_end(ask(running, lab, busy, "pause").id)
        assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
        assert record.converging.paused_at is not None
        check_invariants(running, busy, record, was_running=True, autostart=False, watch=watch)
        busy.wait_ticking(record.destination)
        watch.check_continued()


def test_it_stands_still_and_is_given_up_all_the_same(running: Stack, lab: Lab, busy: Guest) -> None:
    with busy.watch() as watch:
        record = running.wait_end(ask(running, lab, busy, "hopeless").id)
        assert record.state is State.FAILED, running.diagnosis(record.id)
        assert record.converging.paused_at is not None
        assert record.converging.aborted
        check_invariants(running, busy, record, was_running=True, autostart=False, watch=watch)
        check_goes_on(lab, busy, str(record.source), watch)
        watch.check_continued()


def test_who_adopts_it_knows_since_when(running: Stack, lab: Lab, busy: Guest) -> None:
    """Killed while the guest stands still: the next worker neither forgets that, nor starts the clock again."""
    for worker in running.steps_workers:
        worker.kill9()
    victim = running.steps_worker()
    asked = ask(running, lab, busy, "hopeless")
    until(lambda: running.client.show(asked.id).converging.paused_at is not None, 20, "it is not paused")
    before = running.client.show(asked.id).converging
    victim.kill9()
    running.steps_worker()
    record = running.wait_end(asked.id)
    assert record.state is State.FAILED, running.diagnosis(record.id)
    assert record.fence > 3
    assert (record.converging.began_at, record.converging.paused_at) == (before.began_at, before.paused_at)
    assert record.converging.aborted
    check_invariants(running, busy, record, was_running=True, autostart=False)


def test_cancelled_while_it_stands_still(running: Stack, lab: Lab, busy: Guest) -> None:
    if not running.steps_workers:
        running.steps_worker()
    with busy.watch() as watch:
        asked = ask(running, lab, busy, "hopeless")
        until(lambda: running.client.show(asked.id).converging.paused_at is not None, 20, "it is not paused")
        running.client.cancel(asked.id)
        record = running.wait_end(asked.id)
        assert record.state is State.CANCELLED, running.diagnosis(record.id)
        check_invariants(running, busy, record, was_running=True, autostart=False, watch=watch)
        check_goes_on(lab, busy, str(record.source), watch)
