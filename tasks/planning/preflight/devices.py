"""Rules about devices that belong to the host, and about what vmferry cannot judge."""

from __future__ import annotations

from tasks.model.finding import Finding, blocker, warning
from tasks.planning.preflight.registry import blocker_if, rule
from tasks.planning.sharing import find_sharing
from tasks.planning.situation import Situation


@rule(
    HOST_DEVICE="The VM has devices of the host passed through, which cannot go along.",
)
def check_host_devices(s: Situation) -> list[Finding]:
    """libvirt refuses most of them live (55); on the other host the same address is another device, or none."""
    counted = sorted({t for d in s.definitions for t in d.hostdevs})
    if not counted:
        return []
    named = [r.value for r in s.resources("pci", "usb", "scsi", "mdev", "ccw", "scsi-adapter", "scsi-host")]
    message = f"{s.view.name} has devices of {s.source.name} passed through: {', '.join(counted)}"
    message += f" ({', '.join(named)})" if named else ""
    return [blocker("HOST_DEVICE", message, "detach them first: virsh detach-device, live and --config")]


@rule(
    VDPA_DEVICE="The VM uses a vDPA device of the host.",
    INPUT_DEVICE="The VM uses an input device of the host.",
    RANDOM_DEVICE="The VM takes randomness from an unusual device of the host.",
    RENDER_NODE="A display uses a graphics card of the host.",
    VSOCK_ADDRESS="The VM has a fixed vsock address, which must be free on the destination.",
)
def check_other_host_devices(s: Situation) -> list[Finding]:
    """Named by path or number, and opened on the destination when the VM gets there."""
    there = s.destination.name
    findings = [
        blocker("VDPA_DEVICE", f"{s.view.name} uses the vDPA device {r.value}", "detach it")
        for r in s.resources("vdpa")
    ]
    findings += [
        blocker("INPUT_DEVICE", f"{s.view.name} uses {r.value} of {s.source.name}", "detach it")
        for r in s.resources("input")
    ]
    findings += [
        warning("RANDOM_DEVICE", f"{r.value} must be a source of randomness on {there} too")
        for r in s.resources("rng")
        if r.value not in ("/dev/urandom", "/dev/random", "/dev/hwrng")
    ]
    findings += [warning("RENDER_NODE", f"{r.value} must be there on {there}") for r in s.resources("render-node")]
    findings += [
        warning("VSOCK_ADDRESS", f"the vsock address {r.value} must not be in use on {there}")
        for r in s.resources("vsock-cid")
    ]
    return findings


@rule(
    VIRTIOFS_LIVE="libvirt cannot move a VM with virtiofs live.",
    FILESYSTEM_NOT_SHARED="A directory of the source is shared into the guest, and the destination has another one.",
    FILESYSTEM_MOUNTED="While the guest has a 9p file system mounted, libvirt refuses to move it live.",
)
def check_filesystems(s: Situation) -> list[Finding]:
    """virtiofs is refused (55); 9p only while it is mounted, which cannot be seen from outside."""
    findings = []
    for found in s.resources("filesystem", "virtiofs"):
        sharing = find_sharing(found.value, s.source, s.destination)
        if found.kind == "virtiofs" and s.migrates:
            message = f"{found.value} is shared into the guest by virtiofs"
            findings.append(blocker("VIRTIOFS_LIVE", message, "detach it, or shut the VM down and move it offline"))
        if not sharing.proven:
            message = f"{found.value}, shared into the guest, is not proven to be the same there: {sharing.reason}"
            findings.append(blocker("FILESYSTEM_NOT_SHARED", message, "detach it, or put it on a shared netfs pool"))
        if found.kind == "filesystem" and s.migrates:
            message = f"{found.value} must not be mounted in the guest while it moves"
            findings.append(warning("FILESYSTEM_MOUNTED", message, "unmount it in the guest"))
    return findings


