"""Saved memory: managed save on the source, restored from a file on the destination."""

from __future__ import annotations

import libvirt

from tasks.hypervisor import guest
from tasks.hypervisor.connection import Connection


def save(connection: Connection, uuid: str) -> None:
    """See the port."""
    domain = guest.demand(connection, uuid)
    if domain.isActive():
        domain.managedSave(0)


def remove(connection: Connection, uuid: str) -> None:
    """See the port."""
    domain = guest.look_up_uuid(connection, uuid)
    if domain is not None and domain.hasManagedSaveImage():
        domain.managedSaveRemove(0)


def start(connection: Connection, uuid: str, *, paused: bool) -> None:
    """See the port. Only with an image: without one it would be booted anew."""
    domain = guest.demand(connection, uuid)
    if not domain.isActive() and domain.hasManagedSaveImage():
        domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED if paused else 0)


def read_xml(connection: Connection, path: str) -> str:
    """See the port."""
    return str(connection.saveImageGetXMLDesc(path, libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE))


def restore(connection: Connection, path: str, xml: str) -> None:
    """See the port."""
    connection.restoreFlags(path, xml, libvirt.VIR_DOMAIN_SAVE_PAUSED)
