"""Rules about state beside the disks: NVRAM, TPM, saved memory; and files that the VM boots from."""

from __future__ import annotations

from tasks.model.domain import Resource
from tasks.model.finding import Finding, blocker, info, warning
from tasks.planning.preflight.registry import blocker_if, rule
from tasks.planning.sharing import find_sharing
from tasks.planning.situation import Situation
from tasks.planning.tpm import kept_elsewhere, state_directory

BOOT_KINDS = ("kernel", "initrd", "dtb", "acpi-table", "shim")
FIRMWARE_KINDS = ("loader", "nvram-template", "rom")


@rule(
    NVRAM_COPIED="The UEFI variables are in a file of the source host, which is copied.",
    NVRAM_LEFT_ON_SOURCE="The UEFI variables go along with the memory; their old file stays on the source.",
    NVRAM_NOT_A_FILE="The UEFI variables are on a device or in a volume, which is not copied.",
)
def check_nvram(s: Situation) -> list[Finding]:
    """Observed: OFFLINE copies nothing (the VM would start from the template); live transfers, and leaves the file."""
    if odd := [r for d in s.definitions for r in d.resources if _is_odd_nvram(r)]:
        message = f"the UEFI variables are in {odd[0].value} ({odd[0].kind}), which is not carried along"
        return [blocker("NVRAM_NOT_A_FILE", message, "keep them in a file: virsh edit, <nvram>PATH</nvram>")]
    path = nvram_of(s)
    if path is None:
        return []
    if s.live:
        return [info("NVRAM_LEFT_ON_SOURCE", f"the UEFI variables are moved; {path} stays on {s.source.name} as it is")]
    return [info("NVRAM_COPIED", f"the UEFI variables in {path} are copied; the file on {s.source.name} is kept")]


def _is_odd_nvram(resource: Resource) -> bool:
    """On network storage both hosts reach it; everything else but a file belongs to the source."""
    odd = ("/nvram/source/@dev", "/nvram/source/@volume", "/nvram/source/@dir", "/nvram/source/@path")
    return resource.xpath.endswith(odd) and "/os/" in resource.xpath


def nvram_of(s: Situation) -> str | None:
    """The file with the UEFI variables that only the source has."""
    path = next((d.nvram for d in s.definitions if d.nvram), None)
    if path is None or find_sharing(path, s.source, s.destination).proven:
        return None
    return path


@rule(
    TPM_STATE_COPIED="The emulated TPM's state is in files of the source host, which are copied.",
    TPM_STATE_NOT_COPIED="The emulated TPM's state is in files of the source, which cannot be copied this way.",
    TPM_STATE_LEFT_ON_SOURCE="The emulated TPM's state goes along with the memory; its old files stay on the source.",
    TPM_IS_HOST_DEVICE="The TPM is a device of the host.",
    TPM_UNSUPPORTED="The destination offers no emulated TPM of this version.",
)
def check_tpm(s: Situation) -> list[Finding]:
    """The state is in the live stream; without it, whatever the guest sealed (disk keys) is lost."""
    device = next((r.value for r in s.resources("tpm")), None)
    if device is not None:
        return [blocker("TPM_IS_HOST_DEVICE", f"the TPM is {device} of {s.source.name}", "detach it")]
    wanted, offered = {d.tpm for d in s.definitions if d.tpm}, s.destination.tpm_versions
    if not wanted:
        return []
    return _lacking(s, wanted - offered if offered is not None else set()) + _tpm_state(s)


def _lacking(s: Situation, versions: set[str]) -> list[Finding]:
    hint = f"install swtpm and swtpm-tools on {s.destination.name}"
    message = f"{s.destination.name} offers no emulated TPM of version {{}}"
    return [blocker("TPM_UNSUPPORTED", message.format(version), hint) for version in sorted(versions)]


