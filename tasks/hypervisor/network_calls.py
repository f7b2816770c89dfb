"""``tasks.model.networks.NetworkPort`` on libvirt: a part of the adapter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from tasks.hypervisor import networks
from tasks.hypervisor.connection import Connection
from tasks.model.networks import NetworkView

T = TypeVar("T")


class NetworkCalls(ABC):
    """Networks of the inventory's hosts."""

    @abstractmethod
    def _read(self, host: str, read: Callable[[Connection], T]) -> T: ...

    @abstractmethod
    def _change(self, host: str, change: Callable[[Connection], T]) -> T: ...

    def find_network(self, host: str, key: str) -> NetworkView | None:
        """See the port."""
        return self._read(host, lambda connection: networks.find(connection, key))

    def fetch_network_xml(self, host: str, name: str) -> str:
        """See the port."""
        return self._read(host, lambda connection: networks.fetch_xml(connection, name))

    def define_network(self, host: str, xml: str) -> None:
        """See the port."""
        self._change(host, lambda connection: networks.define(connection, host, xml))

    def start_network(self, host: str, uuid: str) -> None:
        """See the port."""
        self._change(host, lambda connection: networks.start(connection, host, uuid))

    def stop_network(self, host: str, uuid: str) -> None:
        """See the port."""
        self._change(host, lambda connection: networks.stop(connection, uuid))

    def set_network_autostart(self, host: str, uuid: str, *, enabled: bool) -> None:
        """See the port."""
        self._change(host, lambda connection: networks.set_autostart(connection, uuid, enabled=enabled))

    def undefine_network(self, host: str, uuid: str) -> None:
        """See the port."""
        self._change(host, lambda connection: networks.undefine(connection, host, uuid))
