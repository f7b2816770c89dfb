"""Volumes of storage pools: looked up, made and deleted; and the sizes of a domain's disks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import libvirt
from lxml import etree

from tasks.hypervisor import guest
from tasks.hypervisor.connection import Connection, is_alive
from tasks.hypervisor.rereading import fresh_pool, read_again
from tasks.hypervisor.storage import covering, parse_pool
from tasks.model.disks import DiskSize, Volume, VolumeOrder
from tasks.model.errors import OperatorMustFix
from tasks.model.host import Pool
from tasks.model.mentions import same_path

LOGICAL = "logical"
"""Pools of LVM."""
VOLUME_MODE = "0600"
"""Disks hold everything that the guest knows: nobody else reads them. libvirt hands them to QEMU's user itself."""


def refresh(connection: Connection, host: str, name: str) -> Pool:
    """See the port: libvirt remembers volumes and free space until it is told to look again."""
    return parse_pool(fresh_pool(connection, host, name).XMLDesc(), active=True)


def find(connection: Connection, host: str, pool: str, name: str) -> Volume | None:
    """See the port."""
    found = _look_up(fresh_pool(connection, host, pool), name)
    return None if found is None else parse_volume(found.XMLDesc())


def find_at(connection: Connection, host: str, path: str) -> Volume | None:
    """See the port.

    What libvirt remembers of a file is old as soon as a VM has written to it; describing one volume looks at its file,
    and only what libvirt has not seen yet takes reading a whole pool.
    """
    try:
        return parse_volume(connection.storageVolLookupByPath(path).XMLDesc())
    except libvirt.libvirtError:
        if not is_alive(connection):
            raise
    found = _look_up_path(connection, host, path)
    return None if found is None else parse_volume(found.XMLDesc())


def create(connection: Connection, host: str, order: VolumeOrder) -> Volume:
    """See the port.

    libvirt only asks its memory of the pool whether a volume is there, and qemu-img overwrites a file without a word:
    the pool is read anew right before.
    """
    pool = fresh_pool(connection, host, order.pool)
    if _look_up(pool, order.name) is not None:
        message = f"{host}: pool {order.pool} already has a volume {order.name}"
        raise OperatorMustFix("VOLUME_EXISTS", message, "look at it; nothing is ever overwritten")
    # A logical volume that is not allocated as a whole would be a snapshot, which dies when it is full.
    full = parse_pool(pool.XMLDesc(), active=True).type == LOGICAL
    return parse_volume(pool.createXML(volume_xml(order, full=full), 0).XMLDesc())


def delete(connection: Connection, host: str, pool: str, name: str) -> None:
    """See the port."""
    found = _look_up(fresh_pool(connection, host, pool), name)
    if found is not None:
        found.delete(0)


def delete_at(connection: Connection, host: str, path: str) -> None:
    """See the port."""
    found = _look_up_path(connection, host, path)
    if found is not None:
        found.delete(0)


def find_overlays(connection: Connection, host: str, path: str) -> tuple[str, ...]:
    """See the port. What libvirt remembers of the headers is read anew with each pool."""
    found = set()
    for pool in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        volumes = read_again(connection, host, pool).listAllVolumes()
        roots = [_parse(volume.XMLDesc()) for volume in volumes]
        found |= {
            root.findtext("target/path") or ""
            for root in roots
            if same_path(root.findtext("backingStore/path") or "", path)
        }
    return tuple(sorted(found))


