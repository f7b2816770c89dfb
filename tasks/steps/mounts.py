"""Network file systems that disks stay on: the destination's pools for them, and the proof that they are the same."""

from __future__ import annotations

import os
from posixpath import normpath

from tasks.model.errors import OperatorMustFix, RetryLater
from tasks.model.pools import Mount, PoolAction, PoolView
from tasks.model.run import JournalEntry
from tasks.planning.mounts import Clash, describe_mount, find_counterpart
from tasks.planning.pool_users import uses_pool
from tasks.planning.pool_xml import copy_pool_xml
from tasks.planning.volume_name import mark_volume_name, parse_volume_mark
from tasks.steps.directories import absent_directories, remove_directories
from tasks.steps.made import Made, leave, users_of
from tasks.steps.run import StepRun

PROOF_BYTES = 4096


def make_ready(run: StepRun) -> None:
    """Every pool that disks stay on is active on the destination; then both hosts show that it is the same.

    Raises:
        OperatorMustFix: as ``find_counterpart`` says; ``MOUNT_POINT_NOT_EMPTY``, ``SHARE_NOT_PROVEN``.
        RetryLater: ``POOL_NOT_STARTED``, ``POOL_BEING_MADE``.
    """
    for mount in run.record.mounts:
        run.interrupt_if_asked()
        _make_active(run, mount)
    for mount in run.record.mounts:
        run.interrupt_if_asked()
        if mount.written:
            _prove(run, mount)


# -- the pool ---------------------------------------------------------------------------------------------------------


def _make_active(run: StepRun, mount: Mount) -> None:
    """Look anew: since preflight another migration may have made the pool, or taken back what it had made."""
    begun = run.intent("destination_pool", run.destination, mount.destination_pool)
    if begun is not None:
        _make(run, mount, Made.model_validate_json(begun.value))
        return
    pools = run.hypervisor.list_pools(run.source)
    here = next((p for p in pools if p.name == mount.source_pool), None)
    if here is None:
        raise OperatorMustFix("NO_STORAGE_POOL", f"{run.source} has no pool {mount.source_pool} any more", "retry")
    found = find_counterpart(here, run.hypervisor.list_pools(run.destination), run.destination)
    if isinstance(found, Clash):
        raise OperatorMustFix(found.code, found.message, found.hint)
    if found.action is PoolAction.START:
        _start(run, found)
    elif found.action is PoolAction.MAKE:
        absent = _absent_directories(run, found)
        _make(run, found, Made(attempt=run.record.attempt, fence=run.record.fence, directories=absent))


def _start(run: StepRun, mount: Mount) -> None:
    there = run.hypervisor.find_pool(run.destination, mount.destination_pool)
    if there is None:
        raise RetryLater("POOL_BEING_MADE", f"pool {mount.destination_pool} went away", "it is tried again")
    run.effect(
        "destination_pool_start",
        run.destination,
        there.uuid,
        lambda: run.hypervisor.start_pool(run.destination, there.uuid),
        name=mount.destination_pool,
        created=describe_mount(mount, run.destination),
    )


def _make(run: StepRun, mount: Mount, made: Made) -> None:
    """Defined first, then its directory made and it started: whatever is left of it is known by its definition."""
    hypervisor, there = run.hypervisor, run.destination
    uuid = made.uuid(run, f"pool/{mount.destination_pool}")
    source = hypervisor.find_pool(run.source, mount.source_pool)
    xml = copy_pool_xml(hypervisor.fetch_pool_xml(run.source, mount.source_pool), uuid)

    def make() -> None:
        hypervisor.define_pool(there, xml)
        # Building sets the permissions of a directory that is there, too.
        hypervisor.start_pool(there, uuid, build=bool(made.directories))
        if source is not None and source.autostart:
            hypervisor.set_pool_autostart(there, uuid, enabled=True)

    created = describe_mount(mount.model_copy(update={"action": PoolAction.MAKE}), there)
    try:
        run.effect(
            "destination_pool", there, made.model_dump_json(), make, name=mount.destination_pool, created=created
        )
    except OperatorMustFix as error:
        entry = run.intent("destination_pool", there, mount.destination_pool)
        if error.code != "POOL_EXISTS" or entry is None or hypervisor.find_pool(there, uuid) is not None:
            raise
        run.mark_undone(entry)  # somebody else was quicker, and nothing was made
        raise RetryLater("POOL_BEING_MADE", error.message, "it is looked at again") from None


def _absent_directories(run: StepRun, mount: Mount) -> tuple[str, ...]:
    return absent_directories(run, run.destination, mount.target, lambda names: _refuse_files(run, mount, names))


def _refuse_files(run: StepRun, mount: Mount, names: tuple[str, ...]) -> None:
    path = normpath(mount.target)
    message = f"{run.destination}: {path}, at which {mount.export} must be mounted, holds {len(names)} files already"
    hint = f"they would be hidden: move them away, or define pool {mount.destination_pool} there yourself"
    raise OperatorMustFix("MOUNT_POINT_NOT_EMPTY", message, hint)


