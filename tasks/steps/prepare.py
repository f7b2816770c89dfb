"""Mark the source, see to it that a VM that moves away does not come back by itself, and make room for its disks."""

from __future__ import annotations

from tasks.model.errors import OperatorMustFix
from tasks.model.request import Method
from tasks.steps.devices import claim_devices
from tasks.steps.firmware import plan_nvram
from tasks.steps.media import eject_media
from tasks.steps.mounts import make_ready
from tasks.steps.networks import make_networks
from tasks.steps.run import StepRun
from tasks.steps.shutdown import shut_down
from tasks.steps.tpm import plan_tpm
from tasks.steps.verdict import Next, Verdict
from tasks.steps.volumes import make_file_volumes, settle_bases


def run(run: StepRun) -> Verdict:
    """Mark the source, clear its autostart, make the volumes of copied disks: each journaled before it happens."""
    run.interrupt_if_asked()
    view = run.hypervisor.find_domain(run.source, run.uuid)
    if view is None:
        raise OperatorMustFix(
            "VM_VANISHED", f"{run.record.vm} is no longer on {run.source}", "vmferry vms shows where it is"
        )
    run.effect("source_mark", run.source, "", lambda: run.hypervisor.write_mark(run.source, run.uuid, run.mark))
    run.interrupt_if_asked()
    if view.persistent:
        # A reboot of the source after the move, which is what emptying a host leads to, must not start a second copy.
        run.effect(
            "source_autostart",
            run.source,
            "1" if view.autostart else "0",
            lambda: run.hypervisor.set_autostart(run.source, run.uuid, enabled=False),
        )
    shut_down(run)
    eject_media(run)
    make_networks(run)
    make_ready(run)
    claim_devices(run)
    settle_bases(run)
    if run.method is not Method.SAVED:  # its files change until it is saved
        plan_nvram(run)
        plan_tpm(run)
        make_file_volumes(run)
    return Next()
