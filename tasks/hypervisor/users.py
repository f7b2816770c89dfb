"""Which domains of a host name a file, a device or an address, in whatever way they name it."""

from __future__ import annotations

from posixpath import join
from typing import Any

import libvirt

from tasks.hypervisor.connection import Connection, is_alive
from tasks.hypervisor.storage import parse_pool
from tasks.model.mentions import Mentions, parse_mentions, plain_path

DEVICES = "/dev/"
"""Only below it libvirt looks through links: a pool there finds its volume by any name of the device."""


def find_users(connection: Connection, value: str) -> tuple[str, ...]:
    """See the port."""
    names = _Names(connection, value)
    return tuple(sorted(domain.name() for domain in connection.listAllDomains(0) if names.are_in(domain)))


class _Names:
    """All names of one thing; what was looked up is kept for as long as one question lasts."""

    def __init__(self, connection: Connection, value: str) -> None:
        self._connection = connection
        self._names = {plain_path(value), self._resolve(value)}
        self._resolved: dict[str, str] = {}
        self._volumes: dict[tuple[str, str], str] = {}

    def are_in(self, domain: Any) -> bool:
        """Whether the domain names it, as it runs or as it is defined."""
        try:
            texts = [domain.XMLDesc(0), domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)]
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return False
            raise
        return any(self._are_among(parse_mentions(text)) for text in texts)

    def _are_among(self, mentions: Mentions) -> bool:
        if any(plain_path(value) in self._names for value in mentions.values):
            return True
        devices = {value for value in mentions.values if value.startswith(DEVICES)}
        paths = {self._path_of(pool, volume) for pool, volume in mentions.volumes}
        return any(self._known(path) in self._names for path in devices | paths)

    def _known(self, path: str) -> str:
        if path not in self._resolved:
            self._resolved[path] = self._resolve(path)
        return self._resolved[path]

    def _resolve(self, path: str) -> str:
        """The path by which a pool shows a device; of anything else its own."""
        if path.startswith(DEVICES):
            try:
                return plain_path(self._connection.storageVolLookupByPath(path).path())
            except libvirt.libvirtError:
                if not is_alive(self._connection):
                    raise
        return plain_path(path)

    def _path_of(self, pool: str, volume: str) -> str:
        if (pool, volume) not in self._volumes:
            self._volumes[pool, volume] = self._look_up(pool, volume)
        return self._volumes[pool, volume]

    def _look_up(self, pool: str, volume: str) -> str:
        """Empty when there is no such pool; of one that is not active what its path would be."""
        try:
            found = self._connection.storagePoolLookupByName(pool)
        except libvirt.libvirtError:
            if not is_alive(self._connection):
                raise
            return ""
        try:
            return str(found.storageVolLookupByName(volume).path())
        except libvirt.libvirtError:
            if not is_alive(self._connection):
                raise
        target = parse_pool(found.XMLDesc(), active=False).target
        return join(target, volume) if target else ""
