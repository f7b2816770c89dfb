"""What a step tells the workflow to do next, and how it is interrupted."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.model.run import ErrorInfo, State


@dataclass(frozen=True, slots=True)
class Next:
    """The step is done: hand over to the next one."""


@dataclass(frozen=True, slots=True)
class Settle:
    """The migration is over."""

    state: State
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class Requeue:
    """The VM was moved by hand meanwhile: queue again with the source where it is now."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Forward:
    """Rollback found that the VM has moved: go on with verify."""


Verdict = Next | Settle | Requeue | Forward


class Interrupted(Exception):
    """Base of the ways in which a step is stopped from outside; none of them is an error of the migration."""


class LeaseLost(Interrupted):
    """The lease could not be renewed for half of its length, or somebody else took over: stop all effects."""


class Detached(Interrupted):
    """The worker is shutting down: leave the transfer to libvirt and the rest to another worker."""


class CancelRequested(Interrupted):
    """Somebody asked to cancel the migration."""


class Waits(Interrupted):
    """Something that others have must become free first; says what."""
