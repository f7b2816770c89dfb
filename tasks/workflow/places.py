"""Where the VMs of a drain may go: all hosts looked at once, then placement and preflight until both agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from tasks.model.domain import DomainView
from tasks.model.drain import DrainRecord, DrainRequest, DrainVm, Fate
from tasks.model.errors import HostUnreachable, HypervisorError, InvalidRequest, OperatorMustFix, RetryLater
from tasks.model.finding import Severity
from tasks.model.host import HostFacts
from tasks.model.plan import Plan
from tasks.model.ports import Hypervisor
from tasks.model.request import parse_request
from tasks.model.run import RunRecord
from tasks.parallel import gather
from tasks.planning.draining import (
    Coming,
    Needs,
    Reserve,
    closed_site,
    expected_run,
    guest_of,
    is_lifted,
    may_be_shut_off,
    may_take,
    migration_values,
    on_the_way,
    site_of,
    why_left_alone,
)
from tasks.planning.groups import NO_GROUPS, GroupRule, Membership, groups_in, membership_of
from tasks.planning.placement import Guest, Placement, Site, place
from tasks.steps.survey import survey
from tasks.workflow.runtime import Runtime

PATIENCE_S = 60.0
"""How long hosts that hang may hold up a look at all of them."""
AT_ONCE = 16
ALL_QUEUED = 100_000
"""Each of them takes room on its destination."""
_NOTHING = Coming()


@dataclass(frozen=True, slots=True)
class Fleet:
    """All hosts of the inventory, looked at once."""

    facts: Mapping[str, HostFacts]
    views: Mapping[str, Sequence[DomainView]]
    groups: Mapping[str, Membership]
    """UUID -> groups, of all VMs that run."""
    silent: Mapping[str, str]
    """Host -> why nothing is known of it."""

    def everywhere(self) -> Iterator[DomainView]:
        """The VMs of all hosts of which something is known."""
        for views in self.views.values():
            yield from views

    def why_left_alone(self, request: DrainRequest, view: DomainView) -> str:
        """Why a VM is not to be moved; empty when it is."""
        elsewhere = (v.host for v in self.everywhere() if v.uuid == view.uuid and v.active and v.host != view.host)
        return why_left_alone(request, view, next(elsewhere, ""))

    def of(self, host: str) -> Sequence[DomainView]:
        """The VMs of one host; none when nothing is known of it."""
        return self.views.get(host, ())


@dataclass(frozen=True, slots=True)
class _Seen:
    """One host."""

    facts: HostFacts
    views: Sequence[DomainView]
    groups: Mapping[str, Membership]


def look_at_fleet(runtime: Runtime, record: DrainRecord) -> Fleet:
    """The host that is emptied must answer; others that do not are no destinations for now."""
    hypervisor, host = runtime.hypervisor, record.request.host

    rules = [GroupRule(n, frozenset(g.vms), g.keep == "apart") for n, g in runtime.settings.groups.items()]

    def look(name: str) -> _Seen | HypervisorError:
        try:
            facts, views = hypervisor.fetch_facts(name), list(hypervisor.list_domains(name))
            said = {view.uuid: _said_groups(hypervisor, view) for view in views if view.active}
        except HypervisorError as error:
            return error
        own = {view.uuid: membership_of(view, rules, said[view.uuid]) for view in views if view.active}
        return _Seen(facts, views, own)

    order = sorted(runtime.hosts, key=lambda name: name != host)  # others that hang must not keep it from being asked
    answers = gather({name: partial(look, name) for name in order}, at_once=AT_ONCE, timeout_s=PATIENCE_S)
    seen = {name: answer for name, answer in answers.items() if isinstance(answer, _Seen)}
    silent = {name: answer.message for name, answer in answers.items() if isinstance(answer, HypervisorError)}
    silent |= {name: f"{name} does not answer" for name in runtime.hosts if name not in answers}
    if host not in seen:
        mine = answers.get(host)
        hint = f"it is asked again; vmferry doctor --to {host} looks at its libvirt daemon"
        raise mine if isinstance(mine, HypervisorError) else HostUnreachable("HOST_SILENT", silent[host], hint)
    return Fleet(
        facts={name: answer.facts for name, answer in seen.items()},
        views={name: answer.views for name, answer in seen.items()},
        groups={uuid: groups for answer in seen.values() for uuid, groups in answer.groups.items()},
        silent=silent,
    )


def _said_groups(hypervisor: Hypervisor, view: DomainView) -> Membership:
    """What the VM's metadata says; nothing when it has gone since it was listed."""
    try:
        return groups_in(hypervisor.fetch_xml(view.host, view.uuid))
    except OperatorMustFix:
        return NO_GROUPS


