"""Where is the VM? Decided from what both hosts show, never from an exception or a return code.

Sources of the state reasons: libvirt's virDomainShutoffReason and virDomainPausedReason; the combinations were
observed with libvirt 9.0, peer to peer, without UNDEFINE_SOURCE.
"""

from __future__ import annotations

from enum import StrEnum

from tasks.model.domain import DomainState, DomainView
from tasks.model.request import Method

PAUSED_MIGRATION = 2
"""VIR_DOMAIN_PAUSED_MIGRATION: paused for a migration, on either side."""
PAUSED_STARTING_UP = 11
PAUSED_POSTCOPY = 12
PAUSED_POSTCOPY_FAILED = 13
RUNNING_POSTCOPY = 10
RUNNING_POSTCOPY_FAILED = 11
SHUTOFF_SHUTDOWN = 1
SHUTOFF_MIGRATED = 4
DAMAGED = {
    (DomainState.PAUSED, 5): "is paused by an I/O error of a disk",
    (DomainState.PAUSED, 10): "is paused because the guest crashed",
    (DomainState.SHUTOFF, 0): "is shut off, as after a reboot of its host",
    (DomainState.SHUTOFF, 2): "was destroyed",
    (DomainState.SHUTOFF, 3): "crashed",
    (DomainState.SHUTOFF, 6): "could not be started",
    (DomainState.SHUTOFF, 8): "was ended when its host's libvirt was started anew",
}
"""States and reasons in which a VM that was sent with its memory is not as it was sent, and has not got there by its
guest's own will."""


class Outcome(StrEnum):
    """What both hosts together say."""

    AT_SOURCE = "at_source"
    """The VM is at the source as before, and nothing of it is active on the destination."""
    SOURCE_PAUSED = "source_paused"
    """Left paused at the source by a migration that is over; nothing active on the destination: it may be resumed."""
    ARRIVED = "arrived"
    """A VM that is shut off, and was started paused, is paused on the destination; the source still has it."""
    MOVED = "moved"
    """The VM is on the destination and not active on the source."""
    IN_PROGRESS = "in_progress"
    """A migration job runs."""
    UNSETTLED = "unsettled"
    """Between two states that libvirt passes through at the switch-over: look again soon."""
    BOTH_RUNNING = "both_running"
    """The one thing that must never happen."""
    NOWHERE = "nowhere"
    """Neither host has it."""
    INCOMPLETE = "incomplete"
    """In post-copy, and one of the hosts no longer has its part of the memory: neither copy is whole."""
    UNCLEAR = "unclear"
    """Shut off on both hosts, and nothing says which copy is the newer one."""


def decide_outcome(
    method: Method,
    source: DomainView | None,
    destination: DomainView | None,
    run_id: str,
    *,
    mirrored_off: bool = False,
) -> Outcome:
    """Decide where the VM of the migration ``run_id`` is; ``mirrored_off``: it is shut off, and started paused."""
    if source is None and destination is None:
        return Outcome.NOWHERE
    if mirrored_off:
        return _decide_mirrored_off(source, destination, run_id)
    if not method.streams_memory:
        return _decide_offline(source, destination, run_id)
    return _decide_live(source, destination, run_id)


def _decide_offline(source: DomainView | None, destination: DomainView | None, run_id: str) -> Outcome:
    if source is not None and source.active and destination is not None and destination.active:
        return Outcome.BOTH_RUNNING
    if destination is not None and destination.active:
        return Outcome.MOVED
    if source is not None:
        return Outcome.AT_SOURCE
    return Outcome.MOVED if is_ours(destination, run_id) else Outcome.UNCLEAR


