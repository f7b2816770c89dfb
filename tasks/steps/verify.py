"""See the VM as it should be on the destination, before anything of the source is touched."""

from __future__ import annotations

import time
from collections.abc import Mapping

from tasks.model.disks import DiskCopy, DiskSize
from tasks.model.domain import DomainState, DomainView
from tasks.model.errors import OutcomeUnknown
from tasks.planning.allocation import CODES as ALLOCATION_CODES
from tasks.planning.allocation import check_allocation
from tasks.planning.destination_xml import same_definition
from tasks.planning.domain_xml import parse_domain
from tasks.planning.outcome import describe, is_ours
from tasks.planning.qcow2 import HEADER_BYTES, backing_path, parse_header
from tasks.steps.contents import compare_contents
from tasks.steps.copying import check_contents, find_changed, find_changed_devices
from tasks.steps.run import StepRun
from tasks.steps.saved import describe_loss
from tasks.steps.shutdown import may_turn_back
from tasks.steps.snapshots import check_snapshots
from tasks.steps.verdict import Next, Verdict
from tasks.steps.windows import reopen_windows

AGENT_TIMEOUT_S = 5
"""What libvirt itself waits for an agent's first word."""


def run(run: StepRun) -> Verdict:
    """Compare both hosts with what was intended.

    Raises:
        OutcomeUnknown: ``VERIFY_FAILED`` with what is wrong; rollback decides what can be done about it.
    """
    run.interrupt_if_asked(cancellable=may_turn_back(run))
    source, destination = run.look()
    problems = (
        _problems(run, source, destination)
        or _definition_problems(run, source, destination)
        or _disk_problems(run, destination)
        or _network_problems(run, destination)
        or _agent_problems(run, destination)
    )
    if problems:
        seen = f"{describe(source, run.source)}; {describe(destination, run.destination)}"
        raise OutcomeUnknown("VERIFY_FAILED", f"{'; '.join(problems)} ({seen})", "look at both hosts")
    check_snapshots(run)
    return Next()


def _problems(run: StepRun, source: DomainView | None, destination: DomainView | None) -> list[str]:
    if destination is None:
        return [f"{run.record.vm} is not on {run.destination}"]
    problems = []
    if not is_ours(destination, run.record.id):
        problems.append(f"the VM on {run.destination} does not bear this migration's mark")
    if source is not None and source.active:
        problems.append(f"the VM is still active on {run.source}")
    if run.record.mirrored_off and destination.active:
        problems.append(f"the VM is active on {run.destination}, where it was shut off when it had come")
    if (loss := describe_loss(run, destination)) is not None:
        problems.append(f"the VM on {run.destination} {loss}")
    if source is not None and source.persistent and not destination.persistent:
        problems.append(f"the VM is not persistent on {run.destination}")
    if destination.autostart and run.intent("destination_autostart") is None and source is not None:
        problems.append(f"{run.destination} would start it at boot, before {run.source} has let go of it")
    if source is not None and source.name != destination.name:
        problems.append(f"its name is {destination.name} there and {source.name} here")
    return problems


def _definition_problems(run: StepRun, source: DomainView | None, destination: DomainView | None) -> list[str]:
    """The persistent definition is compared as long as the source still has it to compare with."""
    if source is None or destination is None or not source.persistent:
        return []
    hypervisor = run.hypervisor
    inactive = hypervisor.fetch_xml(run.source, run.uuid, inactive=True, secure=True)
    intended = run.destination_xml(inactive, marked=False)
    actual = hypervisor.fetch_xml(run.destination, run.uuid, inactive=True, secure=True)
    return same_definition(intended, actual)