def _sites(runtime: Runtime, record: DrainRecord, fleet: Fleet) -> list[Site]:
    """The hosts that VMs may go to, with everything that is on its way there counted in."""
    placement = runtime.settings.placement
    reserve = Reserve(placement.memory_reserve_mib, placement.vcpu_overcommit)
    cordons = {host: cordon for host, cordon in runtime.cordons.all().items() if not is_lifted(record.request, cordon)}
    drained = runtime.drains.under_way()
    views = {view.uuid: view for view in sorted(fleet.everywhere(), key=lambda view: view.active)}
    coming = on_the_way(_expected(runtime, record), views)
    sites = []
    for name in may_take(record.request, runtime.hosts):
        why = fleet.silent.get(name, "")
        if not why and name in cordons:
            why = f"it is {cordons[name].words}"
        if not why and drained.get(name, record.id) != record.id:
            why = f"it is being emptied by drain {drained[name]}"
        if why or name not in fleet.facts:
            sites.append(closed_site(name, why or f"{name} does not answer"))
        else:
            sites.append(site_of(fleet.facts[name], fleet.of(name), coming.get(name, _NOTHING), reserve, fleet.groups))
    return sites


def _expected(runtime: Runtime, record: DrainRecord) -> list[RunRecord]:
    """Migrations under way or queued, and those that other drains have found places for and not asked for yet."""
    runs = {run.id: run for run in (*runtime.store.active(), *runtime.store.queued(limit=ALL_QUEUED))}
    for host, drain_id in runtime.drains.under_way().items():
        other = runtime.drains.find(drain_id) if drain_id != record.id else None
        for vm in other.vms if other is not None else ():
            if vm.fate is Fate.WAITING and vm.destination:
                request = parse_request({"vm": vm.uuid, "destination": vm.destination, "source": vm.source or host})
                runs[f"{drain_id}/{vm.uuid}"] = expected_run(request, vm)
    return list(runs.values())


def find_places(
    runtime: Runtime, record: DrainRecord, fleet: Fleet, views: Sequence[DomainView]
) -> tuple[DrainVm, ...]:
    """A place for each, that preflight agrees to; whoever gets none stays, and it is said why.

    Those that may be shut down are looked at a second time, shut off, when there is no place for them otherwise.
    """
    moving = [view for view in views if not fleet.why_left_alone(record.request, view)]
    sites, search = _sites(runtime, record, fleet), _Search({view.uuid: Needs() for view in moving})
    placement = _agree(runtime, record, fleet, moving, sites, search)
    stuck = [v for v in moving if may_be_shut_off(record.request, v) and not search.has_place(v.uuid, placement)]
    if stuck:
        search.go_shut_off(view.uuid for view in stuck)
        placement = _agree(runtime, record, fleet, moving, sites, search)
    return tuple(_fate(view, fleet.why_left_alone(record.request, view), placement, search) for view in views)


@dataclass
class _Search:
    """What is known so far of the VMs and their places."""

    needs: dict[str, Needs]
    """By UUID."""
    agreed: dict[tuple[str, str], bool] = field(default_factory=dict)
    """(UUID, host) -> whether preflight agrees."""
    sizes: dict[tuple[str, str], int] = field(default_factory=dict)
    """(UUID, host) -> bytes that it has to move there."""
    not_live: dict[str, str] = field(default_factory=dict)
    """UUID of those that go shut off -> why they cannot go otherwise."""
    unread: set[str] = field(default_factory=set)
    """UUID of those that somewhere could not be looked at, which is no reason to shut one down."""

    def has_place(self, uuid: str, placement: Placement) -> bool:
        """Whether it has one that preflight agrees to."""
        return self.agreed.get((uuid, placement.hosts.get(uuid, "")), False)

    def go_shut_off(self, uuids: Iterable[str]) -> None:
        """Forget what was learnt of these, and ask again; only those that preflight has refused somewhere."""
        for uuid in uuids:
            unfit = self.needs[uuid].unfit
            if unfit and uuid not in self.unread:
                self.not_live[uuid] = next(iter(unfit.values()))
                self.needs[uuid] = Needs()
        self.agreed = {pair: said for pair, said in self.agreed.items() if pair[0] not in self.not_live}


