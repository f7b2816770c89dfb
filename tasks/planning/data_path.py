"""By which way the contents of copied disks go: from host to host by libvirt itself, or through the worker.

A running VM's disks are mirrored, a saved one's files are copied: there is no choice. Of one that is shut off the files
are copied through the worker, unless its disks shall go from host to host; for that it is started paused.
"""

from __future__ import annotations

from tasks.model.request import AUTO, DataPath, Method, Storage
from tasks.planning.copies import copied_disks, copies_of
from tasks.planning.situation import Situation


def choose_data_path(s: Situation) -> DataPath | None:
    """Whatever was asked for, where there is a choice; None when nothing is copied."""
    if not copied_disks(s):
        return None
    if s.live:
        return DataPath.HOSTS
    if s.method is Method.OFFLINE and s.request.data_path != AUTO:
        return DataPath(s.request.data_path)
    return DataPath.WORKER


def explain(s: Situation) -> str:
    """Why it goes this way, for people; empty when nothing is copied."""
    if s.data_path is None:
        return ""
    if s.live:
        return "disks mirrored from host to host, since they change meanwhile"
    if s.method is not Method.OFFLINE:
        return "files copied through the worker, since nothing runs that could mirror them"
    if s.data_path is DataPath.HOSTS:
        return "disks mirrored from host to host as asked for, for which the VM is started paused"
    if s.request.data_path == DataPath.WORKER:
        return "files copied through the worker as asked for"
    reasons = against_hosts(s)
    if reasons:
        return f"files copied through the worker, since {reasons[0]}"
    return "files copied through the worker, which keeps every byte of them and starts nothing"


def against_hosts(s: Situation) -> list[str]:
    """What stands against mirroring the disks of a VM that is shut off, each in words."""
    reasons = ["an incremental copy is one of files"] if s.storage is Storage.INCREMENTAL else []
    if s.view.active:
        reasons.append("it runs, and is shut down first")
    if any(d.nvram or d.loader or d.firmware for d in s.definitions):
        reasons.append("firmware with variables of its own would write them when it is started")
    if any(d.tpm for d in s.definitions):
        reasons.append("an emulated TPM would be started with it, and its state is copied as files")
    if s.view.snapshots:
        reasons.append(f"{s.view.name} has {s.view.snapshots} snapshot(s), which only a copy of the files keeps")
    for disk in copied_disks(s):
        reasons += _against_image(s, disk.target)
        if disk.type == "block" or disk.target in _to_devices(s):
            reasons.append(f"{disk.target} is a block device, or goes to one, whose size differs as a rule")
    return reasons


def _to_devices(s: Situation) -> frozenset[str]:
    return frozenset(s.request.devices) | {copy.target for copy in copies_of(s) if copy.kind == "block"}


def _against_image(s: Situation, target: str) -> list[str]:
    chain = s.chains.get(target, ())
    reasons = []
    if len(chain) > 1:
        reasons.append(f"{target} lies on {chain[1].path}, and a mirror would make one file of both")
    for image in chain[:1]:
        if image.snapshots and not s.view.snapshots:
            reasons.append(f"{target} has {image.snapshots} internal snapshot(s), which only a copy of the file keeps")
        reasons += [f"the image of {target} {option}" for option in image.options]
    return reasons
