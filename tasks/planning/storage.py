"""How the disks go: which of them both hosts see already, and which must be copied."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.model.domain import Disk, Domain
from tasks.model.finding import Finding, Severity
from tasks.model.host import HostFacts
from tasks.model.request import AUTO, EVERY_DISK, Method, MigrationRequest, Storage
from tasks.planning.sharing import Sharing, compare_pools, find_sharing

CODES = {
    "STORAGE_NOT_SUPPORTED": "The storage asked for is not implemented for this method.",
}
"""What each blocker of this module means."""

SUPPORTED = {
    Method.LIVE: (Storage.SHARED, Storage.COPY, Storage.INCREMENTAL),
    Method.SUSPEND: (Storage.SHARED, Storage.COPY, Storage.INCREMENTAL),
    Method.SAVED: (Storage.SHARED, Storage.COPY),
    Method.OFFLINE: (Storage.SHARED, Storage.COPY, Storage.INCREMENTAL),
}
SAME_DEVICE = "DISK_SHARING_UNPROVEN"
"""The finding that a person accepts who knows that both hosts have the same device under the same path."""
MEDIUM_DEVICES = frozenset({"cdrom", "floppy"})
NETWORK_POOLS = frozenset({"rbd", "gluster", "iscsi-direct", "sheepdog"})
"""Pools whose volumes QEMU reaches over the network itself."""


@dataclass(frozen=True, slots=True)
class StorageChoice:
    """How the disks go."""

    storage: Storage
    reason: str
    """Why, for people."""


def choose_storage(
    request: MigrationRequest,
    method: Method,
    definitions: tuple[Domain, ...],
    source: HostFacts,
    destination: HostFacts,
) -> StorageChoice | Finding:
    """What was asked for; else shared when every disk is proven to be, else a copy where the method can do that."""
    can_copy = Storage.COPY in SUPPORTED[method]
    if request.storage != AUTO:
        asked = Storage(request.storage)
        return StorageChoice(asked, "storage as asked for") if asked in SUPPORTED[method] else _refuse(asked, method)
    if request.pools or request.devices:
        named = StorageChoice(Storage.COPY, "a pool or device was named: disks are copied to it")
        return named if can_copy else _refuse(Storage.COPY, method)
    local = {
        d.target: None
        for one in definitions
        for d in one.disks
        if d.type != "block" and can_be_copied(d) and not _shared(d, source, destination)
    }
    if local and can_copy:
        return StorageChoice(Storage.COPY, f"{', '.join(local)} copied, being on storage of {source.name} alone")
    return StorageChoice(Storage.SHARED, "disks stay where they are")


def can_be_copied(disk: Disk) -> bool:
    """Whether it holds the VM's own data, in a form that a copy can be made of at all."""
    return disk.device == "disk" and disk.type in ("file", "volume", "block") and bool(disk.source)


def is_copied(disk: Disk, request: MigrationRequest, source: HostFacts, destination: HostFacts) -> bool:
    """Whether a disk goes by copy unless the storage is ``shared``: what is not proven to be, and what was named."""
    if not can_be_copied(disk):
        return False
    if disk.target in request.devices or disk.target in request.pools:
        return True
    if disk.type == "block" and SAME_DEVICE in request.accept:
        return False
    if not _shared(disk, source, destination):
        return True
    return EVERY_DISK in request.pools and not disk.readonly and not disk.shareable


def _shared(disk: Disk, source: HostFacts, destination: HostFacts) -> bool:
    return sharing_of(disk, source, destination).proven


def sharing_of(disk: Disk, source: HostFacts, destination: HostFacts) -> Sharing:
    """Whether both hosts see the same file or volume, as far as libvirt's storage pools can prove it."""
    if disk.type == "block":
        return Sharing(False, "a block device may be another one on each host")
    if disk.type == "volume":
        return _sharing_of_volume(disk.source or "", source, destination)
    return find_sharing(disk.source or "", source, destination)


def _sharing_of_volume(volume: str, source: HostFacts, destination: HostFacts) -> Sharing:
    """libvirt looks the pool up by name on each host, and takes what it finds there."""
    name = volume.split("/", 1)[0]
    here, there = (next((p for p in host.pools if p.name == name and p.active), None) for host in (source, destination))
    if here is None or there is None:
        without = source if here is None else destination
        return Sharing(False, f"{without.name} has no active pool {name}")
    if here.type in NETWORK_POOLS and (here.type, here.source) == (there.type, there.source) and here.source:
        return Sharing(True, f"pool {name} is {here.type} {here.source} on both hosts")
    sharing = compare_pools(here, there, source, destination)
    if sharing.proven and here.type != "netfs":
        return Sharing(False, f"pool {name} has the type {here.type}, which is local to a host")
    return sharing


def _refuse(storage: Storage, method: Method) -> Finding:
    return Finding(
        code="STORAGE_NOT_SUPPORTED",
        severity=Severity.BLOCKER,
        message=f"the storage {storage} is not supported for a VM that goes {method}",
        hint=f"use one of: auto, {', '.join(SUPPORTED[method])}",
    )
