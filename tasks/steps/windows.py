"""Windows: transient directory pools through which a file is reached that no pool of its host shows.

A window makes and removes nothing but itself: ending a transient pool leaves its directory as it is. libvirt allows one
pool a directory, so that migrations share them: each journals that it uses a window before it does, and the last one
ends it. Who ends it says so first, in its journal, and then looks for users; who uses it says so first, and then looks
for one who ends it. Of two who do that at once, one sees the other.
"""

from __future__ import annotations

import hashlib

from tasks.model.pools import WINDOW_PREFIX
from tasks.model.run import JournalEntry, JournalKind
from tasks.steps.run import StepRun
from tasks.steps.verdict import Waits


def open_window(run: StepRun, host: str, directory: str, *, build: bool = False) -> str:
    """The name of an active pool whose directory this is; one is made when there is none, and the directory as well
    when ``build``.

    Raises:
        Waits: it is just being ended by another migration.
    """
    there = run.hypervisor.find_pool_at(host, directory)
    if there is not None and not there.startswith(WINDOW_PREFIX):
        return there
    name = there or window_name(directory)
    earlier = run.intent("window", host, name)
    run.effect("window", host, directory, lambda: _open(run, host, name, directory, build=build), name=name)
    if earlier is not None and earlier.done:
        _open(run, host, name, directory)
    return name


def window_name(directory: str) -> str:
    """The same for all migrations, and another one for each directory."""
    return f"{WINDOW_PREFIX}window.{hashlib.sha256(directory.encode()).hexdigest()[:8]}"


def reopen_windows(run: StepRun, name: str | None = None) -> None:
    """Those that this migration has opened (or one of them) are there, also after a restart of their host."""
    for entry in run.record.journal:
        if entry.kind == "window" and entry.done and not entry.undone and name in (None, entry.name):
            _open(run, entry.host, entry.name, entry.value)


def close_window(run: StepRun, entry: JournalEntry) -> None:
    """It is not needed any more; ended when nobody else needs it."""
    closing = JournalEntry(kind="window_close", host=entry.host, name=entry.name, value=entry.value, at=run.store.now())
    kept = (e.model_copy(update={"undone": True}) if e == entry else e for e in run.record.journal)
    run.save(journal=(*kept, closing))
    end_window(run, closing)


def end_window(run: StepRun, entry: JournalEntry) -> None:
    """What was begun by ``close_window``; harmless when it is not there."""
    if not _others_with(run, "window", entry.host, entry.name):
        run.lease.check()
        run.hypervisor.close_window(entry.host, entry.name)
    run.mark_undone(entry)


def close_windows(run: StepRun) -> None:
    """All that are open, at the end of a migration that succeeded."""
    for entry in run.record.journal:
        if entry.kind in CLOSE and not entry.undone:
            CLOSE[entry.kind](run, entry)


CLOSE = {"window": close_window, "window_close": end_window}


def _open(run: StepRun, host: str, name: str, directory: str, *, build: bool = False) -> None:
    closing = _others_with(run, "window_close", host, name)
    if closing:
        raise Waits(f"{closing[0]} is just ending pool {name} on {host}")
    run.lease.check()
    run.hypervisor.open_window(host, name, directory, build=build)


def _others_with(run: StepRun, kind: JournalKind, host: str, name: str) -> list[str]:
    """Other migrations under way whose journals say this, and not that it is over."""
    return [
        other.id
        for other in run.store.active()
        if other.id != run.record.id
        and any((e.kind, e.host, e.name, e.undone) == (kind, host, name, False) for e in other.journal)
    ]
