"""The limit of a migration that runs: of its memory by libvirt, of its disks by the way that libvirt leaves open.

Observed with libvirt 9.0 and QEMU 7.2: the bandwidth that a migration starts with holds for memory and for *each*
mirrored disk; ``migrateSetMaxSpeed`` changes that of memory alone, at once, or for later when the disks are still being
mirrored; what is fetched in post-copy has a limit of its own. ``blockJobSetSpeed`` waits for the end of the migration
and gives up after 30 s. QEMU itself takes the speed of a mirror at any time. It sends a disk in pieces of up to 16 MiB,
and waits after each for as long as that should have taken.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import libvirt
import libvirt_qemu

from tasks.hypervisor.job import NOT_HERE, read_job

log = logging.getLogger(__name__)

MIB = 1024**2
UNLIMITED_MIB_S = (1 << 63) // MIB - 1
"""What libvirt says of a domain that has no limit."""


def set_bandwidth(domain: Any, mib_s: int, disks: Sequence[str]) -> bool:
    """See the port."""
    job = read_job(domain)
    if not (job.active and job.is_migration and job.begun):
        # Without a migration the call would set the limit of later ones. One that is being prepared takes it, and
        # overwrites it when it begins with the bandwidth that it was started with.
        return False
    try:
        domain.migrateSetMaxSpeed(mib_s)
        domain.migrateSetMaxSpeed(mib_s, libvirt.VIR_DOMAIN_MIGRATE_MAX_SPEED_POSTCOPY)
        done = _limit_mirrors(domain, mib_s * MIB, disks)
        if not read_job(domain).active:
            domain.migrateSetMaxSpeed(UNLIMITED_MIB_S)  # it ended meanwhile: nothing may stay of it
            return False
    except libvirt.libvirtError as error:
        if error.get_error_code() in NOT_HERE:
            return False
        raise
    return done


def _limit_mirrors(domain: Any, bytes_s: int, disks: Sequence[str]) -> bool:
    """Those that are done only follow what the guest writes, which QEMU does not limit."""
    flag = libvirt.VIR_DOMAIN_BLOCK_JOB_INFO_BANDWIDTH_BYTES
    jobs = [info for disk in disks if (info := domain.blockJobInfo(disk, flag))]
    if len(jobs) < len(disks):
        return False  # one that has not begun will begin as fast as was said at the start
    copying = [job for job in jobs if job["cur"] < job["end"] or not job["end"]]
    if not copying:
        return True
    each = max(1, bytes_s // len(copying))
    return all(job["bandwidth"] == each for job in copying) or _tell_qemu(domain, bytes_s)


def _tell_qemu(domain: Any, bytes_s: int) -> bool:
    """libvirt notes that somebody spoke to this QEMU past it (``custom-monitor``, in the VM's log)."""
    try:
        jobs = [job for job in _command(domain, "query-block-jobs") if job["type"] == "mirror" and not job["ready"]]
        for job in jobs:
            _command(domain, "block-job-set-speed", device=job["device"], speed=max(1, bytes_s // len(jobs)))
    except libvirt.libvirtError as error:
        if error.get_error_code() in NOT_HERE:
            raise
        log.info("%s: the speed of its mirrored disks cannot be changed: %s", domain.name(), error)
        return False
    return True


def _command(domain: Any, name: str, **arguments: object) -> Any:
    said = json.loads(libvirt_qemu.qemuMonitorCommand(domain, json.dumps({"execute": name, "arguments": arguments}), 0))
    if "error" in said:
        # A mirror that ended a moment ago.
        log.info("%s: %s: %s", domain.name(), name, said["error"].get("desc"))
    return said.get("return", [])
