"""libvirt networks: looked up, made, started, stopped and removed; and what their definitions say."""

from __future__ import annotations

import ipaddress
from typing import Any

import libvirt
from lxml import etree

from tasks.hypervisor.connection import Connection, is_alive
from tasks.hypervisor.errors import message_of
from tasks.model.errors import OperatorMustFix
from tasks.model.host import Network
from tasks.model.networks import NetworkView

ABSENT = frozenset({libvirt.VIR_ERR_NO_NETWORK, libvirt.VIR_ERR_INVALID_ARG})


def parse_network(xml: str, *, active: bool) -> Network:
    """What a definition says about the host (https://libvirt.org/formatnetwork.html)."""
    root = _parse(xml)
    forward, bridge = root.find("forward"), root.find("bridge")
    devices = [forward.get("dev")] if forward is not None else []
    devices += [element.get("dev") for element in root.findall("forward/interface")]
    ranges = [_range(element) for element in root.findall("ip")]
    return Network(
        name=root.findtext("name") or "",
        active=active,
        bridge=bridge.get("name") if bridge is not None else None,
        mode="" if forward is None else forward.get("mode", "nat"),
        ranges=tuple(r for r in ranges if r),
        devices=tuple(dict.fromkeys(device for device in devices if device)),
        port_groups=frozenset(group.get("name", "") for group in root.findall("portgroup")),
    )


def find(connection: Connection, key: str) -> NetworkView | None:
    """See the port."""
    network = _look_up(connection, key)
    if network is None:
        return None
    try:
        persistent = bool(network.isPersistent())
        return NetworkView(
            name=str(network.name()),
            uuid=str(network.UUIDString()),
            active=bool(network.isActive()),
            persistent=persistent,
            autostart=persistent and bool(network.autostart()),
        )
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_NETWORK:
            return None  # gone since it was found
        raise


def fetch_xml(connection: Connection, name: str) -> str:
    """See the port."""
    return str(connection.networkLookupByName(name).XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE))


def define(connection: Connection, host: str, xml: str) -> None:
    """See the port. libvirt itself refuses a name or a bridge that another network has."""
    root = _parse(xml)
    there = _look_up(connection, root.findtext("uuid") or "")
    if there is not None and there.name() == root.findtext("name") and there.isPersistent():
        return
    try:
        connection.networkDefineXML(xml)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_OPERATION_FAILED, libvirt.VIR_ERR_INTERNAL_ERROR):
            raise
        if not is_alive(connection):
            raise
        hint = "compare the networks of both hosts: virsh net-list --all, virsh net-dumpxml"
        raise OperatorMustFix("NETWORK_EXISTS", f"{host}: {message_of(error)}", hint) from None


def start(connection: Connection, host: str, uuid: str) -> None:
    """See the port. libvirt refuses a range of addresses that one of the host's own interfaces has."""
    network = connection.networkLookupByUUIDString(uuid)
    try:
        if not network.isActive():
            network.create()
    except libvirt.libvirtError as error:
        if not is_alive(connection):
            raise
        if network.isActive():
            return  # somebody else has started it meanwhile
        message = f"{host}: network {network.name()} cannot be started: {message_of(error)}"
        raise OperatorMustFix("NETWORK_NOT_STARTED", message, f"try on {host}: virsh net-start") from None


def stop(connection: Connection, uuid: str) -> None:
    """See the port."""
    network = _look_up(connection, uuid)
    if network is not None and network.isActive():
        # Of the class by name, so that it can never be a domain's method.
        libvirt.virNetwork.destroy(network)


def set_autostart(connection: Connection, uuid: str, *, enabled: bool) -> None:
    """See the port."""
    connection.networkLookupByUUIDString(uuid).setAutostart(int(enabled))


def undefine(connection: Connection, host: str, uuid: str) -> None:
    """See the port. libvirt would leave an active one as a transient network."""
    network = _look_up(connection, uuid)
    if network is None:
        return
    if network.isActive():
        message = f"{host}: network {network.name()} is active"
        raise OperatorMustFix("OPERATION_INVALID", message, f"virsh net-destroy {network.name()}")
    network.undefine()


def _range(element: etree._Element) -> str:
    address = element.get("address", "")
    width = element.get("prefix") or element.get("netmask") or ("64" if ":" in address else "24")
    try:
        return str(ipaddress.ip_interface(f"{address}/{width}").network)
    except ValueError:
        return ""


def _look_up(connection: Connection, key: str) -> Any | None:
    for look_up in (connection.networkLookupByUUIDString, connection.networkLookupByName):
        try:
            return look_up(key)
        except libvirt.libvirtError as error:
            if error.get_error_code() not in ABSENT:
                raise
    return None


def _parse(xml: str) -> etree._Element:
    return etree.fromstring(xml.encode(), etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True))
