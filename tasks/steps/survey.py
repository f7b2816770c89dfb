"""One look at everything preflight needs; shared by the preflight step and by ``plan``. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tasks.model.cordon import Cordon
from tasks.model.disks import DiskCopy, ImageFile, Volume
from tasks.model.domain import Domain, DomainState, DomainView, Mark
from tasks.model.finding import Finding, Severity
from tasks.model.plan import Plan, is_allowed
from tasks.model.pools import PoolAction
from tasks.model.ports import Hypervisor
from tasks.model.request import AUTO, MigrationRequest, Storage
from tasks.model.run import StepName
from tasks.parallel import ContextPool
from tasks.planning.copies import copied_disks, copies_of, pools_of
from tasks.planning.data_path import choose_data_path, explain
from tasks.planning.domain_xml import parse_domain
from tasks.planning.method import MethodChoice, choose_method
from tasks.planning.mounts import describe_mount, plan_mounts, settle_mounts
from tasks.planning.outlook import outlook
from tasks.planning.preflight import Situation, firmware
from tasks.planning.preflight.post_copy import may_switch
from tasks.planning.remedies import apply_remedies, judge
from tasks.planning.remedies.media import is_medium_missing
from tasks.planning.storage import StorageChoice, can_be_copied, choose_storage
from tasks.steps.devices import look_at_device
from tasks.steps.images import read_chain
from tasks.steps.locate import Sightings, choose_source, look_everywhere

STEPS: tuple[StepName, ...] = (
    StepName.PREFLIGHT,
    StepName.PREPARE,
    StepName.TRANSFER,
    StepName.VERIFY,
    StepName.FINISH,
)
"""The chain of a migration, in order; rollback stands beside it."""
STEP_TASKS = tuple(f"tasks.steps.{step}" for step in STEPS)
"""Their names as Celery tasks."""


def survey(
    hypervisor: Hypervisor,
    hosts: Sequence[str],
    request: MigrationRequest,
    *,
    mark: Mark | None = None,
    cordon: Cordon | None = None,
    post_copy: bool = False,
) -> Plan:
    """Look at the hosts and decide; all findings are reported together. ``mark`` is None for a dry run.

    ``cordon`` is the destination's; ``post_copy``: the policy may switch to it.

    Raises:
        InvalidRequest: the VM cannot be found where the request says.
        HypervisorError: a host that must be read does not answer.
    """
    sightings = look_everywhere(hypervisor, hosts, request.vm)
    view = choose_source(sightings, request.vm, request.source, request.destination)
    if view.host == request.destination:
        return _already_there(request, view)
    how, refusals = _choose_method(request, view)
    if how is None:
        return _refused(request, view, refusals)
    seen = _look(hypervisor, request, sightings, view, how, mark)
    situation = plan_mounts(replace(seen, cordon=cordon, post_copy=post_copy))
    situation = apply_remedies(_look_at_media(hypervisor, situation))
    disks, more = _choose_storage(situation)
    if disks is None:
        return _refused(request, view, (*refusals, *more), how)
    situation = settle_mounts(replace(situation, storage=disks.storage))
    if disks.storage is not Storage.SHARED:
        situation = _measure(hypervisor, situation)
    if not view.active:
        situation = _see_chains(hypervisor, situation)
    situation = replace(situation, data_path=choose_data_path(situation))
    reason = "; ".join(filter(None, (how.reason, disks.reason, explain(situation))))
    refusals = (*refusals, *more)
    return _plan(situation, f"not as asked for, seen as it could go: {reason}" if refusals else reason, refusals)


def _choose_method(request: MigrationRequest, view: DomainView) -> tuple[MethodChoice | None, tuple[Finding, ...]]:
    """The method; with a refusal the one that would do, so that everything else that is wrong is said as well."""
    how = choose_method(request, view)
    if isinstance(how, MethodChoice):
        return how, ()
    other = choose_method(request.model_copy(update={"method": AUTO}), view)
    return (other if isinstance(other, MethodChoice) else None), (how,)


def _choose_storage(s: Situation) -> tuple[StorageChoice | None, tuple[Finding, ...]]:
    """The same for the disks."""
    disks = choose_storage(s.request, s.method, s.definitions, s.source, s.destination)
    if isinstance(disks, StorageChoice):
        return disks, ()
    unasked = s.request.model_copy(update={"storage": AUTO, "pools": {}, "devices": {}})
    other = choose_storage(unasked, s.method, s.definitions, s.source, s.destination)
    return (other if isinstance(other, StorageChoice) else None), (disks,)


def decisions(plan: Plan) -> dict[str, Any]:
    """What of a plan stands in the record."""
    names: tuple[str, ...] = ("method", "storage", "data_path", "copies", "pools", "mounts", "nvram", "tpm", "agent")
    names += ("emulated", "post_copy", "files", "remedied")
    return {name: getattr(plan, name) for name in names}


def _look(
    hypervisor: Hypervisor,
    request: MigrationRequest,
    sightings: Sightings,
    view: DomainView,
    how: MethodChoice,
    mark: Mark | None,
) -> Situation:
    """The VM and both hosts; nothing is known about copies yet."""
    live = parse_domain(hypervisor.fetch_xml(view.host, view.uuid))
    inactive = parse_domain(hypervisor.fetch_xml(view.host, view.uuid, inactive=True)) if view.persistent else None
    kind = {"virt_type": live.virt_type, "arch": live.arch or "", "emulator": live.emulator or ""}
    with ContextPool(max_workers=4) as pool:
        source = pool.submit(hypervisor.fetch_facts, view.host, **kind)
        destination = pool.submit(hypervisor.fetch_facts, request.destination, **kind)
        cpu = pool.submit(_compare_cpu, hypervisor, request.destination, view, how, live, inactive or live)
        there = pool.submit(_on_destination, hypervisor, request.destination, view)
        macs = pool.submit(_mac_users, hypervisor, request.destination, view, (live, inactive) if inactive else (live,))
        media = _media(hypervisor, request.destination, (live, inactive) if inactive else (live,))
        return Situation(
            request=request,
            run_id=mark.id if mark else "",
            mark=mark,
            method=how.method,
            storage=Storage.SHARED,
            domain=live,
            inactive=inactive,
            view=view,
            on_destination=there.result(),
            elsewhere=tuple(v for v in sightings.views if v.host not in (view.host, request.destination)),
            source=source.result(),
            destination=destination.result(),
            media=media,
            mac_users=macs.result(),
            cpu_fits=cpu.result(),
        )


def _compare_cpu(
    hypervisor: Hypervisor, destination: str, view: DomainView, how: MethodChoice, live: Domain, inactive: Domain
) -> bool | None:
    """Of a VM that goes with its memory the CPU that it runs with; else the one that it would start with."""
    domain = live if how.method.carries_memory else inactive
    if domain.cpu_mode != "custom":
        return None
    # What a running VM was given in the end, features included, only this form of its definition says.
    memory = how.method.carries_memory
    xml = (
        parse_domain(hypervisor.fetch_xml(view.host, view.uuid, migratable=True)).cpu_xml if memory else domain.cpu_xml
    )
    kind = {"virt_type": domain.virt_type, "arch": domain.arch or "", "emulator": domain.emulator or ""}
    return hypervisor.compare_cpu(destination, xml, machine=domain.machine or "", **kind)


def _measure(hypervisor: Hypervisor, situation: Situation) -> Situation:
    """Sizes of copied disks, and the free space that their pools have now: libvirt remembers old figures."""
    host, disks = situation.view.host, copied_disks(situation)
    if situation.live:
        targets = [disk.target for disk in disks]
        situation = replace(situation, sizes=hypervisor.fetch_disk_sizes(host, situation.view.uuid, targets))
    named = {d.target: s for d in disks if (s := situation.request.devices.get(d.target)) is not None}
    seen = {target: look_at_device(hypervisor, situation.destination.name, path) for target, path in named.items()}
    situation = replace(situation, devices={target: facts for target, facts in seen.items() if facts is not None})
    chains = {disk.target: read_chain(hypervisor, host, disk) for disk in disks}
    situation = replace(situation, chains=chains, bases=_bases(hypervisor, situation.destination.name, chains))
    used = {copy.pool for copy in copies_of(situation)} - {""} - situation.planned_pools
    there = situation.destination
    pools = tuple(hypervisor.refresh_pool(there.name, p.name) if p.name in used else p for p in there.pools)
    return replace(situation, destination=replace(there, pools=pools))


def _see_chains(hypervisor: Hypervisor, situation: Situation) -> Situation:
    """Of a VM that is shut off only the images say what lies below its disks; those that stay are read here."""
    staying = [d for d in situation.disks if can_be_copied(d) and d.target not in situation.chains]
    found = {disk.target: read_chain(hypervisor, situation.view.host, disk) for disk in staying}
    return replace(situation, chains={**situation.chains, **found})


def _bases(hypervisor: Hypervisor, destination: str, chains: Mapping[str, tuple[ImageFile, ...]]) -> dict[str, Volume]:
    """What the destination has at the places of the files below the disks."""
    paths = {image.path for chain in chains.values() for image in chain[1:]}
    found = {path: hypervisor.find_volume_at(destination, path) for path in sorted(paths)}
    return {path: volume for path, volume in found.items() if volume is not None}


def _on_destination(hypervisor: Hypervisor, destination: str, view: DomainView) -> tuple[DomainView, ...]:
    """Domains there with the same UUID or the same name: up to two."""
    found = {v.uuid: v for key in (view.uuid, view.name) if (v := hypervisor.find_domain(destination, key)) is not None}
    return tuple(found.values())


def _mac_users(
    hypervisor: Hypervisor, destination: str, view: DomainView, definitions: Sequence[Domain]
) -> dict[str, tuple[str, ...]]:
    """Other VMs of the destination that have a network card of the same address."""
    macs = {card.mac for one in definitions for card in one.interfaces if card.mac}
    found = {mac: hypervisor.find_users(destination, mac) for mac in sorted(macs)}
    return {mac: tuple(name for name in names if name != view.name) for mac, names in found.items()}


def _media(hypervisor: Hypervisor, destination: str, definitions: Sequence[Domain]) -> dict[str, bool | None]:
    """Files that the destination must have: those of disks and drives, and those that the VM boots from."""
    paths = [d.source for one in definitions for d in one.disks if d.source is not None and d.type == "file"]
    resources = [r for one in definitions for r in one.resources if r.kind in firmware.BOOT_KINDS]
    paths += [r.value for r in resources if r.value.startswith("/")]
    return {path: hypervisor.file_exists(destination, path) for path in dict.fromkeys(paths)}


def _look_at_media(hypervisor: Hypervisor, situation: Situation) -> Situation:
    """The source's files of images that the destination lacks: a remedy can copy what can be read."""
    lacking = {d.source for d in situation.disks if d.source and is_medium_missing(situation, d) == "MEDIUM_MISSING"}
    found = {path: hypervisor.find_volume_at(situation.source.name, path) for path in sorted(lacking)}
    return replace(situation, media_files={path: volume for path, volume in found.items() if volume is not None})


