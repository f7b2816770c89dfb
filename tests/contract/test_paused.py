"""The contract of ``tasks.model.ports.Hypervisor``: a domain that is started paused, moved as it is, and ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.model.domain import DomainState, DomainView, Mark
from tasks.model.errors import OperatorMustFix
from tasks.planning.mark_xml import parse_mark, with_mark
from tests.contract.acting import MARK, code_of, order_for
from tests.contract.rigs import Rig, new_identity

INSTANCE = replace(MARK, fence=MARK.fence + 1)
"""What an instance is started with, later than the definition was marked."""


def view_of(rig: Rig, host: str, uuid: str) -> DomainView:
    view = rig.hypervisor.find_domain(host, uuid)
    assert view is not None
    return view


def start(rig: Rig, uuid: str, mark: Mark = INSTANCE) -> None:
    xml = rig.hypervisor.fetch_xml(rig.source, uuid, inactive=True, secure=True)
    rig.hypervisor.start_paused(rig.source, with_mark(xml, mark))


def test_started_paused_with_a_mark_of_its_own(rig: Rig) -> None:
    uuid = rig.make(rig.source, running=False, mark=MARK)
    before = rig.hypervisor.fetch_xml(rig.source, uuid, inactive=True)
    start(rig, uuid)
    view = view_of(rig, rig.source, uuid)
    assert (view.state, view.persistent, view.never_ran) == (DomainState.PAUSED, True, True)
    assert (view.mark, view.instance_mark) == (MARK, INSTANCE)
    assert rig.hypervisor.fetch_xml(rig.source, uuid, inactive=True) == before
    assert code_of(lambda: start(rig, uuid), OperatorMustFix) == "OPERATION_INVALID"
    rig.hypervisor.end_paused(rig.source, uuid, INSTANCE)
    view = view_of(rig, rig.source, uuid)
    assert (view.state, view.active, view.persistent, view.instance_mark) == (DomainState.SHUTOFF, False, True, None)
    assert view.mark == MARK
    assert rig.hypervisor.fetch_xml(rig.source, uuid, inactive=True) == before


def test_what_is_not_defined_is_not_started(rig: Rig) -> None:
    name, uuid = new_identity()
    xml = rig.xml(name, uuid)
    assert code_of(lambda: rig.hypervisor.start_paused(rig.source, xml), OperatorMustFix) == "NO_DOMAIN"
    assert rig.hypervisor.find_domain(rig.source, uuid) is None


def test_ending_what_is_not_active_or_not_there(rig: Rig) -> None:
    uuid = rig.make(rig.source, running=False, mark=MARK)
    rig.hypervisor.end_paused(rig.source, uuid, INSTANCE)
    rig.hypervisor.end_paused(rig.source, new_identity()[1], INSTANCE)
    assert view_of(rig, rig.source, uuid).state is DomainState.SHUTOFF


@pytest.mark.parametrize("what", ["another's mark", "no mark", "running", "ran and was paused again"])
def test_only_an_instance_that_never_ran_and_bears_the_mark_is_ended(rig: Rig, what: str) -> None:
    uuid = rig.make(rig.source, running=what != "another's mark", mark=MARK)
    if what == "another's mark":
        start(rig, uuid, replace(INSTANCE, fence=99))
    elif what == "no mark":
        rig.hypervisor.remove_mark(rig.source, uuid)
        rig.suspend(rig.source, uuid)
    elif what == "ran and was paused again":
        rig.let_run(rig.source, uuid)
        rig.suspend(rig.source, uuid)
        assert view_of(rig, rig.source, uuid).instance_mark == MARK
    before = view_of(rig, rig.source, uuid)
    end = lambda: rig.hypervisor.end_paused(rig.source, uuid, MARK)  # noqa: E731
    assert code_of(end, OperatorMustFix) == "NOT_OURS_TO_END"
    after = view_of(rig, rig.source, uuid)
    assert (after.active, after.state) == (True, before.state)


def test_it_arrives_as_it_was_started_and_is_ended_there(rig: Rig) -> None:
    uuid = rig.make(rig.source, running=False, mark=MARK)
    start(rig, uuid)
    live = rig.hypervisor.fetch_xml(rig.source, uuid, secure=True, migratable=True)
    assert parse_mark(live) == INSTANCE
    rig.hypervisor.transfer(replace(order_for(rig, uuid, paused=True), destination_xml=with_mark(live, INSTANCE)))
    source, destination = view_of(rig, rig.source, uuid), view_of(rig, rig.destination, uuid)
    assert (source.active, source.mark) == (False, MARK)
    assert (destination.state, destination.persistent, destination.never_ran) == (DomainState.PAUSED, True, True)
    assert (destination.mark, destination.instance_mark) == (MARK, INSTANCE)
    rig.hypervisor.end_paused(rig.destination, uuid, INSTANCE)
    destination = view_of(rig, rig.destination, uuid)
    assert (destination.state, destination.active, destination.persistent) == (DomainState.SHUTOFF, False, True)
