"""The part of the fake that is about networks themselves."""

from __future__ import annotations

import uuid as uuid_module
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from lxml import etree

from tasks.hypervisor.networks import parse_network
from tasks.model.errors import OperatorMustFix
from tasks.model.host import HostFacts, Network
from tasks.model.networks import NetworkView


@dataclass
class FakeNetwork:
    """What the fake knows of a network beside what ``HostFacts`` shows."""

    uuid: str
    xml: str
    autostart: bool = False


class NetworkHost(Protocol):
    """What is used of a fake host."""

    facts: HostFacts
    networks: dict[str, FakeNetwork]


class FakeNetworks(ABC):
    """See the port."""

    @abstractmethod
    def _asked(
        self, call: str, host: str, *, effect: bool = False, faults: bool = True
    ) -> AbstractContextManager[NetworkHost]: ...

    def find_network(self, host: str, key: str) -> NetworkView | None:
        """See the port."""
        with self._asked("find_network", host) as there:
            network = _find(there, key)
            if network is None:
                return None
            known = _known(there, network)
            return NetworkView(network.name, known.uuid, network.active, True, known.autostart)

    def fetch_network_xml(self, host: str, name: str) -> str:
        """See the port."""
        with self._asked("fetch_network_xml", host) as there:
            network = next((n for n in there.facts.networks if n.name == name), None)
            if network is None:
                raise OperatorMustFix("NO_NETWORK", f"{host}: no network {name}", "")
            return _known(there, network).xml

    def define_network(self, host: str, xml: str) -> None:
        """See the port."""
        new, uuid = parse_network(xml, active=False), etree.fromstring(xml).findtext("uuid") or ""
        with self._asked("define_network", host, effect=True) as there:
            for network in there.facts.networks:
                same = (network.name == new.name, _known(there, network).uuid == uuid)
                if all(same):
                    return
                if any(same) or (new.mode != "bridge" and new.bridge and network.bridge == new.bridge):
                    raise OperatorMustFix("NETWORK_EXISTS", f"{host}: network {network.name} exists", "")
            there.facts = replace(there.facts, networks=(*there.facts.networks, new))
            there.networks[new.name] = FakeNetwork(uuid, xml)

    def start_network(self, host: str, uuid: str) -> None:
        """See the port."""
        with self._asked("start_network", host, effect=True) as there:
            _replace(there, replace(_demand(there, host, uuid), active=True))

    def stop_network(self, host: str, uuid: str) -> None:
        """See the port."""
        with self._asked("stop_network", host, effect=True) as there:
            network = _find(there, uuid)
            if network is not None:
                _replace(there, replace(network, active=False))

    def set_network_autostart(self, host: str, uuid: str, *, enabled: bool) -> None:
        """See the port."""
        with self._asked("set_network_autostart", host, effect=True) as there:
            network = _demand(there, host, uuid)
            there.networks[network.name] = replace(_known(there, network), autostart=enabled)

    def undefine_network(self, host: str, uuid: str) -> None:
        """See the port."""
        with self._asked("undefine_network", host, effect=True) as there:
            network = _find(there, uuid)
            if network is None:
                return
            if network.active:
                raise OperatorMustFix("OPERATION_INVALID", f"{host}: network {network.name} is active", "")
            others = tuple(n for n in there.facts.networks if n.name != network.name)
            there.facts = replace(there.facts, networks=others)
            there.networks.pop(network.name, None)


def _find(there: NetworkHost, key: str) -> Network | None:
    by_uuid = (n for n in there.facts.networks if _known(there, n).uuid == key)
    by_name = (n for n in there.facts.networks if n.name == key)
    return next(by_uuid, next(by_name, None))


def _demand(there: NetworkHost, host: str, uuid: str) -> Network:
    network = _find(there, uuid)
    if network is None:
        raise OperatorMustFix("NO_NETWORK", f"{host}: no network {uuid}", "")
    return network


def _known(there: NetworkHost, network: Network) -> FakeNetwork:
    uuid = str(uuid_module.uuid5(uuid_module.NAMESPACE_OID, f"{there.facts.name}/{network.name}"))
    xml = f"<network><name>{network.name}</name><uuid>{uuid}</uuid></network>"
    return there.networks.get(network.name) or FakeNetwork(uuid, xml)


def _replace(there: NetworkHost, network: Network) -> None:
    others = tuple(n for n in there.facts.networks if n.name != network.name)
    there.facts = replace(there.facts, networks=(*others, network))