def _disk_problems(run: StepRun, destination: DomainView | None) -> list[str]:
    """Each copied disk is its new volume there, of the size that the guest saw before."""
    copies = run.record.copies
    if destination is None or not (copies or run.record.files):
        return []
    problems: list[str] = []
    reopen_windows(run)
    now = {d.target: d.source for d in parse_domain(run.hypervisor.fetch_xml(run.destination, run.uuid)).disks}
    if run.record.request.verify != "basic" and not _compared_before(run):
        check_contents(run)
        problems += find_changed_devices(run, lambda _: run.interrupt_if_asked(cancellable=may_turn_back(run)))
        if _can_compare(run):
            compare_contents(run)
    sizes = run.hypervisor.fetch_disk_sizes(run.destination, run.uuid, [copy.target for copy in copies])
    _note_allocation(run, sizes)
    problems += find_changed(run)
    for copy in copies:
        if now.get(copy.target) not in (copy.path, f"{copy.pool}/{copy.volume}"):
            problems.append(f"{copy.target} is {now.get(copy.target)} instead of {copy.path}")
        elif copy.backing and (below := _below(run, copy)) != copy.backing[0].path:
            problems.append(f"{copy.target} lies on {below} instead of {copy.backing[0].path}")
        elif (size := sizes.get(copy.target)) is None or not _fits(copy, size):
            seen = "of unknown size" if size is None else f"of {size.capacity_bytes} bytes"
            problems.append(f"{copy.target} is {seen} instead of {copy.capacity_bytes}")
    return problems


def _note_allocation(run: StepRun, sizes: Mapping[str, DiskSize]) -> None:
    """Space is no reason to stop a VM that has moved, and one to say so."""
    known = [finding for finding in run.record.findings if finding.code not in ALLOCATION_CODES]
    found = (*known, *check_allocation(run.record.copies, sizes))
    if found != run.record.findings:
        run.save(findings=found)


def _can_compare(run: StepRun) -> bool:
    """Both hosts have the images, as long as nothing of the source was touched."""
    return run.record.mirrored_off and run.intent("source_undefine") is None


def _network_problems(run: StepRun, destination: DomainView | None) -> list[str]:
    """The libvirt networks that its cards are in are active; one that is shut off gets to them when it is started."""
    if destination is None or not destination.active:
        return []
    domain = parse_domain(run.hypervisor.fetch_xml(run.destination, run.uuid))
    problems = []
    for name in sorted({card.source for card in domain.interfaces if card.type == "network" and card.source}):
        network = run.hypervisor.find_network(run.destination, name)
        if network is None or not network.active:
            problems.append(f"network {name} is {'not active' if network else 'not there'}")
    return problems


def _agent_problems(run: StepRun, destination: DomainView | None) -> list[str]:
    """An agent that was connected before answers again; a guest that is busy gets some time for it."""
    if not run.record.agent or destination is None or destination.state is not DomainState.RUNNING:
        return []
    until = time.monotonic() + run.limits.settle_timeout_s
    while not run.hypervisor.ping_agent(run.destination, run.uuid, AGENT_TIMEOUT_S):
        run.interrupt_if_asked(cancellable=False)
        if time.monotonic() > until:
            return [f"the guest agent of {run.record.vm} no longer answers"]
        run.stopping.wait(0.5)
    return []


def _compared_before(run: StepRun) -> bool:
    """Whether an earlier pass got as far as *finish*, from where the VM goes on and disks grow: they differ now."""
    last = ("source_save_remove", "destination_resize", "destination_start", "source_undefine")
    return any(entry.kind in last for entry in run.record.journal)


def _fits(copy: DiskCopy, size: DiskSize) -> bool:
    """Files have exactly the size that the guest saw before, or was to see; a device may be larger."""
    if copy.kind == "file":
        return size.capacity_bytes in (copy.capacity_bytes, copy.grow_bytes)
    return size.capacity_bytes >= copy.capacity_bytes


def _below(run: StepRun, copy: DiskCopy) -> str | None:
    """The file that the copy's own header names."""
    header = parse_header(run.hypervisor.read_piece(run.destination, copy.path, 0, HEADER_BYTES))
    return backing_path(header.backing, copy.path) if header is not None and header.backing else None
