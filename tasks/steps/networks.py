"""libvirt networks that are made or started on the destination, and taken away when the VM does not come."""

from __future__ import annotations

from functools import partial

from tasks.model.domain import Domain
from tasks.model.errors import OperatorMustFix, RetryLater
from tasks.model.networks import NetworkView
from tasks.model.remedies import NetworkOrder
from tasks.model.run import JournalEntry
from tasks.planning.network_xml import copy_network_xml
from tasks.steps.made import Made, leave, users_of
from tasks.steps.run import StepRun


def make_networks(run: StepRun) -> None:
    """What the remedy planned, as far as it is left to do.

    Raises:
        OperatorMustFix: ``NETWORK_EXISTS``, ``NETWORK_NOT_STARTED``, ``NO_NETWORK``.
    """
    for order in run.record.remedied.networks:
        run.interrupt_if_asked()
        _see_to(run, order)


def _see_to(run: StepRun, order: NetworkOrder) -> None:
    """Look anew: since preflight another migration may have made it, or taken back what it had made."""
    begun = run.intent("destination_network", run.destination, order.name)
    there = run.hypervisor.find_network(run.destination, order.name)
    if begun is not None:
        _make(run, order, Made.model_validate_json(begun.value))
    elif there is None:
        _make(run, order, Made(attempt=run.record.attempt, fence=run.record.fence))
    elif not there.active:
        act = partial(run.hypervisor.start_network, run.destination, there.uuid)
        created = f"start of network {order.name} on {run.destination}"
        run.effect("destination_network_start", run.destination, there.uuid, act, name=order.name, created=created)


def _make(run: StepRun, order: NetworkOrder, made: Made) -> None:
    hypervisor, there, name = run.hypervisor, run.destination, order.name
    uuid = made.uuid(run, f"network/{name}")
    source = hypervisor.find_network(run.source, name)
    xml = copy_network_xml(hypervisor.fetch_network_xml(run.source, name), uuid)

    def make() -> None:
        hypervisor.define_network(there, xml)
        hypervisor.start_network(there, uuid)
        if source is not None and source.autostart:
            hypervisor.set_network_autostart(there, uuid, enabled=True)

    created = f"network {name} on {there}"
    try:
        run.effect("destination_network", there, made.model_dump_json(), make, name=name, created=created)
    except OperatorMustFix as error:
        entry, other = run.intent("destination_network", there, name), hypervisor.find_network(there, name)
        if error.code != "NETWORK_EXISTS" or entry is None or other is None or other.uuid == uuid:
            raise
        run.mark_undone(entry)  # somebody else was quicker, and nothing was made
        raise RetryLater("NETWORK_BEING_MADE", error.message, "it is looked at again") from None


def undo_network(run: StepRun, entry: JournalEntry) -> None:
    """Remove the network with our UUID, unless a VM has come to use it."""
    uuid = Made.model_validate_json(entry.value).uuid(run, f"network/{entry.name}")
    there = run.hypervisor.find_network(entry.host, uuid)
    if there is not None and _stop_unless_used(run, entry.host, there):
        run.hypervisor.undefine_network(entry.host, uuid)


def undo_network_start(run: StepRun, entry: JournalEntry) -> None:
    """Stop the network that was inactive, unless a VM has come to use it."""
    there = run.hypervisor.find_network(entry.host, entry.value)
    if there is not None and there.active:
        _stop_unless_used(run, entry.host, there)


def _stop_unless_used(run: StepRun, host: str, there: NetworkView) -> bool:
    users = users_of(run, host, lambda domain: uses_network(domain, there.name))
    if users:
        leave(run, f"network {there.name} on {host}", ", ".join(users))
        return False
    run.hypervisor.stop_network(host, there.uuid)
    return True


def uses_network(domain: Domain, name: str) -> bool:
    """Whether a network card of the VM is on the network."""
    cards = ((card.type, card.source) for card in domain.interfaces)
    return ("network", name) in cards or any(r.kind == "network" and r.value == name for r in domain.resources)
