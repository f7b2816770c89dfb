"""Rules about names of machine types that stand for others."""

from __future__ import annotations

from tasks.model.finding import Finding
from tasks.planning.preflight.registry import blocker_if, rule
from tasks.planning.situation import Situation


@rule(
    MACHINE_ALIAS="The definition names a machine type that stands for another one on each host.",
)
def check_machine_alias(s: Situation) -> list[Finding]:
    """libvirt resolves such names when a VM is defined; older definitions, and other drivers, may still have them."""
    findings = []
    for name in dict.fromkeys(d.machine for d in s.definitions if d.machine):
        here, there = s.source.machine_aliases.get(name), s.destination.machine_aliases.get(name)
        if here and there and here != there:
            message = f"machine type {name} is {here} on {s.source.name} and {there} on {s.destination.name}"
            hint = f"name the exact type: virsh edit, machine='{here}'"
            findings.append(blocker_if(s.migrates, "MACHINE_ALIAS", message, hint))
    return findings
