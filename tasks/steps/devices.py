"""Existing block devices that disks are written to: looked at, claimed, and left without a trace when it is undone."""

from __future__ import annotations

from tasks.model.disks import DeviceFacts, DiskCopy
from tasks.model.errors import OperatorMustFix
from tasks.model.mentions import same_path
from tasks.model.ports import Hypervisor
from tasks.model.run import JournalEntry
from tasks.steps.run import StepRun

EDGE = 1024**2
"""Bytes at either end of a device: file systems, partition tables, LVM, LUKS and RAID have their labels there."""
CODE_NOT_EMPTY = "DEVICE_NOT_EMPTY"


def look_at_device(hypervisor: Hypervisor, host: str, path: str) -> DeviceFacts | None:
    """None when no active pool of the host shows it."""
    volume = hypervisor.find_volume_at(host, path)
    if volume is None:
        return None
    ends = [hypervisor.read_piece(host, volume.path, offset, length) for offset, length in edges(volume.capacity_bytes)]
    return DeviceFacts(
        path=volume.path,
        capacity_bytes=volume.capacity_bytes,
        empty=not any(any(piece) for piece in ends),
        users=tuple(hypervisor.find_users(host, volume.path)),
    )


def edges(capacity_bytes: int) -> tuple[tuple[int, int], ...]:
    """Offset and length of the beginning and the end."""
    if capacity_bytes <= 2 * EDGE:
        return ((0, capacity_bytes),) if capacity_bytes else ()
    return ((0, EDGE), (capacity_bytes - EDGE, EDGE))


def claim_devices(run: StepRun) -> None:
    """Journal each device before anything is written to it.

    Raises:
        OperatorMustFix: ``DEVICE_CHANGED``, ``DEVICE_CLAIMED``.
    """
    for copy in run.record.copies:
        if copy.device and run.intent("destination_device", run.destination, copy.path) is None:
            run.interrupt_if_asked()
            empty = _check_unchanged(run, copy)
            run.effect(
                "destination_device",
                run.destination,
                "empty" if empty else "overwritten",
                lambda copy=copy: _check_claims(run, copy),  # type: ignore[misc]
                name=copy.path,
                created=f"contents of {copy.path} on {run.destination}",
            )


def release_device(run: StepRun, entry: JournalEntry) -> None:
    """What was empty looks so again: nothing that was copied there can be taken for a disk.

    Raises:
        OperatorMustFix: ``VOLUME_IN_USE``.
    """
    view = run.hypervisor.find_domain(entry.host, run.uuid)
    if view is not None and view.active:
        raise OperatorMustFix("VOLUME_IN_USE", f"{run.record.vm} is active on {entry.host}", "look at both hosts")
    volume = run.hypervisor.find_volume_at(entry.host, entry.name)
    if entry.value != "empty" or not entry.done or volume is None:
        return
    for offset, length in edges(volume.capacity_bytes):
        run.hypervisor.write_zeros(entry.host, entry.name, offset, length)


def _check_unchanged(run: StepRun, copy: DiskCopy) -> bool:
    """A fresh look right before; returns whether it is empty."""
    facts = look_at_device(run.hypervisor, run.destination, copy.path)
    allowed = CODE_NOT_EMPTY in run.record.request.accept
    fits = facts is not None and facts.path == copy.path and facts.capacity_bytes >= copy.capacity_bytes
    if facts is None or not fits or facts.users or not (facts.empty or allowed):
        message = f"{copy.path} on {run.destination} is not as it was when it was checked"
        raise OperatorMustFix("DEVICE_CHANGED", message, "vmferry plan says what is there now")
    return facts.empty


def _check_claims(run: StepRun, copy: DiskCopy) -> None:
    """Our claim is written: of two who claim one device at the same time, each sees the other's, or one of them does.

    Raises:
        OperatorMustFix: ``DEVICE_CLAIMED``.
    """
    for other in run.store.active():
        if other.id == run.record.id:
            continue
        claims = [e for e in other.journal if e.kind == "destination_device" and not e.undone]
        if any(e.host == run.destination and same_path(e.name, copy.path) for e in claims):
            message = f"{copy.path} on {run.destination} is being written to by migration {other.id}"
            raise OperatorMustFix("DEVICE_CLAIMED", message, "name another device")
