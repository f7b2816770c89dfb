"""Verify asks the guest itself, where it can be asked, and the networks that its cards are in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import libvirt
import pytest

from tasks.model.run import State
from tests.lab import Guest, Lab
from tests.lab.faults import kill_qemu
from tests.lab.shell import until
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack

pytestmark = pytest.mark.lab

SILENT_AFTER_S = 12


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(lab, tmp_path_factory.mktemp("verify")) as made:
        made.start()
        yield made


def wait_connected(lab: Lab, guest: Guest) -> None:
    with contextlib.closing(lab.host("alpha").connect()) as conn:
        domain = conn.lookupByUUIDString(guest.uuid)
        until(lambda: "state='connected'" in domain.XMLDesc(), 30, "libvirt sees no guest agent")


@pytest.mark.parametrize("method", ["live", "suspend"])
def test_the_agent_answers_again(running: Stack, lab: Lab, make_guest: Callable[..., Guest], method: str) -> None:
    guest = make_guest(f"agent-{method}", agent=True)
    wait_connected(lab, guest)
    record = running.wait_end(running.client.submit({"vm": guest.name, "destination": "beta", "method": method}).id)
    assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
    assert record.agent
    check_invariants(running, guest, record, was_running=True, autostart=False)


def test_a_guest_without_an_agent_is_not_asked(running: Stack, make_guest: Callable[..., Guest]) -> None:
    guest = make_guest("agent-none")
    guest.wait_ticking()
    record = running.wait_end(running.client.submit({"vm": guest.name, "destination": "beta"}).id)
    assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
    assert not record.agent


def test_an_agent_that_fell_silent(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    """The VM has moved, but not as it was: nothing of the source is touched, and a person is asked to look."""
    guest = make_guest("agent-silent", agent=True, agent_s=SILENT_AFTER_S)
    wait_connected(lab, guest)
    running.hold("verify.claimed")
    asked = running.client.submit({"vm": guest.name, "destination": "beta"})
    running.wait_held()
    with guest.watch() as watch:  # by the guest's own clock: on a busy machine it is slow
        until(lambda: any(t.uptime_us > SILENT_AFTER_S * 1e6 for t in watch.ticks()), 60, "the guest stands still")
    running.release()
    record = running.wait_end(asked.id, timeout_s=120)
    assert record.state is State.NEEDS_ATTENTION, running.diagnosis(record.id)
    assert record.error is not None
    assert "guest agent" in record.error.message
    seen = lab.states(guest.uuid)
    assert seen["alpha"] is not None
    assert not seen["alpha"].active
    assert seen["beta"] is not None
    assert seen["beta"].active


def test_a_vm_that_crashed_on_its_arrival(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    """It is no success to have a dead VM there: the source keeps its definition, and a person is told."""
    guest = make_guest("crashed")
    guest.wait_ticking()
    running.hold("verify.claimed")
    asked = running.client.submit({"vm": guest.name, "destination": "beta"})
    running.wait_held()
    kill_qemu(lab.host("beta"), guest)
    until(
        lambda: (seen := lab.states(guest.uuid)["beta"]) is not None and not seen.active, 20, "libvirt does not see it"
    )
    running.release()
    record = running.wait_end(asked.id)
    assert record.state is State.NEEDS_ATTENTION, running.diagnosis(record.id)
    assert record.error is not None
    assert "the VM on beta crashed" in record.error.message
    seen = lab.states(guest.uuid)
    assert seen["alpha"] is not None
    assert seen["beta"] is not None
    assert not seen["alpha"].active
    assert not seen["beta"].active


def test_a_network_that_was_stopped_meanwhile(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    guest = make_guest("agent-network")
    guest.wait_ticking()
    running.hold("verify.claimed")
    asked = running.client.submit({"vm": guest.name, "destination": "beta"})
    running.wait_held()
    with contextlib.closing(lab.host("beta").connect()) as conn:
        network = conn.networkLookupByName("lab")
        libvirt.virNetwork.destroy(network)
        try:
            running.release()
            record = running.wait_end(asked.id)
        finally:
            network.create()
    assert record.state is State.NEEDS_ATTENTION, running.diagnosis(record.id)
    assert record.error is not None
    assert "network lab is not active" in record.error.message
    running.client.retry(record.id)
    again = running.wait_end(record.id)
    assert again.state is State.SUCCEEDED, running.diagnosis(record.id)
    check_invariants(running, guest, again, was_running=True, autostart=False)
