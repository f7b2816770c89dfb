"""Windows: transient directory pools through which a file is reached that no pool of its host shows.

A window makes and removes nothing but itself: ending a transient pool leaves its directory as it is.
"""

from __future__ import annotations

import hashlib
from functools import partial

from tasks.model.run import JournalEntry
from tasks.steps.run import StepRun


def open_window(run: StepRun, host: str, directory: str, *, build: bool = False) -> str:
    """The name of an active pool whose directory this is; one is made when there is none, and the directory as well
    when ``build``."""
    name = window_name(run.record.id, run.record.attempt, directory)
    if run.intent("window", host, name) is None and (there := run.hypervisor.find_pool_at(host, directory)) is not None:
        return there
    make = partial(run.hypervisor.open_window, host, name, directory, build=build)
    run.effect("window", host, directory, make, name=name)
    return name


def window_name(run_id: str, attempt: int, directory: str) -> str:
    """Bears the mark of the migration, and is another one for each directory."""
    return f"vmferry.{run_id}.{attempt}.{hashlib.sha256(directory.encode()).hexdigest()[:8]}"


def close_window(run: StepRun, entry: JournalEntry) -> None:
    """End it; harmless when it is not there."""
    run.hypervisor.close_window(entry.host, entry.name)


def close_windows(run: StepRun) -> None:
    """End all that are open, at the end of a migration that succeeded."""
    for entry in run.record.journal:
        if entry.kind == "window" and not entry.undone:
            run.lease.check()
            close_window(run, entry)
            run.mark_undone(entry)
