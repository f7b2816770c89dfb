"""A drain: every VM of one host goes to others, until the host may be switched off."""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints, ValidationError

from tasks.model.errors import InvalidRequest, VmferryError
from tasks.model.estimate import Estimate
from tasks.model.frozen import Frozen
from tasks.model.request import HostName, Passed, VmName
from tasks.model.run import ErrorInfo

DrainId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,48}$")]
"""Ids of a drain's migrations are longer than its own, and have 64 characters at most."""


class DrainState(StrEnum):
    """Where a drain stands."""

    PLANNING = "planning"
    """The host is cordoned; a place is looked for for each of its VMs."""
    RUNNING = "running"
    """Migrations are queued or under way."""
    PAUSED = "paused"
    """What is under way arrives; nothing new starts."""
    CANCELLING = "cancelling"
    """What is under way is cancelled and rolled back."""
    EMPTY = "empty"
    """The host was looked at again: nothing is left that a reboot would hurt."""
    RETURNED = "returned"
    """Every VM that an earlier drain took away is back."""
    PARTIAL = "partial"
    """It is over, and something is left on the host, or did not come back; the record says what, and why."""
    CANCELLED = "cancelled"
    REFUSED = "refused"
    """A strict drain, and not all VMs can move: nothing was moved."""


ENDED: Final = frozenset(
    {DrainState.EMPTY, DrainState.RETURNED, DrainState.PARTIAL, DrainState.CANCELLED, DrainState.REFUSED}
)
DRAIN_TRANSITIONS: Final[dict[DrainState, frozenset[DrainState]]] = {
    DrainState.PLANNING: frozenset({DrainState.RUNNING, DrainState.REFUSED, DrainState.CANCELLING}),
    DrainState.RUNNING: frozenset(
        {DrainState.PAUSED, DrainState.CANCELLING, DrainState.EMPTY, DrainState.RETURNED, DrainState.PARTIAL}
    ),
    DrainState.PAUSED: frozenset({DrainState.RUNNING, DrainState.CANCELLING}),
    DrainState.CANCELLING: frozenset({DrainState.CANCELLED}),
    DrainState.EMPTY: frozenset({DrainState.PLANNING}),
    DrainState.RETURNED: frozenset({DrainState.PLANNING}),
    DrainState.PARTIAL: frozenset({DrainState.PLANNING}),
    DrainState.CANCELLED: frozenset({DrainState.PLANNING}),
    DrainState.REFUSED: frozenset({DrainState.PLANNING}),
}
"""Every change of state that there is; back to ``planning`` is a retry."""


class Fate(StrEnum):
    """What becomes of one VM."""

    WAITING = "waiting"
    """It has a place, and its migration was not asked for yet."""
    MOVING = "moving"
    """Its migration is queued or under way."""
    MOVED = "moved"
    FAILED = "failed"
    """Its migration ended otherwise; the VM is where it was, or somebody must look."""
    STAYS = "stays"
    """It cannot move, or shall not; the reason is said."""
    GONE = "gone"
    """It left the host, or its definition was removed, without this drain."""