def resize(connection: Connection, uuid: str, target: str, path: str, capacity_bytes: int) -> None:
    """See the port."""
    domain = guest.demand(connection, uuid)
    if domain.isActive():
        if domain.blockInfo(target)[0] < capacity_bytes:
            domain.blockResize(target, capacity_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
        return
    volume = connection.storageVolLookupByPath(path)
    if volume.info()[1] < capacity_bytes:
        volume.resize(capacity_bytes)


def volume_xml(order: VolumeOrder, *, full: bool = False) -> str:
    """A new volume: nothing allocated, so that a copy takes up what its source does; or everything, when ``full``.

    libvirt's own precreation allocates the whole disk (it asks for preallocated metadata).
    """
    root = etree.Element("volume")
    etree.SubElement(root, "name").text = order.name
    etree.SubElement(root, "capacity", unit="B").text = str(order.capacity_bytes)
    etree.SubElement(root, "allocation", unit="B").text = str(order.capacity_bytes if full else 0)
    target = etree.SubElement(root, "target")
    etree.SubElement(target, "format", type=order.format)
    permissions = etree.SubElement(target, "permissions")
    etree.SubElement(permissions, "mode").text = VOLUME_MODE
    if order.format == "qcow2":
        etree.SubElement(target, "compat").text = "1.1"
    if order.backing:
        below = etree.SubElement(root, "backingStore")
        etree.SubElement(below, "path").text = order.backing
        etree.SubElement(below, "format", type=order.backing_format)
    return etree.tostring(root, encoding="unicode")


def parse_volume(xml: str) -> Volume:
    """A volume as libvirt describes it; it always gives sizes in bytes."""
    root = _parse(xml)
    kind = root.find("target/format")
    return Volume(
        name=root.findtext("name") or "",
        path=root.findtext("target/path") or "",
        capacity_bytes=int(root.findtext("capacity") or 0),
        allocation_bytes=int(root.findtext("allocation") or 0),
        format=kind.get("type") if kind is not None else None,
        length_bytes=int(root.findtext("physical") or 0),
        modified=root.findtext("target/timestamps/mtime") or "",
    )


def _parse(xml: str) -> etree._Element:
    return etree.fromstring(xml.encode(), etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True))


def read_sizes(connection: Connection, uuid: str, targets: Sequence[str]) -> dict[str, DiskSize]:
    """See the port. An empty drive, or a disk whose file is gone, has no size."""
    domain = guest.demand(connection, uuid)
    sizes = {}
    for target in targets:
        try:
            capacity, allocation, _physical = domain.blockInfo(target)
        except libvirt.libvirtError:
            if not is_alive(connection):
                raise
            continue
        sizes[target] = DiskSize(capacity_bytes=capacity, allocation_bytes=allocation)
    return sizes


def find_pool_at(connection: Connection, directory: str) -> str | None:
    """See the port."""
    pool = covering(connection, f"{directory}/any")
    return None if pool is None else str(pool.name())


def open_window(connection: Connection, name: str, directory: str, *, build: bool) -> None:
    """See the port."""
    if _pool_or_none(connection, name) is not None:
        return
    root = etree.Element("pool", type="dir")
    etree.SubElement(root, "name").text = name
    etree.SubElement(etree.SubElement(root, "target"), "path").text = directory
    flags = libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD if build else 0
    try:
        connection.storagePoolCreateXML(etree.tostring(root, encoding="unicode"), flags)
    except libvirt.libvirtError:
        # Another migration may have made it at the same moment.
        if not is_alive(connection) or _pool_or_none(connection, name) is None:
            raise


def close_window(connection: Connection, name: str) -> None:
    """See the port."""
    pool = _pool_or_none(connection, name)
    if pool is None:
        return
    try:
        if not pool.isPersistent():
            pool.destroy()
    except libvirt.libvirtError:
        if not is_alive(connection) or _pool_or_none(connection, name) is not None:
            raise


def _pool_or_none(connection: Connection, name: str) -> Any | None:
    try:
        return connection.storagePoolLookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_POOL:
            return None
        raise


def _look_up_path(connection: Connection, host: str, path: str) -> Any | None:
    pool = covering(connection, path)
    if pool is None:
        return None
    volumes = fresh_pool(connection, host, pool.name()).listAllVolumes()
    return next((volume for volume in volumes if volume.path() == path), None)


def _look_up(pool: Any, name: str) -> Any | None:
    try:
        return pool.storageVolLookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_VOL:
            return None
        raise
