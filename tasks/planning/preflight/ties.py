"""Rules about what ties a VM to its host beside its devices: clocks, and the security driver."""

from __future__ import annotations

from tasks.model.finding import Finding, blocker, warning
from tasks.planning.preflight.registry import rule
from tasks.planning.situation import Situation

NO_DRIVER_NEEDED = frozenset({"dac", "none"})
"""Models that libvirt leaves out of the definition that it sends."""


@rule(
    TSC_RATE_UNKNOWN="The guest is promised a steady time stamp counter, and its definition names no rate.",
    CLOCK_LOCAL_TIME="The guest's clock shows its host's local time, which depends on the host's time zone.",
)
def check_clocks(s: Situation) -> list[Finding]:
    """libvirt refuses the first live (55); of the second it says nothing, and no host says which zone it is in."""
    findings = []
    if s.live and any(d.unbound_tsc for d in s.definitions):
        message = f"{s.view.name} requires invtsc without a frequency of the counter"
        hint = "give the rate: <clock><timer name='tsc' frequency='HERTZ'/>, or shut the VM down and move it offline"
        findings.append(blocker("TSC_RATE_UNKNOWN", message, hint))
    if any(d.clock == "localtime" for d in s.definitions):
        message = f"the clock of {s.view.name} shows the local time of its host: {s.destination.name} must be in the "
        findings.append(warning("CLOCK_LOCAL_TIME", f"{message}same time zone", "compare: timedatectl on both hosts"))
    return findings


@rule(
    SECURITY_MODEL_MISSING="The definition has labels of a security driver that the destination does not run.",
)
def check_security_models(s: Situation) -> list[Finding]:
    """libvirt refuses to start a VM with labels of another driver than its own; shut off, it says nothing."""
    offered = s.destination.security_models
    if offered is None:
        return []
    there = f"{s.destination.name} runs {', '.join(sorted(offered))}"
    return [
        blocker(
            "SECURITY_MODEL_MISSING",
            f"{s.view.name} has labels of {r.value}, and {there}",
            "take the seclabel out of the definition: virsh edit; or set up the same driver there",
        )
        for r in s.resources("security-model")
        if r.value not in offered | NO_DRIVER_NEEDED
    ]
