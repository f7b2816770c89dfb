"""The contract of ``tasks.model.networks.NetworkPort``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tasks.model.errors import OperatorMustFix
from tests.contract.acting import code_of
from tests.contract.rigs import Rig, new_identity


def network_xml(name: str, uuid: str, bridge: str) -> str:
    """Without addresses, so that libvirt needs no DHCP server."""
    return f"<network><name>{name}</name><uuid>{uuid}</uuid><bridge name='{bridge}'/></network>"


class Made:
    """Networks that the tests define."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.uuids: list[str] = []

    def define(self) -> tuple[str, str, str]:
        name, uuid = new_identity()
        bridge = f"c{uuid[:8]}"
        self.uuids.append(uuid)
        self.rig.hypervisor.define_network(self.rig.source, network_xml(name, uuid, bridge))
        return name, uuid, bridge


@pytest.fixture
def made(rig: Rig) -> Iterator[Made]:
    arranged = Made(rig)
    yield arranged
    for uuid in arranged.uuids:
        rig.hypervisor.stop_network(rig.source, uuid)
        rig.hypervisor.undefine_network(rig.source, uuid)


def test_a_network_is_defined_and_only_that(rig: Rig, made: Made) -> None:
    name, uuid, bridge = made.define()
    for key in (name, uuid):
        seen = rig.hypervisor.find_network(rig.source, key)
        assert seen is not None
        assert (seen.name, seen.uuid, seen.active, seen.persistent, seen.autostart) == (name, uuid, False, True, False)
    facts = next(n for n in rig.hypervisor.fetch_facts(rig.source).networks if n.name == name)
    assert (facts.active, facts.bridge, facts.mode, facts.ranges) == (False, bridge, "", ())
    assert rig.hypervisor.find_network(rig.destination, uuid) is None
    assert uuid in rig.hypervisor.fetch_network_xml(rig.source, name)


def test_it_starts_and_stops(rig: Rig, made: Made) -> None:
    _, uuid, bridge = made.define()
    for start, active in ((True, True), (True, True), (False, False), (False, False)):
        (rig.hypervisor.start_network if start else rig.hypervisor.stop_network)(rig.source, uuid)
        seen = rig.hypervisor.find_network(rig.source, uuid)
        assert seen is not None
        assert seen.active is active
    assert bridge


def test_defining_again_changes_nothing(rig: Rig, made: Made) -> None:
    name, uuid, bridge = made.define()
    rig.hypervisor.start_network(rig.source, uuid)
    before = rig.hypervisor.find_network(rig.source, uuid)
    rig.hypervisor.define_network(rig.source, network_xml(name, uuid, bridge))
    assert rig.hypervisor.find_network(rig.source, uuid) == before


def test_nothing_is_defined_over_another_network(rig: Rig, made: Made) -> None:
    name, uuid, bridge = made.define()
    other, other_uuid = new_identity()
    for xml in (
        network_xml(name, other_uuid, "celsewhere"),
        network_xml(other, uuid, "celsewhere"),
        network_xml(other, other_uuid, bridge),
    ):
        call = lambda xml=xml: rig.hypervisor.define_network(rig.source, xml)  # noqa: E731
        assert code_of(call, OperatorMustFix) == "NETWORK_EXISTS"
    assert rig.hypervisor.find_network(rig.source, other) is None
    assert rig.hypervisor.find_network(rig.source, other_uuid) is None


def test_autostart_comes_and_goes(rig: Rig, made: Made) -> None:
    _, uuid, _ = made.define()
    for enabled in (True, False, False):
        rig.hypervisor.set_network_autostart(rig.source, uuid, enabled=enabled)
        seen = rig.hypervisor.find_network(rig.source, uuid)
        assert seen is not None
        assert seen.autostart is enabled


def test_an_active_network_is_not_undefined(rig: Rig, made: Made) -> None:
    """libvirt itself would leave it as a transient one."""
    _, uuid, _ = made.define()
    rig.hypervisor.start_network(rig.source, uuid)
    assert code_of(lambda: rig.hypervisor.undefine_network(rig.source, uuid), OperatorMustFix) == "OPERATION_INVALID"
    rig.hypervisor.stop_network(rig.source, uuid)
    for _ in range(2):
        rig.hypervisor.undefine_network(rig.source, uuid)
        assert rig.hypervisor.find_network(rig.source, uuid) is None


def test_what_is_not_there(rig: Rig) -> None:
    uuid = new_identity()[1]
    assert rig.hypervisor.find_network(rig.source, uuid) is None
    rig.hypervisor.stop_network(rig.source, uuid)
    for call in (
        lambda: rig.hypervisor.fetch_network_xml(rig.source, "none"),
        lambda: rig.hypervisor.start_network(rig.source, uuid),
        lambda: rig.hypervisor.set_network_autostart(rig.source, uuid, enabled=True),
    ):
        assert code_of(call, OperatorMustFix) == "NO_NETWORK"