# -- the proof --------------------------------------------------------------------------------------------------------


def _prove(run: StepRun, mount: Mount) -> None:
    """Either host writes a small volume of random content, and the other one finds it.

    Both directions, since the VM must be able to write from the destination, and since a file system that has just
    written to a directory itself shows what others have written there; NFS may show an old state for a minute.
    """
    for left in [e for e in run.record.journal if e.kind == "proof_volume" and not e.undone]:
        undo_proof(run, left)
        run.mark_undone(left)
    pools = {"source": (run.source, mount.source_pool), "destination": (run.destination, mount.destination_pool)}
    names = {side: mark_volume_name("proof", side, run.mark) for side in pools}
    try:
        for side, (host, pool) in pools.items():
            _write(run, host, pool, names[side])
        for side, other in (("source", "destination"), ("destination", "source")):
            _compare(run, mount, pools[side], pools[other], names[side])
    except OperatorMustFix as error:
        if error.code == "SHARE_NOT_PROVEN":
            raise
        raise _unproven(run, mount, error.message) from None
    for entry in [e for e in run.record.journal if e.kind == "proof_volume" and not e.undone]:
        undo_proof(run, entry)
        run.mark_undone(entry)


def _write(run: StepRun, host: str, pool: str, name: str) -> None:
    contents = os.urandom(PROOF_BYTES)
    run.effect(
        "proof_volume",
        host,
        "",
        lambda: run.hypervisor.write_volume(host, pool, name, contents),
        name=f"{pool}/{name}",
    )


def _compare(run: StepRun, mount: Mount, writer: tuple[str, str], reader: tuple[str, str], name: str) -> None:
    written = run.hypervisor.find_volume(*writer, name)
    seen = run.hypervisor.find_volume(*reader, name)
    if written is None or seen is None:
        raise _unproven(run, mount, f"what {writer[0]} writes there is not seen on {reader[0]}")
    contents = [
        run.hypervisor.hash_chunk(host, volume.path, 0, PROOF_BYTES, lambda _: None)
        for (host, _), volume in ((writer, written), (reader, seen))
    ]
    if contents[0] != contents[1]:
        raise _unproven(run, mount, f"what {writer[0]} writes there reads differently on {reader[0]}")


def _unproven(run: StepRun, mount: Mount, why: str) -> OperatorMustFix:
    message = (
        f"{mount.export} at {mount.target} is not proven to be the same on {run.source} and {run.destination}: {why}"
    )
    hint = f"compare on both hosts: findmnt {mount.target}; the export must be writable for root (NFS: no_root_squash)"
    return OperatorMustFix("SHARE_NOT_PROVEN", message, hint)


# -- undoing ----------------------------------------------------------------------------------------------------------


def undo_pool(run: StepRun, entry: JournalEntry) -> None:
    """Remove the pool with our UUID and the directories made for it, unless a VM has come to use it."""
    made = Made.model_validate_json(entry.value)
    uuid = made.uuid(run, f"pool/{entry.name}")
    there = run.hypervisor.find_pool(entry.host, uuid)
    if there is None or not _stop_unless_used(run, entry.host, there):
        return
    # The definition goes last, so that whoever goes on with this knows that the directories were made by us.
    remove_directories(run, entry.host, made)
    run.hypervisor.undefine_pool(entry.host, uuid)


def undo_pool_start(run: StepRun, entry: JournalEntry) -> None:
    """Stop the pool that was inactive, unless a VM has come to use it."""
    there = run.hypervisor.find_pool(entry.host, entry.value)
    if there is not None and there.pool.active:
        _stop_unless_used(run, entry.host, there)


def undo_proof(run: StepRun, entry: JournalEntry) -> None:
    """Delete the volume that the proof was made with."""
    pool, _, volume = entry.name.partition("/")
    mark = parse_volume_mark(volume)
    if mark is None or mark.id != run.record.id:
        message = f"{entry.name} does not bear the mark of {run.record.id}"
        raise OperatorMustFix("NOT_OURS", message, "this is a bug: report it")
    run.hypervisor.delete_volume(entry.host, pool, volume)


def _stop_unless_used(run: StepRun, host: str, there: PoolView) -> bool:
    """Stop a pool; False when something needs it by now: it is left then, and the record says so."""
    why = ", ".join(users_of(run, host, lambda domain: uses_pool(domain, there.pool)))
    if not why:
        try:
            run.hypervisor.stop_pool(host, there.uuid)
        except OperatorMustFix as error:
            if error.code != "POOL_BUSY":
                raise
            why = error.message
    if why:
        leave(run, f"pool {there.pool.name} on {host}", why)
    return not why
