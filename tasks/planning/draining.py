"""What a drain needs to decide, from what its hosts show: which VMs, which places, and whether the host is empty."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.model.cordon import Cordon
from tasks.model.domain import DomainView
from tasks.model.drain import DrainRecord, DrainRequest, DrainVm, Fate
from tasks.model.host import HostFacts, Pool
from tasks.model.pools import PASSING_PREFIXES
from tasks.model.request import MigrationRequest
from tasks.model.run import RunRecord, State
from tasks.planning.groups import NO_GROUPS, Membership, homes_at, rivals_at
from tasks.planning.placement import Guest, Site

MIB_KIB = 1024


@dataclass(frozen=True, slots=True)
class Reserve:
    """What hosts keep for themselves."""

    memory_mib: int
    vcpu_overcommit: float


@dataclass(frozen=True, slots=True)
class Coming:
    """What is on its way to a host, or waits for its turn to go there."""

    memory_kib: int = 0
    vcpus: int = 0
    uuids: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Needs:
    """What is known of a VM's needs from looks at hosts it might go to."""

    pools: Mapping[str, int] = field(default_factory=dict)
    unfit: Mapping[str, str] = field(default_factory=dict)


def site_of(
    facts: HostFacts,
    views: Sequence[DomainView],
    coming: Coming,
    reserve: Reserve,
    groups: Mapping[str, Membership] | None = None,
) -> Site:
    """A host as placement sees it: what is free now is what may be taken, but for the reserve and what is coming."""
    present = {view.uuid for view in views if view.active} | coming.uuids
    return Site(
        name=facts.name,
        memory_kib=max(0, facts.memory_total_kib - reserve.memory_mib * MIB_KIB),
        memory_used_kib=facts.memory_total_kib - facts.memory_free_kib + coming.memory_kib,
        vcpus=int(facts.cpus * reserve.vcpu_overcommit),
        vcpus_used=sum(view.vcpus for view in views if view.active) + coming.vcpus,
        pools={pool.name: pool.available_bytes for pool in facts.pools if pool.active},
        together=homes_at(present, groups or {}),
        apart=rivals_at(present, groups or {}),
    )


def closed_site(name: str, why: str) -> Site:
    """A host that takes nobody."""
    return Site(name, 0, 0, 0, 0, closed=why)


def guest_of(view: DomainView, needs: Needs, groups: Membership = NO_GROUPS) -> Guest:
    """A VM as placement sees it; one that is shut off takes no memory, no CPUs, and no heed of its groups."""
    groups = groups if view.active else NO_GROUPS
    return Guest(
        uuid=view.uuid,
        name=view.name,
        memory_kib=view.memory_kib if view.active else 0,
        vcpus=view.vcpus if view.active else 0,
        pools=needs.pools,
        unfit=needs.unfit,
        together=groups.together,
        apart=groups.apart,
    )


def on_the_way(runs: Iterable[RunRecord], views: Mapping[str, DomainView]) -> dict[str, Coming]:
    """By destination; of a migration whose VM nobody shows now nothing is known."""
    found: dict[str, Coming] = {}
    for run in runs:
        view = views.get(run.uuid or "")
        runs_there = view is not None and (view.active or any(e.kind == "source_shut_down" for e in run.journal))
        if run.is_terminal or view is None or not runs_there or view.host == run.destination:
            continue
        before = found.get(run.destination, Coming())
        memory_kib, vcpus = before.memory_kib + view.memory_kib, before.vcpus + view.vcpus
        found[run.destination] = Coming(memory_kib, vcpus, before.uuids | {view.uuid})
    return found


def why_left_alone(request: DrainRequest, view: DomainView, runs_on: str = "") -> str:
    """Why a VM stays by the request itself; empty when it shall move. ``runs_on`` is another host that it runs on."""
    if {view.name, view.uuid} & set(request.leave):
        return "it shall stay, as the drain was asked"
    if runs_on and not view.active:
        return f"it is a leftover definition: the VM runs on {runs_on}"
    if not view.active and request.shut_off == "leave" and request.returns is None:
        return "it is shut off, and those stay unless the drain is asked to move them"
    return ""


def may_be_shut_off(request: DrainRequest, view: DomainView) -> bool:
    """Whether the request names it as one that may."""
    return view.active and bool({view.name, view.uuid} & set(request.may_shut_off))