@rule(
    VHOST_USER="The VM depends on a process beside QEMU (vhost-user), which the destination must run as well.",
    SHARED_MEMORY="The VM shares memory with other programs of the host.",
    MEMORY_FILE_NOT_SHARED="A memory device (NVDIMM, virtio-pmem) keeps its contents in a file of the source.",
)
def check_memory_and_backends(s: Situation) -> list[Finding]:
    """QEMU refuses some of these live; shut off, nobody looks."""
    findings = [
        blocker_if(
            s.migrates,
            "VHOST_USER",
            f"{s.view.name} talks to a vhost-user process at {r.value}",
            f"detach it; to move offline, start the same process on {s.destination.name} first",
        )
        for r in s.resources("vhost-user")
    ]
    findings += [
        blocker_if(s.migrates, "SHARED_MEMORY", f"{s.view.name} shares the memory {r.value} with the host", "detach it")
        for r in s.resources("shmem")
    ]
    findings += [
        blocker("MEMORY_FILE_NOT_SHARED", f"{r.value} holds the contents of a memory device", "put it on a shared pool")
        for r in s.resources("memory-file")
        if not find_sharing(r.value, s.source, s.destination).proven
    ]
    return findings


@rule(
    SECRET_MISSING="The VM needs a libvirt secret that the destination does not have, or has without a value.",  # noqa: S106
    SECRET_UNSEEN="The VM needs a libvirt secret; whether the destination has it cannot be seen.",  # noqa: S106
)
def check_secrets(s: Situation) -> list[Finding]:
    """Keys of encrypted disks and of storage clusters are looked up by UUID on each host."""
    return [finding for r in s.resources("secret") if (finding := _secret(s, r.value)) is not None]


def _secret(s: Situation, name: str) -> Finding | None:
    there = s.destination.name
    if s.destination.secrets is None:
        message = f"libvirt on {there} must have the secret {name}, with its value"
        return warning("SECRET_UNSEEN", message, f"virsh secret-list on {there}")
    if name not in s.destination.secrets:
        message = f"libvirt on {there} does not have the secret {name}"
        return blocker("SECRET_MISSING", message, "virsh secret-define FILE there, then virsh secret-set-value")
    if not s.destination.secrets[name]:
        message = f"the secret {name} on {there} has no value"
        return blocker("SECRET_MISSING", message, f"virsh secret-set-value {name} there")
    return None


@rule(
    LAUNCH_SECURITY="The VM's memory is encrypted by the CPU, which ties it to the host.",
)
def check_launch_security(s: Situation) -> list[Finding]:
    """SEV, SEV-SNP, TDX and s390 protected guests cannot be moved live by this libvirt."""
    return [
        blocker_if(
            s.migrates,
            "LAUNCH_SECURITY",
            f"{s.view.name} uses {r.value}",
            f"shut it down and move it offline; {s.destination.name} must support {r.value} too",
        )
        for r in s.resources("launch-security")
    ]


@rule(
    QEMU_COMMANDLINE="The definition passes arguments to QEMU that libvirt does not look into.",
    RESOURCE_UNKNOWN="The definition names something of the host that vmferry does not know.",
)
def check_unknown_resources(s: Situation) -> list[Finding]:
    """What cannot be judged is refused: shut off, nobody else would notice before the VM fails to start."""
    unknown = {r.xpath: r for d in s.definitions for r in d.resources if not r.known}
    foreign = [path for path in unknown if "/qemu:" in path or "/*" in path]
    findings = []
    if foreign:
        message = f"{s.view.name} has a part of QEMU's own arguments ({len(foreign)} values), which may name host paths"
        findings.append(blocker("QEMU_COMMANDLINE", message, "remove it: virsh edit"))
    for path, found in unknown.items():
        if path not in foreign:
            # The place and not the value: nobody knows whether it is a secret.
            message = f"nothing is known about {path} ({found.kind}), which may name something of the host"
            findings.append(
                blocker("RESOURCE_UNKNOWN", message, "remove it: virsh edit; vmferry inspect FILE shows it")
            )
    return findings
