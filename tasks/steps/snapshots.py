"""Internal snapshots of a VM that is shut off: their data is in the images, what libvirt knows of them goes along."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from tasks.model.errors import OutcomeUnknown
from tasks.planning.snapshot_xml import rewrite_snapshot
from tasks.steps.run import StepRun


def take_snapshots_along(run: StepRun) -> None:
    """Make them known on the destination, parents first; they go with its definition when it is undone."""
    for snapshot in run.hypervisor.fetch_snapshots(run.source, run.uuid):
        run.interrupt_if_asked()
        xml = rewrite_snapshot(snapshot.xml, partial(run.destination_xml, marked=False))
        run.effect(
            "destination_snapshot",
            run.destination,
            "",
            partial(run.hypervisor.redefine_snapshot, run.destination, run.uuid, replace(snapshot, xml=xml)),
            name=snapshot.name,
        )


def check_snapshots(run: StepRun) -> None:
    """The destination knows all that the source does.

    Raises:
        OutcomeUnknown: ``VERIFY_FAILED``.
    """
    here, there = (
        {(s.name, s.current) for s in run.hypervisor.fetch_snapshots(host, run.uuid)}
        for host in (run.source, run.destination)
    )
    if missing := sorted(name for name, _ in here - there):
        message = f"snapshots of {run.record.vm} are not on {run.destination}: {', '.join(missing)}"
        raise OutcomeUnknown("VERIFY_FAILED", message, f"virsh snapshot-list {run.uuid} on both hosts")
