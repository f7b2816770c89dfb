"""The VM's definition on the destination, while it is not running on either host."""

from __future__ import annotations

from functools import partial

from tasks.steps.run import StepRun


def define_on_destination(run: StepRun) -> None:
    """Marked, with everything where it will be there; read with its passwords where it is used, and never stored."""
    inactive = run.hypervisor.fetch_xml(run.source, run.uuid, inactive=True, secure=True)
    xml = run.destination_xml(inactive)
    run.interrupt_if_asked()
    run.effect(
        "destination_definition",
        run.destination,
        "",
        partial(run.hypervisor.define, run.destination, xml),
        created=f"definition of {run.record.vm} on {run.destination}",
    )