class DrainRequest(Passed):
    """One host to be emptied; exactly what the caller sent, normalised. What migrations have too is each of its."""

    host: HostName
    """Inventory name of the host."""
    to: list[HostName] = Field(default_factory=list, max_length=1000)
    """Hosts that VMs may go to; all of the inventory when empty."""
    returns: DrainId | None = None
    """Id of an earlier drain of the host, whose VMs shall come back to it from wherever they are now; the host is not
    emptied then."""
    strict: bool = False
    """Move nothing at all unless every VM can move."""
    shut_off: Annotated[str, StringConstraints(pattern="^(move|leave)$")] = "leave"
    """What becomes of VMs that are shut off: their definitions, and disks that only this host has, move or stay."""
    leave: list[VmName] = Field(default_factory=list, max_length=1000)
    """VMs that stay, by name or UUID."""
    may_shut_off: list[VmName] = Field(default_factory=list, max_length=1000)
    """VMs, by name or UUID, that are asked to shut down and moved offline when they cannot be moved live; they are
    started again where they are then. No other VM is ever shut down."""

    def fingerprint(self) -> str:
        """SHA-256 over the normalised request."""
        said = self.model_dump(mode="json", exclude_defaults=True)
        return hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class DrainVm(Frozen):
    """One VM of a drain."""

    uuid: str
    name: str
    active: bool
    memory_kib: int
    fate: Fate
    source: str = ""
    """Where it was."""
    destination: str | None = None
    shut_down: bool = False
    """It cannot be moved live, and is asked to shut down for it, as the request allows."""
    migration: str = ""
    """Id of its migration, the newest one."""
    reason: str = ""
    """Why this destination; or why it stays, or what went wrong."""
    others: dict[str, str] = Field(default_factory=dict)
    """Why not each of the other hosts."""
    expected_bytes: int = 0
    """What it has to move: its memory when it goes with it, and disks."""
    expected: Estimate | None = None
    """Of a dry run: how long its move will take; None when no move that way was seen lately."""
    late: str = ""
    """Of a dry run: why it will not be moved in time."""
    maybe_late: bool = False
    """Of a dry run: it will not be, when all take as long as they may."""


class DrainForecast(Frozen):
    """What a dry run expects of the whole, if nothing else moves. Times are seconds since the epoch."""

    begins: float | None
    """None: nothing may ever start."""
    closes: float | None
    """When the window or the deadline ends."""
    expected: Estimate | None
    """From the beginning to the end of the last; None when nothing is known."""
    without_estimate: int
    """VMs that it leaves out, since no move their way was seen lately."""
    late: int
    """VMs that will not be moved in time."""
    maybe_late: int
    """More that will not be, when all take as long as they may."""


class DrainRecord(Frozen):
    """Everything known about a drain. Times are Redis TIME, seconds since the epoch."""

    id: DrainId
    request: DrainRequest
    state: DrainState = DrainState.PLANNING
    rev: int = 0
    """Grows with every write; a write that was decided on an older one is refused."""
    round: int = 1
    """Grows with every retry."""
    asked: int = 0
    """How many migrations it has asked for."""
    vms: tuple[DrainVm, ...] = ()
    wanted: dict[str, str] = Field(default_factory=dict)
    """UUID -> name of the VMs that shall come back; known when it was asked for."""
    submitted_at: float = 0.0
    finished_at: float | None = None
    cordoned_by_us: bool = False
    """Whether the host was open before: a drain that is cancelled or refused opens it again."""
    waiting_for: str | None = None
    """Why nothing goes on at the moment, in one sentence."""
    forecast: DrainForecast | None = None
    """Of a dry run."""
    left: tuple[str, ...] = ()
    """What is left on the host, each in words."""
    error: ErrorInfo | None = None

    @property
    def is_ended(self) -> bool:
        """Whether it is over."""
        return self.state in ENDED

    def migration_id(self, number: int) -> str:
        """Id of the migration that it asked for as its ``number``-th."""
        return f"{self.id}-{number}"

    def counts(self) -> dict[Fate, int]:
        """How many VMs have each fate."""
        return {fate: sum(vm.fate is fate for vm in self.vms) for fate in Fate}


def check_drain_transition(before: DrainState, after: DrainState) -> None:
    """Raises ``VmferryError`` (``ILLEGAL_TRANSITION``) when there is no such change."""
    if after is not before and after not in DRAIN_TRANSITIONS[before]:
        raise VmferryError("ILLEGAL_TRANSITION", f"a drain does not go from {before} to {after}", "this is a bug")


def parse_drain(values: dict[str, Any]) -> DrainRequest:
    """Check a caller's arguments.

    Raises:
        InvalidRequest: code ``INVALID_REQUEST``; the message names every offending argument.
    """
    try:
        return DrainRequest.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'request'}: {e['msg']}" for e in error.errors(include_url=False)
        )
        raise InvalidRequest("INVALID_REQUEST", problems, "see vmferry drain --help") from None