def _decide_mirrored_off(source: DomainView | None, destination: DomainView | None, run_id: str) -> Outcome:
    """It belongs to the source as long as it is defined there, and nobody has let it run on the destination."""
    if source is not None and source.job.active and source.job.is_migration:
        return Outcome.IN_PROGRESS
    there = destination if destination is not None and destination.active else None
    if source is None or there is None:
        return _decide_offline(source, destination, run_id)
    if paused_by_migration(there):
        return Outcome.UNSETTLED
    paused = there.state is DomainState.PAUSED
    if source.active:  # at the very end of a migration both are paused for a moment
        return Outcome.UNSETTLED if paused and source.state is DomainState.PAUSED else Outcome.BOTH_RUNNING
    return Outcome.ARRIVED if paused and is_ours(there, run_id) else Outcome.MOVED


def _decide_live(source: DomainView | None, destination: DomainView | None, run_id: str) -> Outcome:
    here = source if source is not None and source.active else None
    there = destination if destination is not None and destination.active else None
    if here is not None and there is None and in_post_copy(here):
        # The source has let the guest go: what it still has is older than what was lost, whatever its job says.
        return Outcome.INCOMPLETE
    if source is not None and source.job.active and source.job.is_migration:
        return Outcome.IN_PROGRESS
    if here is not None and there is not None:
        return _both_active(here, there)
    if here is not None:
        return Outcome.SOURCE_PAUSED if paused_by_migration(here) else Outcome.AT_SOURCE
    if there is not None:
        return _only_there(source, there)
    return _both_off(source, destination, run_id)


def _only_there(source: DomainView | None, destination: DomainView) -> Outcome:
    if in_post_copy(destination):
        # At the very end the source goes first; a source that ended in another way took memory with it.
        return Outcome.UNSETTLED if source is None or source.reason == SHUTOFF_MIGRATED else Outcome.INCOMPLETE
    return Outcome.UNSETTLED if paused_by_migration(destination) else Outcome.MOVED


def _both_active(source: DomainView, destination: DomainView) -> Outcome:
    if in_post_copy(source):
        return Outcome.IN_PROGRESS
    if paused_by_migration(source) or paused_by_migration(destination):
        return Outcome.UNSETTLED
    return Outcome.BOTH_RUNNING


def _both_off(source: DomainView | None, destination: DomainView | None, run_id: str) -> Outcome:
    """The guest was shut off before or after the switch-over."""
    if destination is None:
        return Outcome.UNCLEAR if source is not None and source.reason == SHUTOFF_MIGRATED else Outcome.AT_SOURCE
    if not is_ours(destination, run_id):
        return Outcome.UNCLEAR if source is None else Outcome.AT_SOURCE
    if source is None or source.reason == SHUTOFF_MIGRATED:
        return Outcome.MOVED
    return Outcome.UNCLEAR


def describe_damage(view: DomainView) -> str | None:
    """What is wrong with a VM that came with its memory, after its name; None when nothing is."""
    return "crashed" if view.state is DomainState.CRASHED else DAMAGED.get((view.state, view.reason))


def in_post_copy(view: DomainView) -> bool:
    """One half of a post-copy, which may have lost the other."""
    if view.state is DomainState.PAUSED:
        return view.reason in (PAUSED_POSTCOPY, PAUSED_POSTCOPY_FAILED)
    return view.state is DomainState.RUNNING and view.reason in (RUNNING_POSTCOPY, RUNNING_POSTCOPY_FAILED)


def is_broken(source: DomainView) -> bool:
    """A post-copy's source whose libvirt knows that the connection is lost."""
    return source.state is DomainState.PAUSED and source.reason == PAUSED_POSTCOPY_FAILED


def paused_by_migration(view: DomainView) -> bool:
    """Paused by libvirt for a migration, not by a person."""
    return view.state is DomainState.PAUSED and view.reason in (PAUSED_MIGRATION, PAUSED_STARTING_UP)


def is_ours(view: DomainView | None, run_id: str) -> bool:
    """Whether the domain bears this migration's mark."""
    return view is not None and view.mark is not None and view.mark.id == run_id


def describe(view: DomainView | None, host: str) -> str:
    """What was seen on one host, for people."""
    if view is None:
        return f"{host}: not defined"
    kept = "persistent" if view.persistent else "transient"
    return f"{host}: {view.state.value} (reason {view.reason}), {kept}"
