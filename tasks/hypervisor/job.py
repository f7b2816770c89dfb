"""Jobs on a domain: what libvirt says of them, and ending one."""

from __future__ import annotations

from typing import Any

import libvirt

from tasks.model.domain import NO_JOB, JobStats

RUNNING = frozenset({libvirt.VIR_DOMAIN_JOB_BOUNDED, libvirt.VIR_DOMAIN_JOB_UNBOUNDED})
MIGRATIONS = frozenset({libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT, libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN})
COMPLETED = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED

POST_COPY = frozenset({libvirt.VIR_DOMAIN_PAUSED_POSTCOPY, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED})
"""Reasons why the source of a post-copy is paused."""

NOT_HERE = frozenset(
    {
        libvirt.VIR_ERR_NO_DOMAIN,
        libvirt.VIR_ERR_OPERATION_INVALID,  # not running
        libvirt.VIR_ERR_NO_SUPPORT,  # a driver without jobs
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,  # an incoming migration: "available only on the source host"
    }
)
"""Errors that mean: no outgoing job on this host."""


def read_job(domain: Any) -> JobStats:
    """The running job's statistics; an incoming migration is not a job of this host."""
    try:
        stats = domain.jobStats()
    except libvirt.libvirtError as error:
        if error.get_error_code() in NOT_HERE:
            return NO_JOB
        raise
    return parse_job(stats) if stats.get("type") in RUNNING else NO_JOB


def read_completed_job(domain: Any) -> JobStats | None:
    """The last finished job's statistics, left there for the next reader."""
    try:
        stats = domain.jobStats(COMPLETED)
    except libvirt.libvirtError as error:
        if error.get_error_code() in NOT_HERE:
            return None
        raise
    return parse_job(stats) if stats.get("type") else None


def parse_job(stats: dict[str, Any]) -> JobStats:
    """libvirt's typed parameters as a value; what libvirt does not say is zero."""
    return JobStats(
        active=stats.get("type") in RUNNING,
        is_migration=stats.get("operation") in MIGRATIONS,
        elapsed_ms=stats.get(libvirt.VIR_DOMAIN_JOB_TIME_ELAPSED, 0),
        memory_total=stats.get(libvirt.VIR_DOMAIN_JOB_MEMORY_TOTAL, 0),
        memory_processed=stats.get(libvirt.VIR_DOMAIN_JOB_MEMORY_PROCESSED, 0),
        memory_remaining=stats.get(libvirt.VIR_DOMAIN_JOB_MEMORY_REMAINING, 0),
        memory_bps=stats.get(libvirt.VIR_DOMAIN_JOB_MEMORY_BPS, 0),
        memory_iteration=stats.get(libvirt.VIR_DOMAIN_JOB_MEMORY_ITERATION, 0),
        memory_dirty_rate=stats.get(libvirt.VIR_DOMAIN_JOB_MEMORY_DIRTY_RATE, 0),
        memory_page_size=stats.get(libvirt.VIR_DOMAIN_JOB_MEMORY_PAGE_SIZE, 4096),
        memory_postcopy_requests=stats.get(libvirt.VIR_DOMAIN_JOB_MEMORY_POSTCOPY_REQS, 0),
        disk_total=stats.get(libvirt.VIR_DOMAIN_JOB_DISK_TOTAL, 0),
        disk_processed=stats.get(libvirt.VIR_DOMAIN_JOB_DISK_PROCESSED, 0),
        disk_remaining=stats.get(libvirt.VIR_DOMAIN_JOB_DISK_REMAINING, 0),
        disk_bps=stats.get(libvirt.VIR_DOMAIN_JOB_DISK_BPS, 0),
        downtime_ms=stats.get(libvirt.VIR_DOMAIN_JOB_DOWNTIME),
    )


def abort_migration(domain: Any) -> None:
    """End the outgoing migration of this domain, and nothing else.

    Never reaches an incoming migration: libvirt shows that as no job of this host. An abort there would queue behind
    the job lock and could hit the only copy left.
    """
    job = read_job(domain)
    if not (job.active and job.is_migration):
        return
    try:
        domain.abortJob()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in NOT_HERE or read_job(domain).active:
            raise


def start_post_copy(domain: Any) -> bool:
    """Switch the outgoing migration over; False when none runs, or it is not at the guest's memory yet.

    Looks first: while disks are copied libvirt's job is there, and QEMU's migration is not.
    """
    job = read_job(domain)
    if not (job.active and job.is_migration and job.memory_total):
        return False
    try:
        domain.migrateStartPostCopy(0)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in NOT_HERE or read_job(domain).active:
            raise
        return False
    return True


def break_post_copy(domain: Any) -> None:
    """Cut the connection of a post-copy, on its source; never anything else.

    Without POSTCOPY libvirt's abort is refused in post-copy, and before it this flag is no protection: so the state is
    looked at first.
    """
    state, reason = domain.state()
    if state == libvirt.VIR_DOMAIN_PAUSED and reason in POST_COPY:
        domain.abortJobFlags(libvirt.VIR_DOMAIN_ABORT_JOB_POSTCOPY)


def set_max_downtime(domain: Any, downtime_ms: int) -> bool:
    """Tell the running migration its longest pause; False when none runs.

    Looks first: on a destination the call would wait for the end of the incoming migration, and then be taken by the
    guest that runs there.
    """
    job = read_job(domain)
    return job.active and job.is_migration and plan_max_downtime(domain, downtime_ms)


def plan_max_downtime(domain: Any, downtime_ms: int) -> bool:
    """Tell QEMU the longest pause, for a migration that runs or is about to; False when libvirt does not take it.

    libvirt 9.0 takes it before a migration starts; where that is refused, it must be said once the job runs.
    """
    try:
        domain.migrateSetMaxDowntime(downtime_ms)
    except libvirt.libvirtError as error:
        if error.get_error_code() in NOT_HERE:
            return False
        raise
    return True
