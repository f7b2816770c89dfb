"""The contract of ``tasks.model.ports.Hypervisor``: post-copy, which only goes forward."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tasks.model.domain import DomainState, DomainView
from tasks.model.errors import HypervisorError, OperatorMustFix
from tasks.model.ports import TransferOrder
from tasks.planning.outcome import in_post_copy, is_broken
from tests.contract.acting import MARK, code_of, order_for, transfer_running, wait_until
from tests.contract.rigs import Rig, new_identity


def views(rig: Rig, uuid: str) -> tuple[DomainView, DomainView]:
    source, destination = (rig.hypervisor.find_domain(host, uuid) for host in (rig.source, rig.destination))
    assert source is not None
    assert destination is not None
    return source, destination


def resume(rig: Rig, order: TransferOrder) -> None:
    """Until it has arrived. The destination may take a moment to notice that the connection was cut, and a call that
    says it failed may have resumed it all the same: the hosts know."""
    said: list[str] = []
    until = time.monotonic() + 60
    while views(rig, order.uuid)[0].state is not DomainState.SHUTOFF:
        assert time.monotonic() < until, said
        try:
            rig.hypervisor.resume_post_copy(order)
        except OperatorMustFix as error:
            said.append(f"{error.code}: {error.message}")
            time.sleep(1)


@contextmanager
def sending(rig: Rig, uuid: str, *, big: bool = False) -> Iterator[tuple[TransferOrder, list[HypervisorError | None]]]:
    """A transfer that can be switched over, and how its call came back."""
    returned: list[HypervisorError | None] = []
    order = replace(order_for(rig, uuid), post_copy=True)
    order = rig.big_without_end(order) if big else rig.without_end(order)

    def run() -> None:
        try:
            rig.hypervisor.transfer(order)
        except HypervisorError as error:
            returned.append(error)
        else:
            returned.append(None)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: rig.hypervisor.fetch_job(rig.source, uuid).memory_total > 0)
    yield order, returned
    rig.let_end()
    thread.join(30)
    assert not thread.is_alive()


class TestPostCopy:
    def test_the_guest_goes_on_there_and_then_all_of_it_is(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True)
        with sending(rig, uuid) as (_, returned):
            assert rig.hypervisor.start_post_copy(rig.source, uuid) is True
        assert returned == [None]
        source, destination = views(rig, uuid)
        assert (source.state, source.reason) == (DomainState.SHUTOFF, 4)
        assert (destination.state, destination.reason) == (DomainState.RUNNING, 2)
        assert (destination.persistent, destination.mark) == (True, MARK)

    def test_only_when_it_was_made_possible(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True)
        with transfer_running(rig, uuid) as raised:
            wait_until(lambda: rig.hypervisor.fetch_job(rig.source, uuid).memory_total > 0)
            code = code_of(lambda: rig.hypervisor.start_post_copy(rig.source, uuid), OperatorMustFix)
            assert code == "OPERATION_INVALID"
            assert views(rig, uuid)[0].state is DomainState.RUNNING
            assert raised == []

    def test_not_without_a_migration(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True)
        assert rig.hypervisor.start_post_copy(rig.source, uuid) is False
        assert rig.hypervisor.start_post_copy(rig.source, new_identity()[1]) is False
        rig.hypervisor.break_post_copy(rig.source, uuid)
        order = order_for(rig, uuid)
        assert code_of(lambda: rig.hypervisor.resume_post_copy(order), OperatorMustFix) == "OPERATION_INVALID"
        view = rig.hypervisor.find_domain(rig.source, uuid)
        assert view is not None
        assert view.state is DomainState.RUNNING

    def test_before_it_nothing_is_cut(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True)
        with transfer_running(rig, uuid) as raised:
            rig.hypervisor.break_post_copy(rig.source, uuid)
            assert rig.hypervisor.fetch_job(rig.source, uuid).active
            assert raised == []

    def test_cut_and_resumed(self, rig: Rig) -> None:
        uuid = rig.make_big()
        with rig.slow_link(), sending(rig, uuid, big=True) as (order, returned):
            rig.wait_sent_once(uuid)
            assert rig.hypervisor.start_post_copy(rig.source, uuid)
            wait_until(lambda: in_post_copy(views(rig, uuid)[0]) and in_post_copy(views(rig, uuid)[1]))
            rig.wait_warm(uuid)
            assert code_of(lambda: rig.hypervisor.abort_job(rig.source, uuid), OperatorMustFix) == "OPERATION_INVALID"
            assert code_of(lambda: rig.hypervisor.resume_post_copy(order), OperatorMustFix) == "OPERATION_INVALID"
            rig.hypervisor.break_post_copy(rig.source, uuid)
            wait_until(lambda: bool(returned))
            error = returned[0]
            assert error is not None
            source, destination = views(rig, uuid)
            assert is_broken(source)
            assert in_post_copy(destination)
            assert code_of(lambda: rig.hypervisor.break_post_copy(rig.source, uuid), OperatorMustFix) == "LIBVIRT_ERROR"
            rig.let_end()
            resume(rig, order)
        source, destination = views(rig, uuid)
        assert (source.state, source.reason) == (DomainState.SHUTOFF, 4)
        assert (destination.state, destination.reason, destination.persistent) == (DomainState.RUNNING, 2, True)
