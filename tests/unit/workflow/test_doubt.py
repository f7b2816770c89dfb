"""Two hosts are never read at the same moment: an alarm needs a second look."""

from __future__ import annotations

from typing import cast

from tasks.model.convergence import Convergence
from tasks.model.domain import DomainView
from tasks.model.ports import Hypervisor
from tasks.model.request import Method, MigrationRequest
from tasks.model.run import RunRecord
from tasks.planning.outcome import Outcome
from tasks.steps.lease import Lease
from tasks.steps.run import Limits, Policy, Shares, StepRun, Store
from tests.unit.workflow.test_outcome import OFF, RUN, view

Look = tuple[DomainView | None, DomainView | None]


class Looks:
    """A hypervisor that shows prepared views, one pair after the other."""

    def __init__(self, *looks: Look) -> None:
        self.views = [view for look in looks for view in look]

    def find_domain(self, host: str, vm: str) -> DomainView | None:  # noqa: ARG002
        return self.views.pop(0)


def outcome_of(*looks: Look) -> tuple[Outcome, int]:
    request = MigrationRequest(vm="web-7", destination="b")
    record = RunRecord(id=RUN, request=request, fingerprint="", vm="web-7", uuid="u", source="a", destination="b")
    hypervisor = Looks(*looks)
    run = StepRun(
        cordon_of=lambda _: None,
        record=record.model_copy(update={"method": Method.LIVE}),
        lease=cast("Lease", None),
        store=cast("Store", None),
        hypervisor=cast("Hypervisor", hypervisor),
        hosts=("a", "b"),
        policy=Policy(0, auto_converge=False, stall_after_s=60, shut_down_timeout_s=60, convergence=Convergence()),
        limits=Limits(12, 0.5, 300),
        shares=cast("Shares", None),
    )
    return run.outcome(), len(hypervisor.views) // 2


def test_a_switch_over_between_the_two_looks_is_no_alarm() -> None:
    """The source was read before it, the destination after it: both seemed to run."""
    assert outcome_of((view("a"), view("b")), (view("a", OFF, 4), view("b"))) == (Outcome.MOVED, 0)


def test_what_two_looks_say_is_believed() -> None:
    assert outcome_of((view("a"), view("b")), (view("a"), view("b"))) == (Outcome.BOTH_RUNNING, 0)


def test_a_clear_outcome_needs_no_second_look() -> None:
    assert outcome_of((view("a"), None), (None, None)) == (Outcome.AT_SOURCE, 1)
