"""Networks that are made on the destination when that is asked for, and taken away when the VM does not come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from tasks.model.finding import Severity
from tasks.model.run import State
from tests.lab import Guest, Host, Lab, check_unchanged, snapshot
from tests.scenarios.asking import findings, move
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack

pytestmark = pytest.mark.lab

NETWORK = """<network><name>{0}</name><bridge name='{1}'/><dns enable='no'/>
<ip address='{2}' netmask='255.255.255.0'/></network>"""
CARD = "<interface type='network'><source network='{}'/><model type='virtio'/></interface>"


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(lab, tmp_path_factory.mktemp("remedy-networks")) as made:
        made.start()
        yield made


@contextmanager
def network(
    host: Host, name: str, *, bridge: str, address: str, forward: str = "", start: bool = True
) -> Iterator[None]:
    """A libvirt network of one host."""
    with closing(host.connect()) as conn:
        made = conn.networkDefineXML(NETWORK.format(name, bridge, address))
        made.setAutostart(1)
        if start:
            made.create()
        try:
            yield
        finally:
            gone(host, name)


def gone(host: Host, name: str) -> None:
    """The host does not have the network any more."""
    for command in ("net-destroy", "net-undefine"):
        host.virsh(command, name, check=False)


def network_of(host: Host, name: str) -> tuple[str, bool, bool]:
    """UUID, whether it is active, whether it is started at boot."""
    with closing(host.connect()) as conn:
        found = conn.networkLookupByName(name)
        return found.UUIDString(), bool(found.isActive()), bool(found.autostart())


@pytest.fixture(scope="module")
def island(lab: Lab) -> Iterator[str]:
    """A network that only alpha has."""
    with network(lab.host("alpha"), "island", bridge="virbr71", address="10.99.71.1"):
        yield "island"
        gone(lab.host("beta"), "island")


@pytest.fixture(scope="module")
def islander(lab: Lab, island: str) -> Iterator[Guest]:
    """A guest on it, shut off, at alpha; tests that move it bring it back."""
    made = lab.guest("islander", start="off", disk_format="raw", extra_xml=CARD.format(island))
    yield made
    made.remove()


@pytest.mark.parametrize("begin", ["running", "off"])
def test_a_network_is_made(running: Stack, lab: Lab, island: str, make_guest: Callable[..., Guest], begin: str) -> None:
    guest = make_guest(f"settler-{begin}", start=begin, extra_xml=CARD.format(island))
    if begin == "running":
        guest.wait_ticking()
    refused = move(running, guest)
    severity, _, hint = findings(refused)["NETWORK_MISSING"]
    assert (refused.state, severity) == (State.REFUSED, Severity.BLOCKER)
    assert hint.startswith("--remedy create-network;")
    record = move(running, guest, "create-network")
    assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
    assert findings(record)["NETWORK_MISSING"][0] is Severity.INFO
    assert f"network {island} on beta" in record.created
    check_invariants(running, guest, record, was_running=begin == "running", autostart=False)
    here, there = (network_of(lab.host(host), island) for host in ("alpha", "beta"))
    assert (there[0] != here[0], there[1:]) == (True, (True, True))
    guest.remove()
    gone(lab.host("beta"), island)


NETWORK_POINTS = [
    "prepare.journaled-destination_network",
    "prepare.effected-destination_network",
    "prepare.done",
    "transfer.claimed",
]


@pytest.mark.parametrize("point", NETWORK_POINTS)
def test_a_network_that_was_made_goes_again(running: Stack, lab: Lab, islander: Guest, point: str) -> None:
    before = snapshot(lab)
    running.fail(point)
    record = move(running, islander, "create-network")
    running.check_failed()
    assert record.state is State.FAILED, running.diagnosis(record.id)
    check_unchanged(lab, before)


@pytest.mark.parametrize("point", NETWORK_POINTS[:2])
def test_kill9_while_a_network_is_made(running: Stack, lab: Lab, islander: Guest, point: str) -> None:
    before = snapshot(lab)
    running.hold(point)
    values = {"vm": islander.name, "destination": "beta", "remedies": ["create-network"]}
    record = running.client.submit(values)
    running.wait_held()
    running.workers.pop(1).kill9()
    running.hold("transfer.claimed")
    running.steps_worker()
    running.wait_held()
    assert network_of(lab.host("beta"), "island")[1:] == (True, True)
    running.client.cancel(record.id)
    running.release()
    ended = running.wait_end(record.id)
    assert ended.state is State.CANCELLED, running.diagnosis(record.id)
    check_unchanged(lab, before)


def test_an_inactive_network_is_started(running: Stack, lab: Lab, islander: Guest) -> None:
    with network(lab.host("beta"), "island", bridge="virbr72", address="10.99.72.1", start=False):
        before = snapshot(lab)
        running.fail("prepare.done")
        failed = move(running, islander, "create-network")
        assert failed.state is State.FAILED, running.diagnosis(failed.id)
        check_unchanged(lab, before)
        record = move(running, islander, "create-network")
        assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
        assert findings(record)["NETWORK_INACTIVE"][0] is Severity.INFO
        assert network_of(lab.host("beta"), "island")[1]
        back = running.wait_end(running.client.submit({"vm": islander.name, "destination": "alpha"}).id)
        assert back.state is State.SUCCEEDED, running.diagnosis(back.id)


@pytest.mark.parametrize(
    ("bridge", "address"), [("virbr71", "10.99.73.1"), ("virbr73", "10.99.71.9")], ids=["bridge", "addresses"]
)
def test_a_network_that_would_clash_is_refused(
    running: Stack, lab: Lab, islander: Guest, bridge: str, address: str
) -> None:
    with network(lab.host("beta"), "taken", bridge=bridge, address=address):
        before = snapshot(lab)
        record = move(running, islander, "create-network")
        severity, message, _ = findings(record)["REMEDY_REFUSED"]
        assert (record.state, severity) == (State.REFUSED, Severity.BLOCKER)
        assert "network taken of beta" in message
        check_unchanged(lab, before)


def test_addresses_that_only_the_host_itself_has(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    """libvirt does not show them beforehand, and does not start such a network: nothing is left of it."""
    lab.host("beta").run(["ip", "addr", "add", "10.99.74.7/24", "dev", "br0"])
    try:
        with network(lab.host("alpha"), "hidden", bridge="virbr74", address="10.99.74.1"):
            guest = make_guest("hidden-1", start="off", extra_xml=CARD.format("hidden"))
            before = snapshot(lab)
            record = move(running, guest, "create-network")
            assert record.error is not None
            assert (record.state, record.error.code) == (State.FAILED, "NETWORK_NOT_STARTED"), record.error
            check_unchanged(lab, before)
    finally:
        lab.host("beta").run(["ip", "addr", "del", "10.99.74.7/24", "dev", "br0"])


def test_a_network_that_another_vm_has_come_to_use_is_left(
    running: Stack, lab: Lab, islander: Guest, make_guest: Callable[..., Guest]
) -> None:
    second = make_guest("neighbour", start="off", extra_xml=CARD.format("island"))
    running.hold("prepare.done")
    values = {"vm": islander.name, "destination": "beta", "remedies": ["create-network"]}
    first = running.client.submit(values)
    running.wait_held()
    moved = move(running, second)
    assert moved.state is State.SUCCEEDED, running.diagnosis(moved.id)
    running.client.cancel(first.id)
    running.release()
    ended = running.wait_end(first.id)
    assert ended.state is State.CANCELLED, running.diagnosis(ended.id)
    assert ["neighbour" in kept and "network island on beta" in kept for kept in ended.kept] == [True]
    assert network_of(lab.host("beta"), "island")[1]
    second.remove()
    gone(lab.host("beta"), "island")


def test_two_at_once_make_one_network(
    running: Stack, lab: Lab, islander: Guest, make_guest: Callable[..., Guest]
) -> None:
    """Both saw that there was none; one of them makes it, and neither fails for the other."""
    second = make_guest("twin", start="off", extra_xml=CARD.format("island"))
    running.hold("prepare.journaled-destination_network")
    values = {"vm": islander.name, "destination": "beta", "remedies": ["create-network"]}
    first = running.client.submit(values)
    running.wait_held()
    moved = move(running, second, "create-network")
    assert moved.state is State.SUCCEEDED, running.diagnosis(moved.id)
    running.release()
    ended = running.wait_end(first.id)
    assert ended.state is State.SUCCEEDED, running.diagnosis(ended.id)
    assert [e.undone for e in ended.journal if e.kind == "destination_network"] == [True]
    back = running.wait_end(running.client.submit({"vm": islander.name, "destination": "alpha"}).id)
    assert back.state is State.SUCCEEDED, running.diagnosis(back.id)
    second.remove()
    gone(lab.host("beta"), "island")
