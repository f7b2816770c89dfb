"""One look at everything preflight needs; shared by the preflight step and by ``plan``. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tasks.model.domain import Domain, DomainView
from tasks.model.finding import Finding, Severity
from tasks.model.plan import Plan, is_allowed
from tasks.model.ports import Hypervisor
from tasks.model.request import Method, MigrationRequest
from tasks.model.run import StepName
from tasks.planning.domain_xml import parse_domain
from tasks.planning.method import Choice, choose_method
from tasks.planning.preflight import Situation, run_rules
from tasks.steps.locate import Sightings, choose_source, look_everywhere

STEPS: tuple[StepName, ...] = (
    StepName.PREFLIGHT,
    StepName.PREPARE,
    StepName.TRANSFER,
    StepName.VERIFY,
    StepName.FINISH,
)
"""The chain of a migration, in order; rollback stands beside it."""


def survey(hypervisor: Hypervisor, hosts: Sequence[str], request: MigrationRequest, *, run_id: str = "") -> Plan:
    """Look at the hosts and decide; all findings are reported together.

    Raises:
        InvalidRequest: the VM cannot be found where the request says.
        HypervisorError: a host that must be read does not answer.
    """
    sightings = look_everywhere(hypervisor, hosts, request.vm)
    view = choose_source(sightings, request.vm, request.source)
    if view.host == request.destination:
        return _already_there(request, view)
    choice = choose_method(request, view)
    if isinstance(choice, Finding):
        return _plan(request, view, None, (choice,))
    return _plan(request, view, choice, run_rules(_situation(hypervisor, request, sightings, view, choice, run_id)))


def _situation(
    hypervisor: Hypervisor,
    request: MigrationRequest,
    sightings: Sightings,
    view: DomainView,
    choice: Choice,
    run_id: str,
) -> Situation:
    live = parse_domain(hypervisor.fetch_xml(view.host, view.uuid))
    inactive = parse_domain(hypervisor.fetch_xml(view.host, view.uuid, inactive=True)) if view.persistent else None
    kind = {"virt_type": live.virt_type, "arch": live.arch or "", "emulator": live.emulator or ""}
    with ThreadPoolExecutor(max_workers=3) as pool:
        source = pool.submit(hypervisor.fetch_facts, view.host, **kind)
        destination = pool.submit(hypervisor.fetch_facts, request.destination, **kind)
        there = pool.submit(_on_destination, hypervisor, request.destination, view)
        media = _media(hypervisor, request.destination, live)
        return Situation(
            request=request,
            run_id=run_id,
            method=choice.method,
            storage=choice.storage,
            domain=live,
            inactive=inactive,
            view=view,
            on_destination=there.result(),
            elsewhere=tuple(v for v in sightings.views if v.host not in (view.host, request.destination)),
            source=source.result(),
            destination=destination.result(),
            media=media,
        )


def _on_destination(hypervisor: Hypervisor, destination: str, view: DomainView) -> tuple[DomainView, ...]:
    """Domains there with the same UUID or the same name: up to two."""
    found = {v.uuid: v for key in (view.uuid, view.name) if (v := hypervisor.find_domain(destination, key)) is not None}
    return tuple(found.values())


def _media(hypervisor: Hypervisor, destination: str, domain: Domain) -> dict[str, bool | None]:
    return {
        disk.source: hypervisor.file_exists(destination, disk.source)
        for disk in domain.disks
        if disk.source is not None and disk.type == "file"
    }


def _already_there(request: MigrationRequest, view: DomainView) -> Plan:
    finding = Finding(
        code="ALREADY_ON_DESTINATION",
        severity=Severity.BLOCKER,
        message=f"{view.name} is on {request.destination} already",
        hint="nothing to do",
    )
    return _plan(request, view, None, (finding,))


def _plan(request: MigrationRequest, view: DomainView, choice: Choice | None, findings: tuple[Finding, ...]) -> Plan:
    return Plan(
        vm=view.name,
        uuid=view.uuid,
        source=view.host,
        destination=request.destination,
        allowed=is_allowed(findings),
        method=choice.method if choice else None,
        storage=choice.storage if choice else None,
        reason=choice.reason if choice else "",
        policy=request.policy,
        findings=findings,
        steps=tuple(f"tasks.steps.{step}" for step in STEPS),
        creates=_creates(view, request, choice),
    )


def _creates(view: DomainView, request: MigrationRequest, choice: Choice | None) -> tuple[str, ...]:
    if choice is None:
        return ()
    made = [f"definition of {view.name} on {request.destination}"] if view.persistent else []
    if choice.method is Method.LIVE:
        made.append(f"running instance of {view.name} on {request.destination}")
    return tuple(made)
