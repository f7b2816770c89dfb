"""The state of an emulated TPM of a VM that is shut off while it moves: libvirt finds it by the VM's UUID alone.

So it must keep its name, and what is there already can be another's work: nothing is ever written over.
"""

from __future__ import annotations

from posixpath import basename, join

from tasks.model.disks import TPM, FileCopy
from tasks.model.errors import OperatorMustFix
from tasks.model.run import JournalEntry
from tasks.planning.tpm import STATES
from tasks.steps.directories import absent_directories, list_names, remove_directories
from tasks.steps.made import Made
from tasks.steps.run import StepRun
from tasks.steps.windows import open_window, reopen_windows


def plan_tpm(run: StepRun) -> None:
    """Look at the state and note that it is copied; a VM that was never started has none yet, and gets one there.

    Raises:
        OperatorMustFix: ``TPM_STATE_EXISTS``.
    """
    directory = run.record.tpm
    if not directory or any(file.key == TPM for file in run.record.files):
        return
    if run.hypervisor.find_pool_at(run.source, directory) is None and list_names(run, run.source, directory) is None:
        return
    here = open_window(run, run.source, directory)
    found = run.hypervisor.find_volume(run.source, here, STATES[basename(directory)])
    if found is None:
        return
    file = FileCopy(
        key=TPM,
        source_path=found.path,
        length_bytes=found.length_bytes,
        modified=found.modified,
        pool=_make_directory(run, directory),
        volume=found.name,
        path=join(directory, found.name),
    )
    run.save(files=(*run.record.files, file))


def _make_directory(run: StepRun, directory: str) -> str:
    """The destination's; returns the pool that shows it. libvirt gives it to its own swtpm user when the VM starts."""
    host = run.destination
    begun = run.intent("destination_tpm", host, directory)
    if begun is not None:
        made = Made.model_validate_json(begun.value)
    else:
        absent = absent_directories(run, host, directory, lambda names: _refuse_state(run, directory, names))
        made = Made(attempt=run.record.attempt, fence=run.record.fence, directories=absent)
    # The window that makes it comes after this in the journal, and so is closed before the directories are removed.
    run.effect("destination_tpm", host, made.model_dump_json(), lambda: None, name=directory)
    return open_window(run, host, directory, build=bool(made.directories))


def _refuse_state(run: StepRun, directory: str, names: tuple[str, ...]) -> None:
    state = STATES[basename(directory)]
    if state in names:
        message = f"{run.destination} has a TPM state of this VM already: {join(directory, state)}"
        hint = "left from an earlier time there? move it away, then retry; it is never written over"
        raise OperatorMustFix("TPM_STATE_EXISTS", message, hint)


def undo_tpm(run: StepRun, entry: JournalEntry) -> None:
    """Remove the directories that were made for it."""
    remove_directories(run, entry.host, Made.model_validate_json(entry.value))


def undo_tpm_state(run: StepRun, entry: JournalEntry) -> None:
    """Delete the copy. It bears no mark, but was journaled only when there had been nothing of its name."""
    pool, _, volume = entry.name.partition("/")
    view = run.hypervisor.find_domain(entry.host, run.uuid)
    if view is not None and view.active:
        raise OperatorMustFix("VOLUME_IN_USE", f"{run.record.vm} is active on {entry.host}", "look at both hosts")
    reopen_windows(run, pool)
    run.hypervisor.delete_volume(entry.host, pool, volume)
