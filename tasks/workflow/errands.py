"""What a drain is for: a host is emptied, or gets back what an earlier drain took away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tasks.model.domain import DomainView
from tasks.model.drain import DrainRecord, DrainState, Fate
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

    def still_there(self, runtime: Runtime, record: DrainRecord) -> Sequence[DomainView]:
        """Those that have not left, looked at now."""

    def newcomers(self, record: DrainRecord, views: Sequence[DomainView]) -> list[DomainView]:
        """VMs that join."""

    def end(self, runtime: Runtime, record: DrainRecord) -> tuple[DrainState, tuple[str, ...]] | None:
        """How it ends when nothing is under way any more, and what is left; None when something joins."""


def errand_of(record: DrainRecord) -> Errand:
    """What a drain is for."""
    return EMPTYING if record.request.returns is None else RETURNING


def lift_cordon(runtime: Runtime, host: str, drain_id: str) -> None:
    """Let VMs come to a host again, unless somebody else said that they shall not."""
    cordon = runtime.cordons.find(host)
    if cordon is not None and cordon.reason == cordon_reason(drain_id):
        runtime.cordons.lift(host)


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

    def still_there(self, runtime: Runtime, record: DrainRecord) -> Sequence[DomainView]:
        return list(runtime.hypervisor.list_domains(record.request.host))

    def newcomers(self, record: DrainRecord, views: Sequence[DomainView]) -> list[DomainView]:
        """One that has moved away and is back is one of them."""
        known = {vm.uuid for vm in record.vms if vm.fate not in (Fate.MOVED, Fate.GONE)}
        return [view for view in views if view.uuid not in known]

    def end(self, runtime: Runtime, record: DrainRecord) -> tuple[DrainState, tuple[str, ...]] | None:
        """The host is looked at once more: what counts is what is there, not what was done."""
        host = record.request.host
        views, pools = runtime.hypervisor.list_domains(host), runtime.hypervisor.list_pools(host)
        if self.newcomers(record, views):
            return None
        left = what_is_left(host, views, pools, (*runtime.store.active(), *_waiting(runtime, host)))
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

    def still_there(self, runtime: Runtime, record: DrainRecord) -> Sequence[DomainView]:
        at = {vm.uuid: vm.source for vm in record.vms if vm.source}
        hosts = sorted({vm.source for vm in record.vms if vm.source and vm.fate is not Fate.MOVED})
        views = [view for host in hosts for view in runtime.hypervisor.list_domains(host)]
        return [view for view in views if at.get(view.uuid) == view.host]

    def newcomers(self, record: DrainRecord, views: Sequence[DomainView]) -> list[DomainView]:  # noqa: ARG002
        return []

    def end(self, runtime: Runtime, record: DrainRecord) -> tuple[DrainState, tuple[str, ...]] | None:
        """Looked at once more as well: back is who is there."""
        there = {view.uuid for view in runtime.hypervisor.list_domains(record.request.host)}
        left = what_is_missing(vm for vm in record.vms if vm.uuid not in there)
        known = {vm.uuid for vm in record.vms} | there
        left += tuple(f"{name} is on no host that answers" for uuid, name in record.wanted.items() if uuid not in known)
        return (DrainState.PARTIAL if left else DrainState.RETURNED), left


EMPTYING, RETURNING = _Emptying(), _Returning()
