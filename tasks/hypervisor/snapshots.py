"""Snapshots: what libvirt knows of them, read on one host and written on another."""

from __future__ import annotations

from typing import Any

import libvirt

from tasks.hypervisor import guest
from tasks.hypervisor.connection import Connection
from tasks.model.domain import Snapshot


def fetch(connection: Connection, uuid: str) -> tuple[Snapshot, ...]:
    """See the port."""
    domain = guest.look_up_uuid(connection, uuid)
    if domain is None:
        return ()
    found = domain.listAllSnapshots(libvirt.VIR_DOMAIN_SNAPSHOT_LIST_TOPOLOGICAL)
    return tuple(_read(snapshot) for snapshot in found)


def redefine(connection: Connection, uuid: str, snapshot: Snapshot) -> None:
    """See the port."""
    flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE
    if snapshot.current:
        flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_CURRENT
    guest.demand(connection, uuid).snapshotCreateXML(snapshot.xml, flags)


def _read(snapshot: Any) -> Snapshot:
    xml = snapshot.getXMLDesc(libvirt.VIR_DOMAIN_SNAPSHOT_XML_SECURE)
    return Snapshot(name=snapshot.getName(), current=bool(snapshot.isCurrent()), xml=xml)
