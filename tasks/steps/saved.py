"""A VM that goes with its memory in a file: saved on the source, moved with its disks, restored on the destination.

The image is one more file that is copied byte for byte. It is used once: the source's is removed, and the
destination's, before the VM goes on there; until then it is paused, and nothing of it has changed.
"""

from __future__ import annotations

from functools import partial
from posixpath import join

from tasks.model.disks import DiskCopy, FileCopy
from tasks.model.domain import DomainState, DomainView
from tasks.model.errors import OperatorMustFix
from tasks.model.request import Method
from tasks.model.run import JournalEntry
from tasks.planning.chunks import size_chunks
from tasks.planning.outcome import SHUTOFF_SHUTDOWN, Outcome, describe, describe_damage, is_ours
from tasks.planning.volume_name import mark_volume_name
from tasks.steps.copying import copy_files, find_changed
from tasks.steps.definition import define_on_destination
from tasks.steps.firmware import plan_nvram
from tasks.steps.run import StepRun
from tasks.steps.sharing import Sharing
from tasks.steps.volumes import make_file_volumes
from tasks.steps.windows import open_window, reopen_windows

SAVE_DIRECTORY = "/var/lib/libvirt/qemu/save"
"""Where libvirt's system daemon keeps managed save images, named after the domain."""
IMAGE = "memory"
"""Key of the image among the files that are copied."""
PAUSED = "paused"
RUNNING = "running"


def move_saved(run: StepRun) -> None:
    """Save, copy, define, restore (paused): whatever of that is left to do."""
    source, destination = run.look()
    if destination is not None and destination.active:
        return
    if not is_ours(destination, run.record.id):
        if run.intent("source_save") is None:
            Sharing(run).begin()  # while it runs: what is saved does not wait for others
        _save(run, source)
        _measure(run)
        make_file_volumes(run)
        copy_files(run)
        define_on_destination(run)
    _check_unchanged(run)
    _restore(run)


def _save(run: StepRun, source: DomainView | None) -> None:
    """Its state before is kept in the journal, for either end."""
    if source is None or not (source.active or run.intent("source_save")):
        message = f"{run.record.vm} no longer runs on {run.source}: {describe(source, run.source)}"
        raise OperatorMustFix("VM_STOPPED", message, "retry: it can be moved shut off")
    run.interrupt_if_asked()
    state = PAUSED if source.state is DomainState.PAUSED else RUNNING
    run.effect("source_save", run.source, state, partial(run.hypervisor.save, run.source, run.uuid))
    saved = run.hypervisor.find_domain(run.source, run.uuid)
    if saved is None or saved.active or not saved.managed_save:
        message = f"{run.record.vm} was saved and is not any more: {describe(saved, run.source)}"
        raise OperatorMustFix("VM_STARTED", message, "find out who started it, then retry")


def _measure(run: StepRun) -> None:
    """Files stopped changing when the VM was saved: what is copied is what they are now."""
    if any(file.key == IMAGE for file in run.record.files):
        return
    directory = SAVE_DIRECTORY
    here, there = (open_window(run, host, directory) for host in (run.source, run.destination))
    name = f"{run.record.vm}.save"
    image = run.hypervisor.find_volume(run.source, here, name)
    if image is None:
        message = f"the saved memory of {run.record.vm} is not in {directory} on {run.source}"
        raise OperatorMustFix("SAVE_IMAGE_UNSEEN", message, "another folder for saved images is not supported")
    volume = mark_volume_name(name, IMAGE, run.mark)
    file = FileCopy(
        key=IMAGE,
        source_path=join(directory, name),
        length_bytes=image.length_bytes,
        modified=image.modified,
        pool=there,
        volume=volume,
        path=join(directory, volume),
    )
    plan_nvram(run)
    run.save(files=(*run.record.files, file), copies=tuple(_as_it_is(run, copy) for copy in run.record.copies))


def _check_unchanged(run: StepRun) -> None:
    """The memory goes with the disks as they were when it was saved, and with no others."""
    if problems := find_changed(run):
        raise OperatorMustFix("SOURCE_CHANGED", "; ".join(problems), "find out who used it, then retry")


def _as_it_is(run: StepRun, copy: DiskCopy) -> DiskCopy:
    found = run.hypervisor.find_volume_at(run.source, copy.source_path)
    if found is None:
        raise OperatorMustFix("SOURCE_CHANGED", f"{copy.source_path} is gone from {run.source}", "look for it")
    chunk_bytes = size_chunks(found.length_bytes, found.allocation_bytes)
    size = {"length_bytes": found.length_bytes, "chunk_bytes": chunk_bytes}
    return copy.model_copy(update={**size, "modified": found.modified})


