"""Find a VM by looking at the hosts, all at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.model.domain import DomainView
from tasks.model.errors import HypervisorError, InvalidRequest
from tasks.model.ports import Hypervisor
from tasks.parallel import ContextPool
from tasks.planning.outcome import paused_by_migration


@dataclass(frozen=True, slots=True)
class Sightings:
    """Where a VM of a name or UUID was seen, and which hosts could not be asked."""

    views: tuple[DomainView, ...]
    unreachable: tuple[str, ...]


def look_everywhere(hypervisor: Hypervisor, hosts: Sequence[str], vm: str) -> Sightings:
    """Ask all hosts for one VM."""

    def ask(host: str) -> DomainView | HypervisorError | None:
        try:
            return hypervisor.find_domain(host, vm)
        except HypervisorError as error:
            return error

    with ContextPool(max_workers=min(16, max(1, len(hosts)))) as pool:
        answers = list(zip(hosts, pool.map(ask, hosts), strict=True))
    views = tuple(answer for _, answer in answers if isinstance(answer, DomainView))
    failed = tuple(f"{host} ({answer.message})" for host, answer in answers if isinstance(answer, HypervisorError))
    return Sightings(views, failed)


def choose_source(sightings: Sightings, vm: str, source: str | None, destination: str = "") -> DomainView:
    """Decide which sighting is meant: the named source, else the only host, else the only one where it is active.

    Another VM of this name on the ``destination`` cannot be meant, and is preflight's to tell.

    Raises:
        InvalidRequest: ``VM_NOT_FOUND``, ``VM_NOT_ON_SOURCE``, ``SOURCE_UNREACHABLE``, ``VM_AMBIGUOUS``,
            ``VM_RUNS_TWICE``.
    """
    if source is not None:
        return _on_named_source(sightings, vm, source)
    views = _without_namesakes(sightings.views, vm, destination)
    active = _settled([v for v in views if v.active])
    if len(active) > 1:
        where = ", ".join(v.host for v in active)
        raise InvalidRequest(
            "VM_RUNS_TWICE", f"{vm} is active on {where}", "stop one of them by hand, after looking at both"
        )
    candidates = active or list(views)
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        where = ", ".join(v.host for v in candidates)
        raise InvalidRequest(
            "VM_AMBIGUOUS", f"{vm} is defined, shut off, on {where}", "say which one is meant with --from"
        )
    if sightings.unreachable:
        silent = ", ".join(sightings.unreachable)
        message = f"{vm} is on none of the reachable hosts; not reachable: {silent}"
        raise InvalidRequest("VM_NOT_FOUND", message, "vmferry hosts shows which hosts answer")
    raise InvalidRequest("VM_NOT_FOUND", f"{vm} is on no host of the inventory", "vmferry vms shows all VMs")


def _without_namesakes(views: Sequence[DomainView], vm: str, destination: str) -> list[DomainView]:
    """A name is each host's own: two VMs of one name are neither one that runs twice, nor one of which either may be
    taken."""
    meant = {view.uuid for view in views if view.host != destination} or {view.uuid for view in views}
    if len(meant) > 1:
        where = ", ".join(f"{view.uuid} on {view.host}" for view in views)
        message = f"different VMs are called {vm}: {where}"
        raise InvalidRequest("VM_AMBIGUOUS", message, "name it by its UUID, or say which one is meant with --from")
    return [view for view in views if view.uuid in meant]


def _settled(active: list[DomainView]) -> list[DomainView]:
    """Without the copy that only arrives or only leaves: a VM under way is not a VM that runs twice."""
    if len(active) < 2 or not any(paused_by_migration(v) for v in active):
        return active
    standing = [v for v in active if not paused_by_migration(v)]
    return standing or [v for v in active if v.job.active and v.job.is_migration] or active


def _on_named_source(sightings: Sightings, vm: str, source: str) -> DomainView:
    for view in sightings.views:
        if view.host == source:
            return view
    silent = next((u for u in sightings.unreachable if u.split(" ", 1)[0] == source), None)
    if silent is not None:
        raise InvalidRequest(
            "SOURCE_UNREACHABLE", f"the source cannot be asked: {silent}", "vmferry hosts shows which hosts answer"
        )
    elsewhere = ", ".join(v.host for v in sightings.views)
    hint = f"it is on {elsewhere}" if elsewhere else "vmferry vms shows all VMs"
    raise InvalidRequest("VM_NOT_ON_SOURCE", f"{source} has no VM {vm}", hint)