def _already_there(request: MigrationRequest, view: DomainView) -> Plan:
    finding = Finding(
        code="ALREADY_ON_DESTINATION",
        severity=Severity.BLOCKER,
        message=f"{view.name} is on {request.destination} already",
        hint="nothing to do",
    )
    return _refused(request, view, (finding,))


def _refused(
    request: MigrationRequest, view: DomainView, why: tuple[Finding, ...], how: MethodChoice | None = None
) -> Plan:
    """Refused before there is enough to run the rules on."""
    return Plan(
        vm=view.name,
        uuid=view.uuid,
        source=view.host,
        destination=request.destination,
        allowed=False,
        method=how.method if how else None,
        policy=request.policy,
        findings=why,
        steps=STEP_TASKS,
    )


def _plan(s: Situation, reason: str, refusals: tuple[Finding, ...] = ()) -> Plan:
    findings, copies = (*refusals, *judge(s)), copies_of(s)
    return Plan(
        vm=s.view.name,
        uuid=s.view.uuid,
        source=s.view.host,
        destination=s.request.destination,
        allowed=is_allowed(findings),
        method=s.method,
        storage=s.storage,
        data_path=s.data_path,
        reason=reason,
        policy=s.request.policy,
        findings=findings,
        steps=STEP_TASKS,
        copies=copies,
        outlook=outlook(s, copies),
        nvram="" if s.live else firmware.nvram_of(s) or "",
        post_copy=may_switch(s),
        emulated=s.domain.virt_type == "qemu",
        agent=s.live and s.domain.agent and s.view.state is not DomainState.PAUSED,
        tpm="" if s.carries_memory else firmware.tpm_of(s) or "",
        pools=pools_of(s, copies),
        mounts=s.mounts,
        files=s.files,
        remedied=s.remedied,
        creates=(
            *_pools(s),
            *_networks(s),
            *_files(s),
            *(describe_copy(c, s.request.destination) for c in copies),
            *_creates(s),
        ),
    )


