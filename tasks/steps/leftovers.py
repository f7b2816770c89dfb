"""What a VM that has moved leaves on its source: the files of copied disks, kept or deleted as the request says."""

from __future__ import annotations

import logging
from functools import partial

from tasks.model.errors import HostUnreachable, HypervisorError, RetryLater
from tasks.model.request import DELETE
from tasks.planning.leftovers import Leftover, leftovers_of, why_kept
from tasks.steps.run import StepRun

log = logging.getLogger(__name__)


def clear_source(run: StepRun) -> None:
    """Say what is kept, or delete it; the VM has moved and was verified, so that whatever does not work is only told.

    The source's definition is gone, so that whoever is found to use a file is somebody else.
    """
    for leftover in leftovers_of(run.record.copies, run.record.files):
        words = f"{leftover.path} ({leftover.what}) on {run.source}"
        if words in (*run.record.kept, *run.record.deleted):
            continue
        if run.record.request.source_disks != DELETE:
            run.save(kept=(*run.record.kept, words))
            continue
        try:
            reason = _delete(run, leftover)
        except RetryLater:
            raise
        except HypervisorError as error:
            log.warning("%s was not deleted: %s", words, error)
            reason = error.message
        if reason:
            run.save(kept=(*run.record.kept, f"{words}: {reason}"))
        else:
            run.save(deleted=(*run.record.deleted, words))


def _delete(run: StepRun, leftover: Leftover) -> str:
    """Why it stays; empty when it is gone. Asked right before, of every host: the file may be on shared storage."""
    begun = run.intent("source_file", run.source, leftover.path)
    volume = run.hypervisor.find_volume_at(run.source, leftover.path)
    if begun is None or volume is not None:  # an earlier owner may have deleted it, and died
        users = {host: _users(run, host, leftover.path) for host in run.hosts}
        overlays = run.hypervisor.find_overlays(run.source, leftover.path)
        reason = why_kept(leftover, users, overlays, volume)
        if reason:
            return reason
    delete = partial(run.hypervisor.delete_file, run.source, leftover.path)
    run.effect("source_file", run.source, "", delete, name=leftover.path)
    return ""


def _users(run: StepRun, host: str, path: str) -> tuple[str, ...]:
    """A host that nobody can ask may have anything; but it must not hold up a VM that has moved."""
    try:
        return tuple(run.hypervisor.find_users(host, path))
    except HostUnreachable:
        if host in (run.source, run.destination):
            raise
        return ("perhaps some VM (it does not answer)",)
