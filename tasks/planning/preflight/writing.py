"""Rules about devices of the destination that disks are written to, and about disks that shall grow."""

from __future__ import annotations

from tasks.model.disks import DiskCopy
from tasks.model.finding import Finding, blocker, info
from tasks.planning import copies, devices
from tasks.planning.preflight.registry import rule
from tasks.planning.situation import Situation


@rule(
    DEVICE_FOR_NO_DISK="A device was named for a disk that the VM does not have, or that cannot be copied.",
    **devices.CODES,
)
def check_devices(s: Situation) -> list[Finding]:
    """A device that is written to by mistake is somebody's data."""
    copied = {disk.target: disk for disk in copies.copied_disks(s)}
    there = ", ".join(copied) or "none"
    findings = []
    for target in s.request.devices:
        if target not in copied:
            message = f"{s.view.name} has no disk {target} to be written to a device"
            findings.append(blocker("DEVICE_FOR_NO_DISK", message, f"its disks that are copied: {there}"))
        elif (found := copies.measure(s, copied[target])) is not None:
            findings += devices.check_device(s, copied[target], found)
    return findings


@rule(
    SIZE_FOR_NO_DISK="A size was named for a disk that is not copied.",
    SIZE_TOO_SMALL="The size asked for is smaller than the disk.",
    SIZE_OF_DEVICE="A size was named for a disk that is written to a device, whose size it will have.",
    DISK_GROWS="A disk is grown after it has been copied.",
)
def check_sizes(s: Situation) -> list[Finding]:
    """libvirt mirrors between equal sizes only: the disk is moved at its size, and grown when it has arrived."""
    placed = {copy.target: copy for copy in copies.copies_of(s)}
    return [_grows(s, target, size, placed.get(target)) for target, size in s.request.sizes.items()]


def _grows(s: Situation, target: str, size: int, copy: DiskCopy | None) -> Finding:
    if copy is None:
        there = ", ".join(disk.target for disk in copies.copied_disks(s)) or "none"
        message = f"{target} of {s.view.name} is not copied, and so does not grow"
        return blocker("SIZE_FOR_NO_DISK", message, f"its disks that are copied: {there}")
    if copy.device:
        return blocker("SIZE_OF_DEVICE", f"{target} is written to {copy.path}, whose size it has", "leave --size out")
    if size < copy.capacity_bytes:
        message = f"{target} has {copy.capacity_bytes} bytes, more than the {size} asked for: disks never shrink"
        return blocker("SIZE_TOO_SMALL", message, "name a larger size, or none")
    message = f"{target} is grown from {copy.capacity_bytes} to {size} bytes when it has arrived"
    return info("DISK_GROWS", message, "the guest has to grow its partitions and file systems itself")