def _creates(s: Situation) -> tuple[str, ...]:
    made = [f"definition of {s.view.name} on {s.request.destination}"] if s.view.persistent else []
    if s.mirrored_off:
        made += [f"paused instance of {s.view.name} on {host}" for host in (s.view.host, s.request.destination)]
    if s.carries_memory:
        made.append(f"running instance of {s.view.name} on {s.request.destination}")
    return tuple(made)


def _files(s: Situation) -> tuple[str, ...]:
    return tuple(f"volume {file.volume} in pool {file.pool} on {s.destination.name}" for file in s.files)


def _networks(s: Situation) -> tuple[str, ...]:
    words = {"make": "network", "start": "start of network"}
    return tuple(f"{words[n.action]} {n.name} on {s.destination.name}" for n in s.remedied.networks)


def _pools(s: Situation) -> tuple[str, ...]:
    planned = (mount for mount in s.mounts if mount.action is not PoolAction.NONE)
    return tuple(describe_mount(mount, s.destination.name) for mount in planned)


def describe_copy(copy: DiskCopy, destination: str) -> str:
    """The new volume, for people."""
    size = f"{copy.format}, {-(-copy.capacity_bytes // 1024**2)} MiB"
    if copy.device:
        return f"contents of {copy.path} on {destination} ({size})"
    return f"volume {copy.volume} in pool {copy.pool} on {destination} ({size})"
