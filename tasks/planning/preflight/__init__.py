"""Preflight: whether the VM may move. Every rule runs, every finding is reported; nothing is changed anywhere."""

from __future__ import annotations

from collections.abc import Collection

from tasks.model.finding import Finding, Severity
from tasks.planning.preflight import (
    capacity,
    copying,
    data_path,
    devices,
    disks,
    firmware,
    identity,
    machines,
    mounts,
    network,
    paused,
    post_copy,
    servers,
    ties,
    writing,
)
from tasks.planning.preflight.registry import Rule
from tasks.planning.situation import Situation

__all__ = ["ACCEPTABLE", "DESCRIPTIONS", "RULES", "Rule", "Situation", "run_rules"]

RULES: tuple[Rule, ...] = (
    identity.check_cordon,
    identity.check_same_host,
    identity.check_destination_copy,
    identity.check_third_hosts,
    identity.check_job,
    identity.check_persistence,
    identity.check_marks,
    identity.check_autostart,
    paused.check_paused,
    disks.check_file_disks,
    disks.check_backing_chains,
    disks.check_disks_present,
    disks.check_block_disks,
    disks.check_volume_disks,
    disks.check_odd_disks,
    disks.check_media,
    servers.check_network_disks,
    disks.check_disk_options,
    mounts.check_mounts,
    mounts.check_mount_options,
    copying.check_copies,
    copying.check_named_disks,
    data_path.check_data_path,
    copying.check_verification,
    copying.check_space,
    copying.check_flattening,
    writing.check_devices,
    writing.check_sizes,
    firmware.check_nvram,
    firmware.check_tpm,
    firmware.check_managed_save,
    firmware.check_snapshots,
    firmware.check_boot_files,
    devices.check_host_devices,
    devices.check_other_host_devices,
    devices.check_filesystems,
    devices.check_memory_and_backends,
    devices.check_secrets,
    devices.check_launch_security,
    devices.check_unknown_resources,
    servers.check_endpoints,
    capacity.check_virt_type,
    capacity.check_machine,
    machines.check_machine_alias,
    capacity.check_emulator,
    capacity.check_versions,
    capacity.check_memory,
    capacity.check_cpus,
    capacity.check_hugepages,
    capacity.check_cpu_model,
    ties.check_clocks,
    ties.check_security_models,
    post_copy.check_post_copy,
    network.check_networks,
    network.check_bridges,
    network.check_filters,
    network.check_macs,
    network.check_graphics,
    network.check_consoles,
)
"""All rules; within one severity, findings are reported in this order."""

DESCRIPTIONS: dict[str, str] = {code: text for rule in RULES for code, text in rule.codes.items()}
"""Every code that preflight may report, with what it means."""

ACCEPTABLE = frozenset(
    {
        "CPU_INCOMPATIBLE",
        "DEVICE_NOT_EMPTY",
        "DISK_SERVER_LOCAL",
        "DISK_SHARING_UNPROVEN",
        "FILESYSTEM_NOT_SHARED",
        "HYPERVISOR_OLDER",
        "LIBVIRT_OLDER",
        "MAC_IN_USE",
        "MEDIUM_UNSEEN",
        "MEMORY_TOO_SMALL",
        "PAUSED_SINCE_START",
        "QEMU_COMMANDLINE",
        "RESOURCE_UNKNOWN",
        "SECURITY_MODEL_MISSING",
    }
)
"""Blockers that say "cannot be seen" or "not promised": a person may know better, and takes it upon himself by naming
the code. What is seen to be wrong is not among them, and there is no way to accept everything at once."""

_WEIGHT = {Severity.BLOCKER: 0, Severity.WARNING: 1, Severity.INFO: 2}


def run_rules(situation: Situation) -> tuple[Finding, ...]:
    """What all rules say: blockers first, then warnings, then the rest."""
    found = dict.fromkeys(finding for rule in RULES for finding in rule(situation))
    findings = [_accept(finding, situation.request.accept) for finding in found]
    return tuple(sorted(findings, key=lambda finding: _WEIGHT[finding.severity]))


def _accept(finding: Finding, codes: Collection[str]) -> Finding:
    """The finding as it counts when the request accepts these codes; a blocker says whether that would help."""
    blocks, may_be = finding.severity is Severity.BLOCKER, finding.code in ACCEPTABLE
    if finding.code in codes and not (blocks and not may_be):
        severity = Severity.WARNING if blocks else finding.severity
        return finding.model_copy(update={"severity": severity, "accepted": True})
    if finding.code in codes:
        return finding.model_copy(update={"hint": f"{finding.hint}; it cannot be accepted"})
    if blocks and may_be and "--accept" not in finding.hint:
        hint = f"{finding.hint}; if you know better: --accept {finding.code}"
        return finding.model_copy(update={"hint": hint.removeprefix("; ")})
    return finding
