"""The contract of ``tasks.model.ports.Hypervisor``: transfers, watched and aborted."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.model.domain import NO_JOB, DomainState
from tasks.model.errors import OperatorMustFix, OutcomeUnknown
from tests.contract.acting import MARK, code_of, order_for, transfer_running, wait_until
from tests.contract.rigs import GONE, Rig, new_identity

RUNNING_MIGRATED = 2
PAUSED_MIGRATION = 2
PAUSED_STARTING_UP = 11
"""Seen on the destination for the first moments of a transfer."""
SHUTOFF_MIGRATED = 4


class TestTransfer:
    def test_moves_a_running_guest(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True)
        rig.hypervisor.transfer(order_for(rig, uuid))
        source = rig.hypervisor.find_domain(rig.source, uuid)
        destination = rig.hypervisor.find_domain(rig.destination, uuid)
        assert source is not None
        assert destination is not None
        assert (source.state, source.reason, source.persistent) == (DomainState.SHUTOFF, SHUTOFF_MIGRATED, True)
        assert (destination.state, destination.reason) == (DomainState.RUNNING, RUNNING_MIGRATED)
        assert (destination.persistent, destination.mark, destination.job) == (True, MARK, NO_JOB)

    def test_leaves_its_statistics_for_more_than_one_reader(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True)
        assert rig.hypervisor.fetch_completed_job(rig.source, uuid) is None
        rig.hypervisor.transfer(order_for(rig, uuid))
        for host in (rig.source, rig.destination, rig.destination):
            job = rig.hypervisor.fetch_completed_job(host, uuid)
            assert job is not None
            assert (job.active, job.is_migration) == (False, True)
            assert job.memory_processed > 0
            assert job.downtime_ms is not None

    def test_a_transient_domain_stays_transient(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True, persistent=False)
        rig.hypervisor.transfer(order_for(rig, uuid))
        destination = rig.hypervisor.find_domain(rig.destination, uuid)
        assert rig.hypervisor.find_domain(rig.source, uuid) is None
        assert destination is not None
        assert (destination.state, destination.persistent, destination.mark) == (DomainState.RUNNING, False, MARK)

    def test_a_paused_guest_stays_paused(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True)
        rig.suspend(rig.source, uuid)
        rig.hypervisor.transfer(order_for(rig, uuid))
        destination = rig.hypervisor.find_domain(rig.destination, uuid)
        assert destination is not None
        assert destination.state is DomainState.PAUSED
        assert destination.reason != PAUSED_MIGRATION

    def test_the_order_can_keep_it_paused(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True)
        rig.hypervisor.transfer(order_for(rig, uuid, paused=True))
        destination = rig.hypervisor.find_domain(rig.destination, uuid)
        assert destination is not None
        assert destination.state is DomainState.PAUSED

    def test_while_it_runs(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True)
        hypervisor = rig.hypervisor
        with transfer_running(rig, uuid) as raised:
            job = hypervisor.fetch_job(rig.source, uuid)
            assert (job.active, job.is_migration) == (True, True)
            source, destination = (hypervisor.find_domain(h, uuid) for h in (rig.source, rig.destination))
            assert source is not None
            assert destination is not None
            assert (source.state, source.job.active) == (DomainState.RUNNING, True)
            assert destination.state is DomainState.PAUSED
            assert destination.reason in (PAUSED_STARTING_UP, PAUSED_MIGRATION)
            assert (destination.persistent, destination.mark, destination.job) == (False, MARK, NO_JOB)
            again = order_for(rig, uuid)
            assert code_of(lambda: hypervisor.transfer(again), OperatorMustFix) == "OPERATION_INVALID"
            assert raised == []

    def test_the_longest_pause_is_told_to_the_source_alone(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True)
        assert rig.hypervisor.set_max_downtime(rig.source, uuid, 5) is False
        with transfer_running(rig, uuid):
            assert rig.hypervisor.set_max_downtime(rig.destination, uuid, 5) is False
            assert rig.hypervisor.set_max_downtime(rig.source, uuid, 5) is True
        assert rig.hypervisor.set_max_downtime(rig.source, new_identity()[1], 5) is False

    def test_the_bandwidth_of_what_runs_is_changed_and_of_nothing_else(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True)
        assert rig.hypervisor.set_bandwidth(rig.source, uuid, 1) is False
        with transfer_running(rig, uuid):
            assert rig.hypervisor.set_bandwidth(rig.destination, uuid, 1) is False
            wait_until(lambda: rig.hypervisor.set_bandwidth(rig.source, uuid, 1))  # not before it has begun
            assert rig.hypervisor.set_bandwidth(rig.source, uuid, 50) is True
        assert rig.hypervisor.set_bandwidth(rig.source, new_identity()[1], 1) is False

    def test_it_can_be_left_right_before_it_begins(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True)
        before = rig.hypervisor.find_domain(rig.source, uuid)

        def leave() -> None:
            raise LookupError

        with pytest.raises(LookupError):
            rig.hypervisor.transfer(order_for(rig, uuid), leave)
        assert rig.hypervisor.find_domain(rig.source, uuid) == before
        assert rig.hypervisor.find_domain(rig.destination, uuid) is None
        rig.hypervisor.transfer(order_for(rig, uuid))

    def test_abort_ends_it_at_the_source(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True)
        with transfer_running(rig, uuid) as raised:
            rig.hypervisor.abort_job(rig.source, uuid)
            wait_until(lambda: bool(raised))
        assert [error.code for error in raised] == ["ABORTED"]
        source = rig.hypervisor.find_domain(rig.source, uuid)
        assert source is not None
        assert (source.state, source.job) == (DomainState.RUNNING, NO_JOB)
        assert rig.hypervisor.find_domain(rig.destination, uuid) is None
        assert rig.hypervisor.fetch_completed_job(rig.source, uuid) is None

    def test_abort_on_the_destination_does_nothing(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True)
        with transfer_running(rig, uuid) as raised:
            began = time.monotonic()
            rig.hypervisor.abort_job(rig.destination, uuid)
            assert time.monotonic() - began < 5
            assert rig.hypervisor.fetch_job(rig.source, uuid).active
            assert raised == []

    def test_abort_without_a_job(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True)
        rig.hypervisor.abort_job(rig.source, uuid)
        rig.hypervisor.abort_job(rig.source, new_identity()[1])
        view = rig.hypervisor.find_domain(rig.source, uuid)
        assert view is not None
        assert view.state is DomainState.RUNNING

    def test_no_job_of_a_domain_that_is_not_there(self, rig: Rig) -> None:
        assert rig.hypervisor.fetch_job(rig.source, new_identity()[1]) == NO_JOB
        assert rig.hypervisor.fetch_completed_job(rig.source, new_identity()[1]) is None

    def test_a_guest_that_is_shut_off_is_refused(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=False)
        order = order_for(rig, uuid)
        assert code_of(lambda: rig.hypervisor.transfer(order), OperatorMustFix) == "OPERATION_INVALID"
        assert rig.hypervisor.find_domain(rig.destination, uuid) is None

    def test_a_destination_that_the_source_cannot_reach(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True)
        order = order_for(rig, uuid, GONE)
        assert code_of(lambda: rig.hypervisor.transfer(order), OutcomeUnknown) == "PEER_UNREACHABLE"
        view = rig.hypervisor.find_domain(rig.source, uuid)
        assert view is not None
        assert (view.state, view.job) == (DomainState.RUNNING, NO_JOB)

    def test_a_name_that_is_taken_on_the_destination(self, rig: Rig) -> None:
        uuid = rig.make(rig.source, running=True)
        view = rig.hypervisor.find_domain(rig.source, uuid)
        assert view is not None
        other = new_identity()[1]
        rig.hypervisor.define(rig.destination, rig.xml(view.name, other))
        order = order_for(rig, uuid)
        code = code_of(lambda: rig.hypervisor.transfer(order), OperatorMustFix)
        rig.hypervisor.undefine(rig.destination, other)
        assert code == "OPERATION_FAILED"
        assert rig.hypervisor.find_domain(rig.source, uuid) == view

    def test_looking_does_not_wait_for_transfers(self, rig: Rig) -> None:
        uuid, other = rig.make(rig.source, running=True), rig.make(rig.source, running=False)
        with transfer_running(rig, uuid), ThreadPoolExecutor(12) as threads:
            began = time.monotonic()
            views = list(threads.map(lambda _: rig.hypervisor.find_domain(rig.source, other), range(24)))
            assert time.monotonic() - began < 5
            assert all(view is not None and view.uuid == other for view in views)
