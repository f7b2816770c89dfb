"""Directories of a host, seen through libvirt: what is in one, and which must be made before it is there.

libvirt shows directories as pools only, so that each look makes a transient pool for a moment, which is journaled.
"""

from __future__ import annotations

from collections.abc import Callable
from posixpath import dirname, normpath

from tasks.model.errors import OperatorMustFix
from tasks.model.run import JournalEntry
from tasks.steps.made import Made
from tasks.steps.run import StepRun


def list_names(run: StepRun, host: str, path: str) -> tuple[str, ...] | None:
    """Names in a directory; None when there is no such directory."""
    found: list[tuple[str, ...] | None] = []
    _probed(run, host, path, lambda uuid: found.append(run.hypervisor.list_directory(host, path, uuid)))
    return found[0]


def absent_directories(run: StepRun, host: str, path: str, check: Callable[[tuple[str, ...]], None]) -> tuple[str, ...]:
    """The directory and those above it, as far as they are not there yet; the innermost first.

    ``check`` is told what is in the directory when it is there, and raises when that is in the way.
    """
    absent: list[str] = []
    _probed(run, host, path, lambda uuid: absent.extend(_look_upwards(run, host, normpath(path), check, uuid)))
    return tuple(absent)


def remove_directories(run: StepRun, host: str, made: Made) -> None:
    """Remove what was made, as far as it is empty."""
    for directory in made.directories:
        run.hypervisor.remove_directory(host, directory, made.uuid(run, f"directory/{directory}"))


def undo_probe(run: StepRun, entry: JournalEntry) -> None:
    """The transient pool that a directory was looked at with."""
    run.hypervisor.stop_pool(entry.host, Made.model_validate_json(entry.value).uuid(run, f"probe/{entry.name}"))


def _probed(run: StepRun, host: str, path: str, look: Callable[[str], None]) -> None:
    earlier = run.intent("probe", host, path)
    if earlier is not None:  # of an owner that died while it was looking
        undo_probe(run, earlier)
        run.mark_undone(earlier)
    made = Made(attempt=run.record.attempt, fence=run.record.fence)
    run.effect("probe", host, made.model_dump_json(), lambda: look(made.uuid(run, f"probe/{path}")), name=path)
    probe = run.intent("probe", host, path)
    if probe is not None:
        run.mark_undone(probe)


def _look_upwards(run: StepRun, host: str, path: str, check: Callable[[tuple[str, ...]], None], uuid: str) -> list[str]:
    names = run.hypervisor.list_directory(host, path, uuid)
    if names:
        check(names)
    absent = []
    while names is None and path != "/":
        absent.append(path)
        path = dirname(path)
        try:
            names = run.hypervisor.list_directory(host, path, uuid)
        except OperatorMustFix as error:
            if error.code != "DIRECTORY_IN_USE":
                raise
            break  # a pool has it: it is there, or at least not ours to remove
    return absent
