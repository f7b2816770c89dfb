"""Rules about what the destination can run: memory, CPUs, machine, emulator, versions."""

from __future__ import annotations

import re

from tasks.model.domain import Resource
from tasks.model.finding import Finding, blocker, info, warning
from tasks.planning.domain_xml import scaled_kib
from tasks.planning.preflight.registry import blocker_if, rule
from tasks.planning.situation import Situation

SAME_FAMILY = (frozenset({"x86_64", "i686"}),)
"""Architectures of which hardware of the first runs guests of the others as well."""


@rule(
    MEMORY_TOO_SMALL="The destination has less free memory than the VM needs.",
    MEMORY_UNSEEN="The destination does not say how much memory is free.",
)
def check_memory(s: Situation) -> list[Finding]:
    """Shut off, libvirt accepts any amount; the VM then fails to start."""
    needed = max(s.view.memory_kib, *(d.memory_kib for d in s.definitions))
    free, total = s.destination.memory_free_kib, s.destination.memory_total_kib
    if total <= 0:
        return [warning("MEMORY_UNSEEN", f"{s.destination.name} does not say how much memory it has")]
    if needed <= free:
        return []
    message = (
        f"{s.view.name} needs {needed // 1024} MiB, and {s.destination.name} has {free // 1024} MiB free "
        f"of {total // 1024} MiB"
    )
    return [blocker_if(s.starts, "MEMORY_TOO_SMALL", message, "make room there, or choose another destination")]


@rule(
    VCPUS_OVERCOMMITTED="The VM has more virtual CPUs than the destination has CPUs.",
    PINNED_CPU_MISSING="The VM is bound to host CPUs that the destination does not have.",
    PINNED_NODE_MISSING="The VM is bound to NUMA nodes that the destination does not have.",
    PINNED_NODE_UNSEEN="The VM is bound to NUMA nodes; whether the destination has them cannot be seen.",
)
def check_cpus(s: Situation) -> list[Finding]:
    """More virtual than real CPUs work, slowly; binding to CPUs that are not there does not."""
    findings = []
    have, wanted = s.destination.cpus, max(d.vcpus for d in s.definitions)
    if 0 < have < wanted:
        message = f"{s.view.name} has {wanted} virtual CPUs, {s.destination.name} has {have} CPUs"
        findings.append(warning("VCPUS_OVERCOMMITTED", message, "expect it to be slow there"))
    for found in s.resources("host-cpus"):
        if 0 < have <= _highest(found.value):
            message = f"the definition binds to host CPUs {found.value}, and {s.destination.name} has 0-{have - 1}"
            findings.append(blocker("PINNED_CPU_MISSING", message, "change the binding: virsh vcpupin, emulatorpin"))
    return findings + [_pinned_node(s, found.value) for found in s.resources("host-nodes") if _lacks_node(s, found)]


def _lacks_node(s: Situation, found: Resource) -> bool:
    nodes = s.destination.numa_nodes
    return nodes is None or _highest(found.value) > max(nodes, default=0)


def _pinned_node(s: Situation, value: str) -> Finding:
    nodes = s.destination.numa_nodes
    message = f"the definition binds memory to NUMA nodes {value} of the host"
    if nodes is None:
        return warning("PINNED_NODE_UNSEEN", message, f"compare with virsh capabilities of {s.destination.name}")
    have = ", ".join(str(node) for node in sorted(nodes))
    return blocker("PINNED_NODE_MISSING", f"{message}, and {s.destination.name} has {have}", "virsh numatune")


def _highest(numbers: str) -> int:
    """The highest one of a list like ``0-3,^2``."""
    return max((int(n) for n in re.findall(r"[0-9]{1,9}", numbers)), default=0)


