"""The one blocking call of a live transfer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import libvirt

from tasks.hypervisor.address import HostAddress, migrate_uri, peer_uri
from tasks.hypervisor.job import plan_max_downtime
from tasks.model.ports import TransferOrder


def migrate(
    domain: Any, order: TransferOrder, destination: HostAddress, begin: Callable[[], None] = lambda: None
) -> None:
    """Migrate peer to peer: the source's daemon drives, so that it goes on when the worker dies.

    ``begin`` comes after all that may take long: to plan a pause is to wait for the domain's lock.

    Neither UNSAFE (libvirt's own check of the disks stays on) nor UNDEFINE_SOURCE (the source's definition goes only
    after both hosts were looked at) is ever among the flags.

    Raises:
        OperatorMustFix: ``PEER_URI_UNUSABLE``.
        libvirt.libvirtError: whatever the call says.
    """
    persistent = bool(domain.isPersistent())
    uri = peer_uri(order.destination, destination)
    if order.max_downtime_ms:
        plan_max_downtime(domain, order.max_downtime_ms)
    parameters, flags = _parameters(order, destination, persistent=persistent), _flags(order, persistent)
    begin()
    domain.migrateToURI3(uri, parameters, flags)


def resume_post_copy(domain: Any, order: TransferOrder, destination: HostAddress) -> None:
    """Connect the two halves of a post-copy again. What the destination gets was settled when it started.

    Raises:
        OperatorMustFix: ``PEER_URI_UNUSABLE``.
        libvirt.libvirtError: 55 when QEMU believes that its connection still works, or another call is at it.
    """
    flags = libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_LIVE
    flags |= libvirt.VIR_MIGRATE_POSTCOPY | libvirt.VIR_MIGRATE_POSTCOPY_RESUME
    if domain.isPersistent():
        flags |= libvirt.VIR_MIGRATE_PERSIST_DEST
    address = migrate_uri(destination)
    parameters = {} if address is None else {libvirt.VIR_MIGRATE_PARAM_URI: address}
    domain.migrateToURI3(peer_uri(order.destination, destination), parameters, flags)


def _flags(order: TransferOrder, persistent: bool) -> int:
    flags: int = libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
    if order.live:
        flags |= libvirt.VIR_MIGRATE_LIVE
    if persistent:
        flags |= libvirt.VIR_MIGRATE_PERSIST_DEST
    if order.disks:
        flags |= libvirt.VIR_MIGRATE_NON_SHARED_INC if order.incremental else libvirt.VIR_MIGRATE_NON_SHARED_DISK
    if order.paused:
        flags |= libvirt.VIR_MIGRATE_PAUSED
    if order.auto_converge:
        flags |= libvirt.VIR_MIGRATE_AUTO_CONVERGE
    if order.post_copy:
        flags |= libvirt.VIR_MIGRATE_POSTCOPY
    return flags


def _parameters(order: TransferOrder, destination: HostAddress, *, persistent: bool) -> dict[str, Any]:
    parameters: dict[str, Any] = {libvirt.VIR_MIGRATE_PARAM_DEST_XML: order.destination_xml}
    if persistent:
        parameters[libvirt.VIR_MIGRATE_PARAM_PERSIST_XML] = order.persistent_xml
    address = migrate_uri(destination)
    if address is not None:
        parameters[libvirt.VIR_MIGRATE_PARAM_URI] = address
    if order.disks:
        # Always the exact set: libvirt's own choice is every disk that is writable and not shareable, shared ones too.
        parameters[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = list(order.disks)
    if order.bandwidth_mib_s:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = order.bandwidth_mib_s
        if order.post_copy:  # which has a limit of its own, none unless it is said
            parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY] = order.bandwidth_mib_s
    return parameters
