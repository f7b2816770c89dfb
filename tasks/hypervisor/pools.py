"""Storage pools themselves: looked up, made, started, stopped, removed; and directories, which are shown as pools."""

from __future__ import annotations

from typing import Any

import libvirt
from lxml import etree

from tasks.hypervisor import volumes
from tasks.hypervisor.connection import Connection, is_alive
from tasks.hypervisor.errors import message_of
from tasks.hypervisor.storage import parse_pool, read_pools
from tasks.model.disks import VolumeOrder
from tasks.model.errors import OperatorMustFix, RetryLater
from tasks.model.pools import HELPER_PREFIX, PoolView

NOT_THERE = 2
"""errno: ENOENT; libvirt passes it on beside its own code."""


def find(connection: Connection, key: str) -> PoolView | None:
    """See the port."""
    pool = _look_up(connection, key)
    if pool is None:
        return None
    try:
        active, persistent = bool(pool.isActive()), bool(pool.isPersistent())
        return PoolView(
            uuid=str(pool.UUIDString()),
            pool=parse_pool(pool.XMLDesc(), active=active),
            persistent=persistent,
            autostart=persistent and bool(pool.autostart()),
        )
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_POOL:
            return None  # gone since it was found
        raise


def fetch_xml(connection: Connection, name: str) -> str:
    """See the port."""
    return str(connection.storagePoolLookupByName(name).XMLDesc(libvirt.VIR_STORAGE_XML_INACTIVE))


def define(connection: Connection, host: str, xml: str) -> None:
    """See the port. libvirt itself refuses a name or a source that another pool has."""
    root = etree.fromstring(xml.encode(), etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True))
    there = _look_up(connection, root.findtext("uuid") or "")
    if there is not None and there.name() == root.findtext("name") and there.isPersistent():
        return
    try:
        connection.storagePoolDefineXML(xml, 0)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_FAILED:
            raise
        hint = "compare the pools of both hosts: virsh pool-list --all, virsh pool-dumpxml"
        raise OperatorMustFix("POOL_EXISTS", f"{host}: {message_of(error)}", hint) from None


def start(connection: Connection, host: str, uuid: str, *, build: bool) -> None:
    """See the port.

    Raises:
        RetryLater: ``POOL_NOT_STARTED``: a server that does not answer now may do so soon.
    """
    pool = connection.storagePoolLookupByUUIDString(uuid)
    try:
        if pool.isActive():
            return
        if build:
            pool.build(0)  # makes its directory; flags would ask for a file system to be made
        pool.create(0)
    except libvirt.libvirtError as error:
        if not is_alive(connection):
            raise
        if pool.isActive():
            return  # somebody else has started it meanwhile
        message = f"{host}: pool {pool.name()} cannot be started: {message_of(error)}"
        raise RetryLater("POOL_NOT_STARTED", message, f"try on {host}: virsh pool-start {pool.name()}") from None


def stop(connection: Connection, host: str, uuid: str) -> None:
    """See the port."""
    pool = _look_up(connection, uuid)
    if pool is None or not pool.isActive():
        return
    name = pool.name()
    try:
        _stop(pool)
    except libvirt.libvirtError as error:
        if not is_alive(connection):
            raise
        left = _look_up(connection, uuid)
        if left is None or not left.isActive():
            return
        message = f"{host}: pool {name} cannot be stopped: {message_of(error)}"
        hint = f"end what uses it on {host}, then: virsh pool-destroy {name}"
        raise OperatorMustFix("POOL_BUSY", message, hint) from None


def set_autostart(connection: Connection, uuid: str, *, enabled: bool) -> None:
    """See the port."""
    connection.storagePoolLookupByUUIDString(uuid).setAutostart(int(enabled))


def undefine(connection: Connection, uuid: str) -> None:
    """See the port."""
    pool = _look_up(connection, uuid)
    if pool is not None:
        pool.undefine()


def list_directory(connection: Connection, host: str, path: str, uuid: str) -> tuple[str, ...] | None:
    """See the port. A transient pool reads its directory when it is made, and leaves it as it is when it goes."""
    try:
        pool = connection.storagePoolCreateXML(_directory_xml(path, uuid), 0)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_SYSTEM_ERROR and error.get_int1() == NOT_THERE:
            return None
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_FAILED:
            raise
        raise _taken(connection, host, path, error) from None
    try:
        return tuple(sorted(pool.listVolumes()))
    finally:
        _stop(pool)


def remove_directory(connection: Connection, path: str, uuid: str) -> bool:
    """See the port. libvirt removes a pool's directory only when it is empty."""
    pool = _look_up(connection, uuid)
    if pool is None:
        try:
            pool = connection.storagePoolDefineXML(_directory_xml(path, uuid), 0)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_OPERATION_FAILED:
                return False  # another pool has the directory
            raise
    try:
        pool.delete(0)
    except libvirt.libvirtError as error:
        if not is_alive(connection):
            raise
        if error.get_error_code() != libvirt.VIR_ERR_SYSTEM_ERROR or error.get_int1() != NOT_THERE:
            pool.undefine()
            return False
    pool.undefine()
    return True


def write_volume(connection: Connection, host: str, pool: str, name: str, contents: bytes) -> None:
    """See the port."""
    made = volumes.create(connection, host, VolumeOrder(pool, name, "raw", len(contents)))
    stream = connection.newStream(0)
    try:
        connection.storageVolLookupByPath(made.path).upload(stream, 0, len(contents), 0)
        rest = memoryview(contents)
        while rest:
            rest = rest[stream.send(bytes(rest)) :]
    except BaseException:
        stream.abort()
        raise
    stream.finish()


def _stop(pool: Any) -> None:
    """libvirt calls it destroying; of the class by name, so that it can never be a domain's method."""
    libvirt.virStoragePool.destroy(pool)


def _taken(connection: Connection, host: str, path: str, error: libvirt.libvirtError) -> Exception:
    owner = next((pool for pool in read_pools(connection) if pool.target == path), None)
    if owner is not None and not owner.name.startswith(HELPER_PREFIX):
        message = f"{host}: pool {owner.name} has {path}"
        return OperatorMustFix("DIRECTORY_IN_USE", message, f"virsh pool-dumpxml {owner.name}")
    return RetryLater("DIRECTORY_BUSY", f"{host}: {message_of(error)}", "it is tried again")


def _directory_xml(path: str, uuid: str) -> str:
    root = etree.Element("pool", type="dir")
    etree.SubElement(root, "name").text = f"{HELPER_PREFIX}{uuid}"
    etree.SubElement(root, "uuid").text = uuid
    etree.SubElement(etree.SubElement(root, "target"), "path").text = path
    return etree.tostring(root, encoding="unicode")


def _look_up(connection: Connection, key: str) -> Any | None:
    """By UUID, else by name: a name may look like a UUID, which is no reason to take it for one."""
    for look_up in (connection.storagePoolLookupByUUIDString, connection.storagePoolLookupByName):
        try:
            return look_up(key)
        except libvirt.libvirtError as error:
            if error.get_error_code() not in (libvirt.VIR_ERR_NO_STORAGE_POOL, libvirt.VIR_ERR_INVALID_ARG):
                raise
    return None