def _tpm_state(s: Situation) -> list[Finding]:
    if s.live:
        message = f"the TPM's state is moved; its files stay on {s.source.name} as they are"
        return [info("TPM_STATE_LEFT_ON_SOURCE", message, f"swtpm must be installed on {s.destination.name}")]
    directory = tpm_of(s)
    if directory is None or s.carries_memory:
        message = f"the TPM's state would stay on {s.source.name}, and with it whatever the guest has sealed"
        return [blocker("TPM_STATE_NOT_COPIED", message, "move the VM live")]
    return [info("TPM_STATE_COPIED", f"the TPM's state in {directory} is copied; on {s.source.name} it is kept")]


def tpm_of(s: Situation) -> str | None:
    """The directory with the TPM's state."""
    if any(kept_elsewhere(d) for d in s.definitions):
        return None
    return next((found for d in s.definitions if (found := state_directory(d, s.view.uuid))), None)


@rule(
    MANAGED_SAVE="The VM has saved memory on the source (managed save), which would be lost or restored too late.",
)
def check_managed_save(s: Situation) -> list[Finding]:
    """Observed: OFFLINE says nothing, and leaves the image to be restored by a later domain of the same name."""
    if not s.view.managed_save:
        return []
    message = f"{s.view.name} has a managed save image on {s.source.name}"
    hint = f"start it and move it live, or discard the memory: virsh managedsave-remove {s.view.uuid}"
    return [blocker_if(not s.live, "MANAGED_SAVE", message, hint)]


@rule(
    HAS_SNAPSHOTS="The VM has snapshots that libvirt knows of, and they cannot go along this way.",
    SNAPSHOTS_MOVE="The VM has internal snapshots; they, and what libvirt knows of them, go along.",
    CHECKPOINTS_LOST="The VM has checkpoints for incremental backups, which libvirt drops without a word.",
)
def check_snapshots(s: Situation) -> list[Finding]:
    """libvirt refuses a VM with snapshots live (55), and to undefine one that is shut off; checkpoints it forgets."""
    findings = []
    if s.view.snapshots and not s.carries_memory and not s.view.external_snapshots:
        findings.append(info("SNAPSHOTS_MOVE", f"{s.view.snapshots} internal snapshot(s) of {s.view.name} go along"))
    elif s.view.snapshots:
        message = f"{s.view.name} has {s.view.snapshots} snapshot(s) on {s.source.name}"
        hint = f"virsh snapshot-list {s.view.uuid}; internal ones go along when the VM is shut off"
        findings.append(blocker("HAS_SNAPSHOTS", message, hint))
    if s.view.checkpoints:
        message = f"{s.view.name} has {s.view.checkpoints} checkpoint(s): the next backup will have to be a full one"
        hint = f"virsh checkpoint-list {s.view.uuid}"
        if s.live:
            # Measured with QEMU 7.2, cache none and writeback: 8 of 32 attempts; each next one went well.
            message += f"; QEMU fails at times to open their image on {s.destination.name}, and the VM stays then"
            hint += "; if it stayed: vmferry retry ID"
        findings.append(warning("CHECKPOINTS_LOST", message, hint))
    return findings


@rule(
    BOOT_FILE_MISSING="The destination does not have a file that the VM boots from.",
    BOOT_FILE_UNSEEN="Whether the destination has the files that the VM boots from cannot be seen.",
)
def check_boot_files(s: Situation) -> list[Finding]:
    """Kernel, initrd and the like are opened at start; firmware is expected where the package puts it."""
    files = [r for r in s.resources(*BOOT_KINDS, *FIRMWARE_KINDS) if r.value.startswith("/")]
    findings = []
    for found in files:
        present = s.media.get(found.value)
        if present is False:
            message = f"{s.destination.name} does not have {found.value} ({found.kind})"
            findings.append(blocker("BOOT_FILE_MISSING", message, "copy it there"))
        elif present is None and not find_sharing(found.value, s.source, s.destination).proven:
            message = f"{found.value} ({found.kind}) must be on {s.destination.name}, where nobody can see it"
            level = info if found.kind in FIRMWARE_KINDS else warning
            findings.append(level("BOOT_FILE_UNSEEN", message, f"ls {found.value} on {s.destination.name}"))
    return findings
