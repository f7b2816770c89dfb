"""Which method: what the caller asked for, when the VM's state allows it."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.model.domain import DomainState, DomainView
from tasks.model.finding import Finding, blocker
from tasks.model.request import AUTO, Method, MigrationRequest

CODES = {
    "METHOD_NOT_SUPPORTED": "The method asked for is not implemented.",
    "STATE_NOT_MOVABLE": "The VM is in a state in which it cannot be moved (crashed, suspended by itself, stopping).",
    "METHOD_NEEDS_RUNNING_VM": "A method that takes the memory along was asked for, and the VM is shut off.",
    "METHOD_NEEDS_SHUT_OFF_VM": "Offline was asked for and the VM runs.",
    "CANNOT_SHUT_DOWN": "Shutting the VM down is allowed, and it is paused, or would be gone then.",
}
"""What each blocker of this module means."""

SUPPORTED_METHODS = (Method.LIVE, Method.SUSPEND, Method.SAVED, Method.OFFLINE)
LIVE_STATES = frozenset({DomainState.RUNNING, DomainState.BLOCKED, DomainState.PAUSED})

MOVABLE_PAUSES = frozenset({0, 1, 6, 7})
"""virDomainPausedReason that a person or a policy meant: unknown, user, watchdog, from snapshot. The others belong to
something that is going on (migration, save, dump, snapshot, shutting down, starting, post-copy) or that broke (I/O
error, crash): such a VM is refused by libvirt, or would take the damage along."""


@dataclass(frozen=True, slots=True)
class MethodChoice:
    """How the VM goes."""

    method: Method
    reason: str
    """Why, for people."""


def choose_method(request: MigrationRequest, view: DomainView) -> MethodChoice | Finding:
    """Decide the method, or say with a blocker why there is none. Never weaker than what was asked for."""
    if refusal := _check_supported(request):
        return refusal
    fitting = _fitting(view)
    if fitting is None:
        return blocker(
            "STATE_NOT_MOVABLE",
            f"{view.name} on {view.host} is {view.state.value} (reason {view.reason}), which cannot be moved",
            "bring it to running, paused or shut off, and ask again",
        )
    asked = fitting if request.method == AUTO else Method(request.method)
    if asked.carries_memory is not fitting.carries_memory:
        if not asked.carries_memory and request.shut_down == "allowed":
            return _shut_down(view)
        return _wrong_state(asked, view)
    return MethodChoice(asked, _reason(request, view))


def _check_supported(request: MigrationRequest) -> Finding | None:
    if request.method != AUTO and Method(request.method) not in SUPPORTED_METHODS:
        return blocker(
            "METHOD_NOT_SUPPORTED",
            f"the method {request.method} is not supported",
            f"use one of: auto, {', '.join(SUPPORTED_METHODS)}",
        )
    return None


def _fitting(view: DomainView) -> Method | None:
    """The best method that fits the state: libvirt would accept the offline one for a running VM without a word."""
    if view.state is DomainState.SHUTOFF and not view.active:
        return Method.OFFLINE
    if not view.active or view.state not in LIVE_STATES:
        return None
    if view.state is DomainState.PAUSED and view.reason not in MOVABLE_PAUSES:
        return None
    return Method.LIVE


def _shut_down(view: DomainView) -> MethodChoice | Finding:
    if not view.persistent:
        message = f"{view.name} on {view.host} has no definition that would be left of it when it is shut down"
        return blocker("CANNOT_SHUT_DOWN", message, "use --method live, or define it first")
    if view.state is DomainState.PAUSED:
        message = f"{view.name} on {view.host} is paused: it would not hear that it shall shut down"
        return blocker("CANNOT_SHUT_DOWN", message, "let it run first (virsh resume), or use --method suspend")
    return MethodChoice(Method.OFFLINE, f"as asked for; the VM is {view.state.value}, and is asked to shut down")


def _wrong_state(asked: Method, view: DomainView) -> Finding:
    if asked.carries_memory:
        message = f"{view.name} on {view.host} is shut off: it has no memory to be moved"
        return blocker("METHOD_NEEDS_RUNNING_VM", message, "use --method offline, or start the VM first")
    message = f"{view.name} on {view.host} is {view.state.value}: moving its definition alone would leave two copies"
    return blocker(
        "METHOD_NEEDS_SHUT_OFF_VM", message, "use --method live, or allow it to be shut down with --shut-down"
    )


def _reason(request: MigrationRequest, view: DomainView) -> str:
    how = "chosen because the VM is" if request.method == AUTO else "as asked for; the VM is"
    return f"{how} {view.state.value}"