def _restore(run: StepRun) -> None:
    """From here on there is no way back: the destination's libvirt may hold the VM."""
    image = next(file for file in run.record.files if file.key == IMAGE)
    run.interrupt_if_asked()
    saved = run.hypervisor.fetch_saved_xml(run.destination, image.path)
    xml = run.destination_xml(saved)

    def restore() -> None:
        source, destination = run.look()
        if source is None or source.active:
            message = f"{run.record.vm} was started meanwhile: {describe(source, run.source)}"
            raise OperatorMustFix("VM_STARTED", message, "look at both hosts")
        if destination is None or not destination.active:
            run.hypervisor.restore(run.destination, image.path, xml)

    words = f"running instance of {run.record.vm} on {run.destination}"
    run.effect("destination_restore", run.destination, image.path, restore, created=words)


def describe_loss(run: StepRun, destination: DomainView) -> str | None:
    """What is wrong on the destination with a VM that came with its memory, after its name; None when nothing is."""
    if not run.method.carries_memory:
        return None
    if run.method is Method.SAVED and not destination.active and run.intent("destination_resume") is None:
        return (
            f"is no longer active, and has not gone on since it was restored ({describe(destination, run.destination)})"
        )
    return describe_damage(destination)


def retire_images(run: StepRun) -> None:
    """Both images go before the VM does: memory that is used twice would be two VMs on one disk.

    The source's goes last. As long as it is there, a VM that is lost on the destination can go back.
    """
    reopen_windows(run)

    def remove() -> None:
        for file in run.record.files:
            if file.key == IMAGE:
                run.hypervisor.delete_volume(run.destination, file.pool, file.volume)
        run.lease.check()
        run.hypervisor.remove_save(run.source, run.uuid)

    run.effect("source_save_remove", run.source, "", remove)


def let_go_on(run: StepRun) -> None:
    """As it was on the source: running, unless it was paused."""
    saved = run.intent("source_save")
    if saved is not None and saved.value == RUNNING:
        run.effect("destination_resume", run.destination, "", partial(_resume, run))


def _resume(run: StepRun) -> None:
    """An owner that died may have done it, and the guest may have shut itself down since."""
    view = run.hypervisor.find_domain(run.destination, run.uuid)
    if view is None or view.active or view.reason != SHUTOFF_SHUTDOWN:
        run.hypervisor.resume(run.destination, run.uuid)


def settle_saved(run: StepRun, outcome: Outcome) -> Outcome:
    """A VM that is off on both hosts goes back to its source only with its memory, and only when it has not gone on."""
    if run.method is not Method.SAVED or outcome is not Outcome.AT_SOURCE:
        return outcome
    source, destination = run.look()
    if source is None or source.active:
        return outcome
    resumed, removed = run.intent("destination_resume"), run.intent("source_save_remove")
    ran = destination is not None and destination.reason == SHUTOFF_SHUTDOWN and is_ours(destination, run.record.id)
    if resumed is not None:  # its disks have gone on there
        return Outcome.MOVED if destination is not None and (resumed.done or ran) else Outcome.UNCLEAR
    if ran or (removed is not None and not source.managed_save):
        return Outcome.UNCLEAR
    return outcome


def undo_save(run: StepRun, entry: JournalEntry) -> None:
    """The source takes its memory up again, after one more look at the destination.

    Raises:
        OperatorMustFix: ``SAVE_IMAGE_GONE``; ``VM_STARTED``: it is active on the destination.
    """
    view = run.hypervisor.find_domain(entry.host, run.uuid)
    if view is None or view.active:
        return
    if not view.managed_save:
        if not entry.done:
            return  # it was never saved
        message = f"the saved memory of {run.record.vm} is gone from {entry.host}"
        raise OperatorMustFix("SAVE_IMAGE_GONE", message, "somebody removed it: the VM can only be booted anew")
    destination = run.hypervisor.find_domain(run.destination, run.uuid)
    if destination is not None and destination.active:
        message = f"{run.record.vm} is active on {run.destination}"
        raise OperatorMustFix("VM_STARTED", message, "look at both hosts")
    run.hypervisor.start_saved(entry.host, run.uuid, paused=entry.value == PAUSED)
