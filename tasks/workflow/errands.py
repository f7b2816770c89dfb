"""What a drain is for: a host is emptied, or gets back what an earlier drain took away."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from tasks.model.domain import DomainView
from tasks.model.drain import DrainRecord, DrainState, DrainVm, Fate
from tasks.model.errors import HypervisorError
from tasks.model.run import RunRecord
from tasks.planning.draining import cordon_reason, what_is_left, what_is_missing
from tasks.workflow.places import Fleet
from tasks.workflow.runtime import Runtime


class Errand(Protocol):
    """One of the two."""

    def make_ready(self, runtime: Runtime, record: DrainRecord) -> DrainRecord:
        """Before places are found: who may come to the host meanwhile."""

    def to_move(self, record: DrainRecord, fleet: Fleet) -> Sequence[DomainView]:
        """The VMs that places are found for."""

    def look(self, runtime: Runtime, record: DrainRecord) -> tuple[Sequence[DomainView], frozenset[str]]:
        """The VMs that may still have to move, and the UUIDs of the drain's own that are not where they were."""

    def newcomers(self, record: DrainRecord, views: Sequence[DomainView]) -> list[DomainView]:
        """VMs that join."""

    def end(self, runtime: Runtime, record: DrainRecord) -> tuple[DrainState, tuple[str, ...]] | str:
        """How it ends when none of its migrations is under way, and what is left; or why it does not end yet."""


def errand_of(record: DrainRecord) -> Errand:
    """What a drain is for."""
    return EMPTYING if record.request.returns is None else RETURNING


def lift_cordon(runtime: Runtime, host: str, drain_id: str) -> None:
    """Let VMs come to a host again, unless somebody else said that they shall not."""
    cordon = runtime.cordons.find(host)
    if cordon is not None and cordon.reason == cordon_reason(drain_id):
        runtime.cordons.lift(host)


def run_of(runtime: Runtime, record: DrainRecord, vm: DrainVm) -> RunRecord | None:
    """The VM's migration; not one that somebody else has asked for under its id."""
    run = runtime.store.find(vm.migration) if vm.migration else None
    return run if run is not None and run.drain == record.id else None


class _Emptying:
    """All VMs leave the host, also those that appear while it is emptied."""

    def make_ready(self, runtime: Runtime, record: DrainRecord) -> DrainRecord:
        host, reason = record.request.host, cordon_reason(record.id)
        cordon = runtime.cordons.find(host) or runtime.cordons.put(host, reason)
        ours = cordon.reason == reason
        if ours == record.cordoned_by_us:
            return record
        return runtime.drains.commit(record, record.model_copy(update={"cordoned_by_us": ours}))

    def to_move(self, record: DrainRecord, fleet: Fleet) -> Sequence[DomainView]:
        return fleet.of(record.request.host)

    def look(self, runtime: Runtime, record: DrainRecord) -> tuple[Sequence[DomainView], frozenset[str]]:
        views = list(runtime.hypervisor.list_domains(record.request.host))
        return views, frozenset(vm.uuid for vm in record.vms) - {view.uuid for view in views}

    def newcomers(self, record: DrainRecord, views: Sequence[DomainView]) -> list[DomainView]:
        """One that has moved away and is back is one of them."""
        known = {vm.uuid for vm in record.vms if vm.fate not in (Fate.MOVED, Fate.GONE)}
        return [view for view in views if view.uuid not in known]

    def end(self, runtime: Runtime, record: DrainRecord) -> tuple[DrainState, tuple[str, ...]] | str:
        """The host is looked at once more: what counts is what is there, not what was done.

        Records first: a VM whose migration settles meanwhile is seen on the host, or is not there.
        """
        host = record.request.host
        active = [run for run in runtime.store.active() if host in (run.source, run.destination)]
        if active:
            return f"migration {active[0].id} of {active[0].vm} is {active[0].state}"
        own = [run for vm in record.vms if vm.fate is Fate.FAILED and (run := run_of(runtime, record, vm))]
        waiting = _waiting(runtime, host)
        views, pools = runtime.hypervisor.list_domains(host), runtime.hypervisor.list_pools(host)
        if joins := self.newcomers(record, views):
            return f"{joins[0].name} joins"
        left = what_is_left(host, views, pools, (*own, *waiting), record.vms)
        return (DrainState.PARTIAL if left else DrainState.EMPTY), left


def _waiting(runtime: Runtime, host: str) -> list[RunRecord]:
    return runtime.store.queued_among(runtime.queue.of_host(host))


class _Returning:
    """The VMs that were asked for come from wherever they are; nobody joins."""

    def make_ready(self, runtime: Runtime, record: DrainRecord) -> DrainRecord:
        lift_cordon(runtime, record.request.host, str(record.request.returns))
        return record

    def to_move(self, record: DrainRecord, fleet: Fleet) -> Sequence[DomainView]:
        found: dict[str, DomainView] = {}
        for view in fleet.everywhere():
            if view.uuid in record.wanted and (view.active or view.uuid not in found):
                found[view.uuid] = view
        return [view for view in found.values() if view.host != record.request.host]

    def look(self, runtime: Runtime, record: DrainRecord) -> tuple[Sequence[DomainView], frozenset[str]]:
        """Only those that wait are looked for; one whose host does not answer is taken to be there."""
        waiting = {vm.uuid: vm.source for vm in record.vms if vm.fate in (Fate.WAITING, Fate.STAYS) and vm.source}
        views: list[DomainView] = []
        answered = set()
        for host in sorted(set(waiting.values())):
            with suppress(HypervisorError):
                views += runtime.hypervisor.list_domains(host)
                answered.add(host)
        there = [view for view in views if waiting.get(view.uuid) == view.host]
        seen = {view.uuid for view in there}
        return there, frozenset(uuid for uuid, host in waiting.items() if host in answered and uuid not in seen)

    def newcomers(self, record: DrainRecord, views: Sequence[DomainView]) -> list[DomainView]:  # noqa: ARG002
        return []

    def end(self, runtime: Runtime, record: DrainRecord) -> tuple[DrainState, tuple[str, ...]] | str:
        """Looked at once more as well: back is who is there; the definition alone of one that runs elsewhere is not."""
        ran = {vm.uuid for vm in record.vms if vm.active and vm.fate is not Fate.MOVED}
        views = runtime.hypervisor.list_domains(record.request.host)
        there = {view.uuid for view in views if view.active or view.uuid not in ran}
        left = what_is_missing(vm for vm in record.vms if vm.uuid not in there)
        known = {vm.uuid for vm in record.vms} | there
        left += tuple(f"{name} is on no host that answers" for uuid, name in record.wanted.items() if uuid not in known)
        return (DrainState.PARTIAL if left else DrainState.RETURNED), left


EMPTYING, RETURNING = _Emptying(), _Returning()
