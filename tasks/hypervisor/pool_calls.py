"""``tasks.model.pools.PoolPort`` on libvirt: a part of the adapter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from tasks.hypervisor import pools
from tasks.hypervisor.connection import Connection
from tasks.hypervisor.storage import read_pools
from tasks.model.host import Pool
from tasks.model.pools import PoolView

T = TypeVar("T")


class PoolCalls(ABC):
    """Pools of the inventory's hosts."""

    @abstractmethod
    def _read(self, host: str, read: Callable[[Connection], T]) -> T: ...

    @abstractmethod
    def _change(self, host: str, change: Callable[[Connection], T]) -> T: ...

    def list_pools(self, host: str) -> tuple[Pool, ...]:
        """See the port."""
        return self._read(host, read_pools)

    def find_pool(self, host: str, key: str) -> PoolView | None:
        """See the port."""
        return self._read(host, lambda connection: pools.find(connection, key))

    def fetch_pool_xml(self, host: str, name: str) -> str:
        """See the port."""
        return self._read(host, lambda connection: pools.fetch_xml(connection, name))

    def define_pool(self, host: str, xml: str) -> None:
        """See the port."""
        self._change(host, lambda connection: pools.define(connection, host, xml))

    def start_pool(self, host: str, uuid: str, *, build: bool = False) -> None:
        """See the port."""
        self._change(host, lambda connection: pools.start(connection, host, uuid, build=build))

    def stop_pool(self, host: str, uuid: str) -> None:
        """See the port."""
        self._change(host, lambda connection: pools.stop(connection, host, uuid))

    def set_pool_autostart(self, host: str, uuid: str, *, enabled: bool) -> None:
        """See the port."""
        self._change(host, lambda connection: pools.set_autostart(connection, uuid, enabled=enabled))

    def undefine_pool(self, host: str, uuid: str) -> None:
        """See the port."""
        self._change(host, lambda connection: pools.undefine(connection, uuid))

    def list_directory(self, host: str, path: str, uuid: str) -> tuple[str, ...] | None:
        """See the port."""
        return self._change(host, lambda connection: pools.list_directory(connection, host, path, uuid))

    def remove_directory(self, host: str, path: str, uuid: str) -> bool:
        """See the port."""
        return self._change(host, lambda connection: pools.remove_directory(connection, path, uuid))

    def write_volume(self, host: str, pool: str, name: str, contents: bytes) -> None:
        """See the port."""
        self._change(host, lambda connection: pools.write_volume(connection, host, pool, name, contents))