def refreshed(vm: DrainVm, run: RunRecord | None, still_there: bool) -> DrainVm:
    """The VM's fate as its migration's record, or the host, tells it."""
    if vm.fate in (Fate.MOVING, Fate.FAILED) and run is not None and run.is_terminal:
        if run.state is State.SUCCEEDED:
            return vm.model_copy(update={"fate": Fate.MOVED})
        reason = f"{run.state}: {run.error.message}" if run.error else str(run.state)
        return vm.model_copy(update={"fate": Fate.FAILED, "reason": reason})
    if vm.fate in (Fate.WAITING, Fate.STAYS, Fate.FAILED) and not still_there:
        return vm.model_copy(update={"fate": Fate.GONE, "reason": "it is no longer on the host"})
    return vm


def may_take(request: DrainRequest, inventory: Iterable[str]) -> list[str]:
    """Hosts that VMs of the drain may go to, as it was asked."""
    if request.returns is not None:
        return [request.host]
    return [name for name in request.to or inventory if name != request.host]


def cordon_reason(drain_id: str) -> str:
    """How the cordon of a drain is known for its own."""
    return f"drain {drain_id}"


def by_hand(known: Cordon | None, reason: str) -> str:
    """The reason of a cordon that a person puts: never the one by which a drain knows its own, and lifts it."""
    if reason or known is None or not known.reason.startswith(cordon_reason("")):
        return reason
    return f"by hand, during {known.reason}"


def is_lifted(request: DrainRequest, cordon: Cordon) -> bool:
    """Whether a cordon goes when the drain begins: the one of the drain whose VMs come back."""
    return request.returns is not None and cordon.reason == cordon_reason(request.returns)


def what_is_missing(vms: Iterable[DrainVm]) -> tuple[str, ...]:
    """VMs that did not come back, each in words."""
    return tuple(
        f"{vm.name}: it has left again" if vm.fate is Fate.MOVED else f"{vm.name}: {vm.reason or vm.fate}" for vm in vms
    )


def what_is_left(
    host: str,
    views: Sequence[DomainView],
    pools: Sequence[Pool],
    runs: Iterable[RunRecord],
    vms: Iterable[DrainVm] = (),
) -> tuple[str, ...]:
    """What a reboot of the host would hurt, and what the drain has left in a state that somebody must look at, each in
    words. ``vms`` are the drain's own."""
    left = [f"{view.name} is {view.state.value}" for view in views if view.active]
    left += [
        f"{view.name} is shut off and would be started at boot" for view in views if not view.active and view.autostart
    ]
    left += [f"pool {pool.name} is left of a migration" for pool in pools if pool.name.startswith(PASSING_PREFIXES)]
    unsettled = [run for run in runs if is_unsettled(run) and host in (run.source, run.destination)]
    left += [f"migration {run.id} of {run.vm} is {run.state}" for run in unsettled]
    ran = {vm.uuid for vm in vms if vm.active and vm.fate is Fate.FAILED}
    off = [view for view in views if not view.active and not view.autostart and view.uuid in ran]
    left += [f"{view.name} ran, did not move, and is shut off" for view in off]
    return tuple(left)


def is_unsettled(run: RunRecord) -> bool:
    """Whether it is under way, or waits for a person."""
    return not run.is_terminal or run.state is State.NEEDS_ATTENTION


def migration_values(record: DrainRecord, vm: DrainVm) -> dict[str, object]:
    """The request of a VM's migration."""
    request = record.request
    values: dict[str, object] = {"vm": vm.uuid, "destination": vm.destination, "source": vm.source or request.host}
    values |= {"method": "offline", "shut_down": "allowed"} if vm.shut_down else {}
    passed = request.passed
    if vm.active and not vm.shut_down:
        passed.pop("data_path", None)  # one that runs has no choice, and shall not be refused for it
    return values | passed


def expected_run(request: MigrationRequest, vm: DrainVm) -> RunRecord:
    """The record of a migration that nobody has asked for yet, for whoever counts what it would take."""
    source, destination = request.source, request.destination
    said = {"vm": vm.name, "uuid": vm.uuid, "source": source, "destination": destination}
    return RunRecord(id="expected", request=request, fingerprint="", **said)