@rule(
    HUGEPAGES_TOO_FEW="The VM uses huge pages, and the destination has too few of them free.",
    HUGEPAGES_UNSEEN="The VM uses huge pages; whether the destination has enough of them free cannot be seen.",
)
def check_hugepages(s: Situation) -> list[Finding]:
    """Huge pages are set aside at boot, not taken from free memory."""
    sizes = [r.value for r in s.resources("hugepages")]
    if not sizes:
        return []
    message = f"{s.view.name} uses huge pages ({', '.join(sizes)}), which {s.destination.name} must have free"
    size, free = _page_kib(sizes), s.destination.free_hugepages
    if size and free is not None:
        needed = -(-max(d.memory_kib for d in s.definitions) // size)
        if free.get(size, 0) >= needed:
            return []
        message = f"{s.view.name} needs {needed} huge pages of {size} KiB, and {s.destination.name} has "
        message += f"{free.get(size, 0)} free"
        hint = f"set more aside there: virsh allocpages {size}KiB {needed}"
        return [blocker_if(s.starts, "HUGEPAGES_TOO_FEW", message, hint)]
    return [warning("HUGEPAGES_UNSEEN", message, f"virsh freepages --all on {s.destination.name}")]


def _page_kib(sizes: list[str]) -> int:
    """The one size that is named, KiB; 0 when several are, or the host's default, which libvirt does not tell."""
    if len(sizes) != 1 or sizes[0] == "default":
        return 0
    return scaled_kib(*sizes[0].split(" ", 1))


@rule(
    VIRT_TYPE_MISSING="The destination cannot run this kind of VM (for example kvm).",
    ARCH_DIFFERS="The destination's CPUs are of another architecture.",
)
def check_virt_type(s: Situation) -> list[Finding]:
    """kvm needs hardware of the guest's own architecture; emulation runs anywhere."""
    findings = []
    wanted, offered = s.domain.virt_type, s.destination.virt_types
    if offered and wanted not in offered:
        message = f"{s.destination.name} offers {', '.join(sorted(offered))}, not {wanted or 'an unnamed type'}"
        findings.append(blocker("VIRT_TYPE_MISSING", message, "is /dev/kvm there, and virtualization on in its setup?"))
    arch, host = s.domain.arch, s.destination.arch
    if wanted == "kvm" and arch and host and arch != host and not any({arch, host} <= f for f in SAME_FAMILY):
        message = f"{s.view.name} is {arch} and {s.destination.name} is {host}"
        findings.append(blocker("ARCH_DIFFERS", message, "choose a destination of the same architecture"))
    return findings


@rule(
    MACHINE_MISSING="The destination's emulator does not offer the VM's machine type.",
    MACHINE_UNSEEN="The destination does not say which machine types it offers.",
)
def check_machine(s: Situation) -> list[Finding]:
    """The guest-visible hardware must be exactly the same."""
    wanted = {d.machine for d in s.definitions if d.machine}
    if not s.destination.machines:
        return [warning("MACHINE_UNSEEN", f"{s.destination.name} does not say which machine types it offers")]
    return [
        blocker(
            "MACHINE_MISSING",
            f"{s.destination.name} does not offer the machine type {machine}",
            "install the same or a newer QEMU there",
        )
        for machine in sorted(wanted - s.destination.machines)
    ]


@rule(
    EMULATOR_MISSING="The destination does not have the emulator that the definition names.",
    EMULATOR_UNSEEN="The definition names an emulator that no host lists.",
)
def check_emulator(s: Situation) -> list[Finding]:
    """Distributions put QEMU at different places; a host lists those it found by itself."""
    wanted = {d.emulator for d in s.definitions if d.emulator}
    offered = s.destination.emulators
    if not offered:
        return []
    return [_emulator(s, path) for path in sorted(wanted - offered)]


def _emulator(s: Situation, path: str) -> Finding:
    if path in s.source.emulators:
        there = ", ".join(sorted(s.destination.emulators))
        message = f"{s.destination.name} does not have the emulator {path}; it has {there}"
        return blocker("EMULATOR_MISSING", message, "install it there, or link it to that path")
    message = f"the definition names the emulator {path}, which {s.destination.name} does not list"
    return warning("EMULATOR_UNSEEN", message, f"ls -l {path} on {s.destination.name}")


@rule(
    LIBVIRT_OLDER="The destination's libvirt is older than the source's.",
    HYPERVISOR_OLDER="The destination's QEMU is older than the source's.",
)
def check_versions(s: Situation) -> list[Finding]:
    """State of a newer QEMU, and XML of a newer libvirt, are not promised to be understood by an older one."""
    findings = []
    pairs = (
        ("LIBVIRT_OLDER", "libvirt", s.source.libvirt_version, s.destination.libvirt_version),
        ("HYPERVISOR_OLDER", "QEMU", s.source.hypervisor_version, s.destination.hypervisor_version),
    )
    for code, what, here, there in pairs:
        if 0 < there < here:
            message = f"{what} is {_version(there)} on {s.destination.name} and {_version(here)} on {s.source.name}"
            findings.append(blocker_if(s.starts, code, message, f"upgrade {what} on {s.destination.name}"))
    return findings


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


@rule(
    CPU_HOST_PASSTHROUGH="The guest sees the host's own CPU: a different one on the destination may crash it.",
    CPU_FOLLOWS_HOST="The guest's CPU is modelled on the host's and will change at its next start.",
    CPU_INCOMPATIBLE="The destination cannot provide the guest's CPU, as its libvirt says.",
)
def check_cpu_model(s: Situation) -> list[Finding]:
    """libvirt compares nothing for host-passthrough."""
    modes = {d.cpu_mode for d in s.definitions}
    if modes & {"host-passthrough", "maximum"}:
        same = bool(s.source.cpu_xml) and s.source.cpu_xml == s.destination.cpu_xml
        seen = "both report the same CPU" if same else "the hosts report different CPUs, or none"
        message = f"{s.view.name} uses the host's CPU as it is; {seen}"
        return [warning("CPU_HOST_PASSTHROUGH", message, "use host-model or a named model to be sure")]
    if "host-model" in modes:
        message = f"{s.view.name} takes its CPU model from its host: from {s.destination.name} at its next start"
        return [info("CPU_FOLLOWS_HOST", message)]
    if s.cpu_fits is False:
        message = f"{s.destination.name} cannot provide the CPU of {s.view.name}, some of its features at least"
        hint = f"compare: virsh hypervisor-cpu-compare on {s.destination.name}; a model that all hosts have is safest"
        return [blocker("CPU_INCOMPATIBLE", message, hint)]
    return []