def _agree(
    runtime: Runtime,
    record: DrainRecord,
    fleet: Fleet,
    moving: Sequence[DomainView],
    sites: Sequence[Site],
    search: _Search,
) -> Placement:
    """Places for all together, until preflight has nothing against them."""
    views, agreed = {view.uuid: view for view in moving}, search.agreed
    placement = place(_guests(moving, search.needs, fleet), sites)
    for _ in range(4 * len(sites) + 4):
        asked = [(uuid, host) for uuid, host in placement.hosts.items() if (uuid, host) not in agreed]
        if not asked:
            break
        for uuid, host in asked:
            try:
                plan = _preflight(runtime, record, views[uuid], host, shut_down=uuid in search.not_live)
            except (HypervisorError, InvalidRequest) as error:
                if isinstance(error, RetryLater):  # when it is the drain's own host that is away, nothing is known
                    runtime.hypervisor.fetch_hostname(record.request.host)
                agreed[uuid, host] = False
                search.unread.add(uuid)
                search.needs[uuid] = _without(search.needs[uuid], host, error.message)
                continue
            agreed[uuid, host] = plan.allowed
            if plan.outlook is not None:
                search.sizes[uuid, host] = plan.outlook.memory_bytes + plan.outlook.disk_bytes
            search.needs[uuid] = _learnt(search.needs[uuid], host, plan)
        planned = {uuid: host for uuid, host in placement.hosts.items() if agreed[uuid, host]}
        placement = place(_guests(moving, search.needs, fleet), sites, planned=planned)
    return placement


def _guests(moving: Sequence[DomainView], needs: Mapping[str, Needs], fleet: Fleet) -> list[Guest]:
    return [guest_of(view, needs[view.uuid], fleet.groups.get(view.uuid, NO_GROUPS)) for view in moving]


def _preflight(runtime: Runtime, record: DrainRecord, view: DomainView, host: str, *, shut_down: bool) -> Plan:
    vm = _known(view).model_copy(update={"fate": Fate.WAITING, "destination": host, "shut_down": shut_down})
    request = parse_request(migration_values(record, vm))
    cordon = runtime.cordons.find(host)
    counts = cordon is not None and not is_lifted(record.request, cordon)
    post_copy = runtime.settings.policy(request.policy).asks_for_post_copy
    hosts = runtime.hosts
    return survey(runtime.hypervisor, hosts, request, cordon=cordon if counts else None, post_copy=post_copy)


def _learnt(needs: Needs, host: str, plan: Plan) -> Needs:
    if not plan.allowed:
        blockers = [finding.message for finding in plan.findings if finding.severity is Severity.BLOCKER]
        more = f" (and {len(blockers) - 1} more)" if len(blockers) > 1 else ""
        return _without(needs, host, f"{blockers[0]}{more}")
    pools: dict[str, int] = {}
    for copy in plan.copies:
        if copy.pool:
            pools[copy.pool] = pools.get(copy.pool, 0) + copy.allocation_bytes
    return replace(needs, pools=pools)


def _without(needs: Needs, host: str, why: str) -> Needs:
    return replace(needs, unfit={**needs.unfit, host: why})


def _fate(view: DomainView, left_alone: str, placement: Placement, search: _Search) -> DrainVm:
    vm = _known(view)
    if left_alone:
        return vm.model_copy(update={"reason": left_alone})
    choice = next(choice for choice in placement.choices if choice.uuid == view.uuid)
    found: dict[str, Any] = {"reason": choice.reason, "others": dict(choice.others)}
    if choice.host is not None and search.has_place(view.uuid, placement):
        size_bytes = search.sizes.get((view.uuid, choice.host), 0)
        found |= {"fate": Fate.WAITING, "destination": choice.host, "expected_bytes": size_bytes}
        if why := search.not_live.get(view.uuid):
            reason = f"{choice.reason}; it is shut down for it, since it cannot move live: {why}"
            found |= {"shut_down": True, "reason": reason}
    return vm.model_copy(update=found)


def _known(view: DomainView) -> DrainVm:
    """A VM as it is on its host, before it has a place."""
    memory_kib, source = view.memory_kib, view.host
    return DrainVm(
        uuid=view.uuid, name=view.name, active=view.active, memory_kib=memory_kib, fate=Fate.STAYS, source=source
    )
