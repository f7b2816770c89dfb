"""The libvirt adapter when hosts vanish under it; the fake cannot show this."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import libvirt
import pytest

from tasks.hypervisor import guest
from tasks.hypervisor.adapter import LibvirtHypervisor
from tasks.model.domain import DomainState
from tasks.model.errors import HostUnreachable, HypervisorError, OutcomeUnknown
from tests.contract.acting import order_for, wait_until
from tests.contract.conftest import addresses
from tests.contract.rigs import LibvirtRig
from tests.lab import Lab
from tests.lab.faults import libvirtd_frozen, libvirtd_killed, link_down

pytestmark = pytest.mark.lab
CONNECT_TIMEOUT_S = 2.0


@pytest.fixture
def lab_rig(lab: Lab, tmp_path: Path) -> Iterator[LibvirtRig]:
    made = LibvirtRig(addresses(lab), tmp_path)
    yield made
    made.close()


@pytest.fixture
def impatient(lab: Lab) -> Iterator[LibvirtHypervisor]:
    made = LibvirtHypervisor(addresses(lab), connect_timeout_s=CONNECT_TIMEOUT_S)
    yield made
    made.close()


@pytest.mark.parametrize("transport", ["tcp", "ssh", "unix"])
def test_every_transport(lab: Lab, transport: str) -> None:
    hypervisor = LibvirtHypervisor(addresses(lab, transport))
    assert hypervisor.fetch_facts("alpha").hostname == "alpha"
    hypervisor.close()


def test_a_transfer_between_hosts_that_reach_each_other_by_ssh(lab: Lab, tmp_path: Path) -> None:
    rig = LibvirtRig(addresses(lab, "ssh"), tmp_path)
    try:
        uuid = rig.make("alpha", running=True)
        rig.hypervisor.transfer(order_for(rig, uuid))
        destination = rig.hypervisor.find_domain("beta", uuid)
        assert destination is not None
        assert destination.state is DomainState.RUNNING
    finally:
        rig.close()


def test_a_transient_domain_that_goes_while_it_is_looked_at(lab: Lab, lab_rig: LibvirtRig) -> None:
    """libvirt's list of statistics is empty then, which says nothing about a domain."""
    uuid = lab_rig.make("alpha", running=True, persistent=False)
    with closing(lab.host("alpha").connect()) as connection:
        domain = connection.lookupByUUIDString(uuid)
        assert guest.read_stats(domain, libvirt.VIR_DOMAIN_STATS_VCPU)["vcpu.current"] == 1
        domain.destroy()
        assert guest.read_stats(domain, libvirt.VIR_DOMAIN_STATS_VCPU) == {}
        assert not guest.never_ran(domain)
    assert lab_rig.hypervisor.find_domain("alpha", uuid) is None


def test_a_daemon_that_was_restarted_is_found_again(lab: Lab, impatient: LibvirtHypervisor) -> None:
    before = impatient.fetch_facts("alpha")
    lab.host("alpha").restart_libvirtd()
    assert impatient.fetch_facts("alpha").uuid == before.uuid


def test_a_killed_daemon_is_told_at_once(lab: Lab, impatient: LibvirtHypervisor) -> None:
    impatient.find_domain("alpha", "x")
    with libvirtd_killed(lab.host("alpha")):
        began = time.monotonic()
        with pytest.raises(HostUnreachable):
            impatient.find_domain("alpha", "x")
        assert time.monotonic() - began < 1
    assert impatient.find_domain("alpha", "x") is None


def test_a_cut_cable_costs_a_new_connection_its_timeout(lab: Lab, impatient: LibvirtHypervisor) -> None:
    with link_down(lab.host("beta")):
        began = time.monotonic()
        with pytest.raises(HostUnreachable) as caught:
            impatient.find_domain("beta", "x")
        assert time.monotonic() - began < CONNECT_TIMEOUT_S + 1
    assert caught.value.code == "HOST_UNREACHABLE"
    assert impatient.find_domain("beta", "x") is None


def test_a_frozen_daemon_does_not_hold_a_call_for_ever(
    lab: Lab, impatient: LibvirtHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.hypervisor.connection.KEEPALIVE_INTERVAL_S", 1)
    impatient.find_domain("alpha", "x")
    with libvirtd_frozen(lab.host("alpha")):
        began = time.monotonic()
        with pytest.raises(HostUnreachable):
            impatient.find_domain("alpha", "x")
        assert time.monotonic() - began < 10
    assert impatient.find_domain("alpha", "x") is None


def test_a_transfer_whose_connection_breaks_has_no_known_outcome(lab: Lab, lab_rig: LibvirtRig) -> None:
    uuid = lab_rig.make("alpha", running=True)
    order = lab_rig.without_end(order_for(lab_rig, uuid))
    raised: list[HypervisorError] = []

    def run() -> None:
        try:
            lab_rig.hypervisor.transfer(order)
        except HypervisorError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: lab_rig.hypervisor.fetch_job("alpha", uuid).memory_processed > 0)
    with libvirtd_killed(lab.host("alpha")):
        thread.join(10)
    assert [(type(error), error.code) for error in raised] == [(OutcomeUnknown, "CONNECTION_LOST")]
    source = lab_rig.hypervisor.find_domain("alpha", uuid)
    assert source is not None
    assert (source.state, source.job.active) == (DomainState.RUNNING, False)
    wait_until(lambda: lab_rig.hypervisor.find_domain("beta", uuid) is None)


def test_a_guest_leaves_while_it_is_looked_at(lab_rig: LibvirtRig) -> None:
    """A transient domain goes from the source at the end: at every moment it is either all there or not there."""
    uuid = lab_rig.make("alpha", running=True, persistent=False)
    order, ended, seen = order_for(lab_rig, uuid), threading.Event(), set()

    def look() -> None:
        while not ended.is_set():
            for host in ("alpha", "beta"):
                view = lab_rig.hypervisor.find_domain(host, uuid)
                seen.add((host, view.state if view else None, view.mark is not None if view else None))

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    lab_rig.hypervisor.transfer(order)
    wait_until(lambda: ("beta", DomainState.RUNNING, True) in seen and ("alpha", None, None) in seen)
    ended.set()
    for looker in lookers:
        looker.join(10)
    assert ("beta", DomainState.RUNNING, False) not in seen
