"""Block devices of the destination that a disk is written to: existing ones, which the request names."""

from __future__ import annotations

from posixpath import normpath

from tasks.model.disks import DeviceFacts, DiskSize, ImageFile
from tasks.model.domain import Disk
from tasks.model.finding import Finding, blocker
from tasks.model.mentions import same_path
from tasks.planning.situation import Situation

CODES = {
    "DEVICE_UNSEEN": "No active pool of the destination shows the device that a disk shall be written to.",
    "DEVICE_OTHER_NAME": "A pool of the destination shows the device under another name than the one that was given.",
    "DEVICE_TOO_SMALL": "The device that a disk shall be written to is smaller than the disk.",
    "DEVICE_SIZE_DIFFERS": "The device is larger than the disk, which a running VM's disk must not be.",
    "DEVICE_NOT_EMPTY": "The device holds something: a file system, a partition table, or old data.",
    "DEVICE_IN_USE": "A domain of the destination uses the device.",
    "DEVICE_NEEDS_RAW": "The disk is not raw, and a running VM's disk is mirrored as the guest sees it.",
    "DEVICE_TWICE": "Two disks shall be written to one device.",
}
"""What each reason against writing to a device means."""

QCOW2_OVERHEAD_PERCENT = 2
"""QEMU's tables take 0.02 % with its default cluster; a guest that fills its disk must never hit the device's end."""


def check_device(s: Situation, disk: Disk, found: DiskSize | ImageFile) -> list[Finding]:
    """Everything against writing this disk to the device that was asked for, accepted or not."""
    device = s.devices.get(disk.target)
    path = s.request.devices[disk.target]
    name, there = f"{disk.target}: {path}", s.destination.name
    if device is None:
        hint = f"make a pool that shows it: virsh pool-create-as NAME dir --target {normpath(path + '/..')} there"
        return [blocker("DEVICE_UNSEEN", f"{name}: no active pool of {there} shows it", hint)]
    findings = [*_fit(s, disk, found, device, name)]
    if device.users:
        message = f"{name} is used by {', '.join(device.users)} on {there}"
        findings.append(blocker("DEVICE_IN_USE", message, "name another device"))
    if device.path != path:
        message = f"{name} is {device.path} for the pools of {there}"
        hint = f"name it so: --device {disk.target}={device.path}"
        findings.append(blocker("DEVICE_OTHER_NAME", message, hint))
    if _times_named(s, disk.target) > 1:
        findings.append(blocker("DEVICE_TWICE", f"{name} is named for two disks", "name one for each"))
    if not device.empty:
        message = f"{name} on {there} is not empty: the copy would overwrite what it begins or ends with"
        hint = f"look at it there: blkid -p {path}; if nobody needs it: wipefs -a, or --accept DEVICE_NOT_EMPTY"
        findings.append(blocker("DEVICE_NOT_EMPTY", message, hint))
    return findings


def _times_named(s: Situation, target: str) -> int:
    """How many disks shall be written to the device of this one, by whatever names."""
    known = {other: s.devices[other].path if other in s.devices else path for other, path in s.request.devices.items()}
    return sum(same_path(path, known[target]) for path in known.values())


def _fit(s: Situation, disk: Disk, found: DiskSize | ImageFile, device: DeviceFacts, name: str) -> list[Finding]:
    raw = (disk.driver_format or "raw") == "raw"
    needed, has = found.capacity_bytes, f"has {device.capacity_bytes} bytes"
    if s.live and not raw:
        message = f"{name}: the disk is {disk.driver_format}, and a mirror writes to a device what the guest sees"
        return [blocker("DEVICE_NEEDS_RAW", message, "name a pool for files, or shut the VM down and move it offline")]
    if not raw:
        needed = max(
            needed * (100 + QCOW2_OVERHEAD_PERCENT) // 100, found.length_bytes if isinstance(found, ImageFile) else 0
        )
    if device.capacity_bytes < needed:
        return [blocker("DEVICE_TOO_SMALL", f"{name} {has}, {needed} are needed", "name a larger device")]
    if s.live and device.capacity_bytes != needed:
        message = f"{name} {has}, the disk {needed}: libvirt mirrors only between equal sizes"
        return [blocker("DEVICE_SIZE_DIFFERS", message, "name one of the same size, or move the VM offline")]
    return []
