"""Files as a host's storage pools show them."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import libvirt
from lxml import etree

from tasks.hypervisor.connection import Connection, is_alive
from tasks.hypervisor.rereading import read_again
from tasks.model.host import Pool


def file_exists(connection: Connection, host: str, path: str) -> bool | None:
    """Whether an active pool shows the file; None when no active pool's directory is the file's.

    libvirt caches a pool's volumes. What it remembers is checked against the file itself; only when that fails is
    the pool read again, which for a large pool takes long.

    Raises:
        RetryLater: ``POOL_REFRESH_FAILED``.
    """
    if not path.startswith("/"):
        return None
    if _volume_is_there(connection, path):
        return True
    pool = covering(connection, path)
    if pool is None:
        return None
    read_again(connection, host, pool)
    return _volume_is_there(connection, path)


def read_pools(connection: Connection) -> tuple[Pool, ...]:
    """All pools, active or not."""
    active = connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE)
    inactive = connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_INACTIVE)
    pools = [_read(pool, active=True) for pool in active] + [_read(pool, active=False) for pool in inactive]
    return tuple(sorted((pool for pool in pools if pool is not None), key=lambda pool: pool.name))


MOUNT_OPTIONS = "{{{0}}}mount_opts/{{{0}}}option".format("http://libvirt.org/schemas/storagepool/fs/1.0")
"""Where a pool's definition names options of its mount (https://libvirt.org/formatstorage.html)."""


def parse_pool(xml: str, *, active: bool) -> Pool:
    """A pool's definition. Its source is ``host:directory`` for network pools, else the device or directory."""
    root = etree.fromstring(xml.encode(), etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True))
    return Pool(
        name=root.findtext("name") or "",
        type=root.get("type") or "",
        active=active,
        target=root.findtext("target/path"),
        source=_parse_source(root),
        capacity_bytes=int(root.findtext("capacity") or 0),
        available_bytes=int(root.findtext("available") or 0),
        options=tuple(option.get("name", "") for option in root.iterfind(MOUNT_OPTIONS)),
    )


def _parse_source(root: etree._Element) -> str:
    host, directory = root.find("source/host"), root.find("source/dir")
    device, name = root.find("source/device"), root.findtext("source/name")
    where = next(
        (v for v in (directory.get("path") if directory is not None else None, name) if v),
        device.get("path") if device is not None else None,
    )
    if host is None:
        return where or ""
    return f"{host.get('name') or ''}:{where or ''}"


def _read(pool: Any, *, active: bool) -> Pool | None:
    try:
        return parse_pool(pool.XMLDesc(), active=active)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_POOL:
            return None  # gone since the list was made
        raise


def _volume_is_there(connection: Connection, path: str) -> bool:
    """Asks for the volume's information too, for which libvirt opens the file."""
    try:
        connection.storageVolLookupByPath(path).info()
    except libvirt.libvirtError:
        if not is_alive(connection):
            raise
        return False
    return True


def covering(connection: Connection, path: str) -> Any | None:
    """The active pool whose directory is the file's."""
    directory = PurePosixPath(path).parent
    for pool in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        target = parse_pool(pool.XMLDesc(), active=True).target
        if target is not None and PurePosixPath(target) == directory:
            return pool
    return None
