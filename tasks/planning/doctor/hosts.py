"""Checks of the hosts, one by one and next to each other."""

from __future__ import annotations

from collections import defaultdict

from tasks.model.doctor import CheckResult, DoctorFacts, HostLook
from tasks.model.host import HostFacts
from tasks.planning.doctor.registry import check, failed, ok, unseen, warning


def version_text(number: int) -> str:
    """libvirt's way of writing a version as a number, undone."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def known(facts: DoctorFacts) -> list[HostFacts]:
    """Facts of the hosts that answered."""
    return [host.facts for host in facts.hosts if host.facts is not None]


@check(
    HOST_ANSWERS="The host's libvirt answers and lets us in, to read and to write.",
    NO_HOSTS="The inventory is empty.",
    HOST_UNREACHABLE="The host's libvirt does not answer.",
    AUTH_FAILED="The host does not let us in.",
    HOST_NOT_TRUSTED="We do not trust the host's key or certificate.",
    HOST_LOST="The host's libvirt broke off while it was asked.",
    HOST_UNREADABLE="The host's libvirt answers, and refuses or fails to tell about the host.",
    HOST_SILENT="The host's libvirt took the connection and did not answer in time.",
)
def check_hosts(facts: DoctorFacts) -> list[CheckResult]:
    """Reachable from here, with the right to change things."""
    if not facts.hosts:
        hint = "add [hosts.NAME] with its uri to the configuration: docs/settings.md"
        return [failed("NO_HOSTS", "hosts", "the inventory is empty", hint)]
    return [_host(host) for host in facts.hosts]


def _host(host: HostLook) -> CheckResult:
    if host.problem is not None or host.facts is None:
        problem = host.problem
        code = HOST_CODES.get(problem.code if problem else "", "HOST_UNREADABLE")
        message = problem.message if problem else f"{host.name} told nothing about itself"
        return failed(code, host.name, message, problem.hint if problem and problem.hint else _try(host))
    seen = host.facts
    versions = f"libvirt {version_text(seen.libvirt_version)}, QEMU {version_text(seen.hypervisor_version)}"
    return ok("HOST_ANSWERS", host.name, f"{host.uri} answers: {seen.hostname}, {versions}")


HOST_CODES = {
    "HOST_UNREACHABLE": "HOST_UNREACHABLE",
    "AUTH_FAILED": "AUTH_FAILED",
    "HOST_NOT_TRUSTED": "HOST_NOT_TRUSTED",
    "HOST_SILENT": "HOST_SILENT",
    "CONNECTION_LOST": "HOST_LOST",
}


def _try(host: HostLook) -> str:
    return f"try: virsh -c '{host.uri}' version"


@check(
    PROBE_STARTS="A probe VM of a few MiB starts on the host.",
    PROBE_NOT_STARTED="The host could not start a probe VM: it can run no other VM either.",
    PROBE_LEFT_OVER="A probe VM is there that no one removed.",
)
def check_probe(facts: DoctorFacts) -> list[CheckResult]:
    """Emulator, permissions and memory, by starting something small, paused and without disks."""
    return [result for host in facts.hosts if host.problem is None for result in _probe(host)]


def _probe(host: HostLook) -> list[CheckResult]:
    found = [
        warning(
            "PROBE_LEFT_OVER",
            host.name,
            f"{host.name} has the probe VM {name}, of a doctor that was killed or is still running",
            f"if no other doctor is running: virsh -c '{host.uri}' destroy {name}",
        )
        for name in host.leftovers
    ]
    if not host.probed:
        return found
    if (problem := host.start_problem) is not None:
        hint = problem.hint or f"libvirt's log on {host.name} says more"
        found.append(failed("PROBE_NOT_STARTED", host.name, f"no probe VM starts: {problem.message}", hint))
        return found
    return [ok("PROBE_STARTS", host.name, f"a probe VM starts on {host.name}"), *found]


@check(
    HOSTS_DIFFER="Hosts have different names and UUIDs.",
    HOST_UUID_TWICE="Two hosts have one host UUID, which libvirt takes for one host.",
    HOSTNAME_TWICE="Two hosts have one host name, which libvirt takes for one host.",
)
def check_identity(facts: DoctorFacts) -> list[CheckResult]:
    """libvirt refuses to migrate a VM to what it takes for the same host."""
    seen = known(facts)
    uuids, names = defaultdict(list), defaultdict(list)
    for host in seen:
        uuids[host.uuid].append(host.name)
        names[host.hostname].append(host.name)
    found = [
        failed(
            "HOST_UUID_TWICE",
            " and ".join(hosts),
            f"{' and '.join(hosts)} have the host UUID {uuid}: no VM goes from one to the other",
            "uuidgen, put it as host_uuid into /etc/libvirt/libvirtd.conf on one of them, and restart libvirtd there",
        )
        for uuid, hosts in uuids.items()
        if uuid and len(hosts) > 1
    ]
    found += [
        failed(
            "HOSTNAME_TWICE",
            " and ".join(hosts),
            f"{' and '.join(hosts)} call themselves {name}: no VM goes from one to the other",
            "give one of them another name, and restart libvirtd there: hostnamectl set-hostname NAME",
        )
        for name, hosts in names.items()
        if name and len(hosts) > 1 and not any(set(hosts) <= set(others) for others in uuids.values())
    ]
    if not found and len(seen) > 1:
        found.append(ok("HOSTS_DIFFER", "hosts", f"{len(seen)} hosts have different names and host UUIDs"))
    return found


@check(
    VERSIONS_SAME="All hosts run the same libvirt and QEMU.",
    VERSIONS_DIFFER="Hosts run different versions: a VM goes from the older to the newer one only.",
)
def check_versions(facts: DoctorFacts) -> list[CheckResult]:
    """QEMU takes no state of a newer one."""
    seen = known(facts)
    if len(seen) < 2:
        return []
    groups: dict[tuple[int, int], list[str]] = defaultdict(list)
    for host in seen:
        groups[host.libvirt_version, host.hypervisor_version].append(host.name)
    if len(groups) == 1:
        return [ok("VERSIONS_SAME", "hosts", f"all {len(seen)} hosts run the same libvirt and QEMU")]
    said = "; ".join(
        f"{', '.join(names)}: libvirt {version_text(libvirt)}, QEMU {version_text(qemu)}"
        for (libvirt, qemu), names in sorted(groups.items())
    )
    hint = "upgrade the older hosts, or move VMs towards the newer ones only"
    return [warning("VERSIONS_DIFFER", "hosts", f"a VM goes from the older to the newer host only ({said})", hint)]


@check(
    MEMORY_UNKNOWN="A host does not say how much memory is free.",
)
def check_memory(facts: DoctorFacts) -> list[CheckResult]:
    """Preflight compares a VM's memory with what is free."""
    return [
        unseen("MEMORY_UNKNOWN", host.name, f"{host.name} does not say how much memory is free")
        for host in known(facts)
        if host.memory_total_kib <= 0
    ]
