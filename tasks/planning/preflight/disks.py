"""Rules about disks and media: with shared storage, every one must be the same file on both hosts."""

from __future__ import annotations

from tasks.model.domain import Disk
from tasks.model.finding import Finding, blocker, info, warning
from tasks.planning.copies import copied_disks
from tasks.planning.preflight.registry import blocker_if, rule
from tasks.planning.sharing import find_sharing
from tasks.planning.situation import Situation
from tasks.planning.storage import MEDIUM_DEVICES, sharing_of

CHAINED_FORMATS = frozenset({"qcow2", "qed", "vmdk"})
OPTIONAL_POLICIES = frozenset({"optional", "requisite"})
SHARE_HINT = (
    "put it on a netfs pool that both hosts have active with the same source and target, or let it be copied: "
    "--storage copy"
)


@rule(
    DISK_NOT_SHARED="A disk's file is not on a network file system that both hosts mount at the same place.",
    DISK_SHARED="A disk's file is on shared storage.",
)
def check_file_disks(s: Situation) -> list[Finding]:
    """libvirt refuses this live (81, MIGRATE_UNSAFE) and says nothing when the VM is shut off."""
    return [_file_disk(s, d, d.source) for d in _staying(s) if d.type in ("file", "dir") and d.source]


def _file_disk(s: Situation, disk: Disk, path: str) -> Finding:
    sharing = find_sharing(path, s.source, s.destination)
    if sharing.proven:
        return info("DISK_SHARED", f"{disk.target}: {path} stays where it is: {sharing.reason}")
    return blocker("DISK_NOT_SHARED", f"{disk.target}: {path} is not proven to be shared: {sharing.reason}", SHARE_HINT)


@rule(
    BACKING_FILE_NOT_SHARED="A file of a disk's backing chain is not on shared storage.",
    DATA_FILE_UNSEEN="A disk that stays where it is keeps the guest's data in another file than its image.",
    BACKING_CHAIN_UNSEEN="No pool shows a disk of a VM that is shut off, so that nobody sees what lies below it.",
)
def check_backing_chains(s: Situation) -> list[Finding]:
    """An overlay without its base is nothing."""
    findings = [f for disk in _staying(s) for path in _below(s, disk) for f in _backing_file(s, disk, path)]
    findings += [
        warning(
            "DATA_FILE_UNSEEN",
            f"{disk.target}: {image.path} keeps the guest's data in another file, which nobody has looked at",
            "qemu-img info FILE names it; it must be on shared storage too",
        )
        for disk in _staying(s)
        for image in s.chains.get(disk.target, ())
        if image.external_data
    ]
    chained = [d.target for d in _staying(s) if d.driver_format in CHAINED_FORMATS and not s.chains.get(d.target)]
    if chained and not s.view.active:
        findings.append(
            info(
                "BACKING_CHAIN_UNSEEN",
                f"whether {', '.join(chained)} has backing files cannot be seen while the VM is shut off",
                "qemu-img info --backing-chain FILE shows them; they must be on shared storage too",
            )
        )
    return findings


def _below(s: Situation, disk: Disk) -> tuple[str, ...]:
    """Files below a disk: as the running VM has them open, or as the images name them."""
    return disk.backing or tuple(image.path for image in s.chains.get(disk.target, ())[1:])


def _backing_file(s: Situation, disk: Disk, path: str) -> list[Finding]:
    if not path.startswith("/"):
        return []
    sharing = find_sharing(path, s.source, s.destination)
    if sharing.proven:
        return []
    message = f"{disk.target}: its backing file {path} is not proven to be shared: {sharing.reason}"
    return [blocker("BACKING_FILE_NOT_SHARED", message, SHARE_HINT)]


@rule(
    DISK_NOT_ON_DESTINATION="A disk's file is on a shared pool, and the destination does not show it there.",
)
def check_disks_present(s: Situation) -> list[Finding]:
    """Two exports may have the same name, and a pool's list may be old: what is not seen there is not trusted."""
    return [
        blocker(
            "DISK_NOT_ON_DESTINATION",
            f"{d.target}: the pool of {s.destination.name} that should hold {d.source} does not show it",
            f"virsh pool-refresh POOL on {s.destination.name}; compare what both hosts have mounted",
        )
        for d in _staying(s)
        if d.source and s.media.get(d.source) is False and find_sharing(d.source, s.source, s.destination).proven
    ]


@rule(
    DISK_SHARING_UNPROVEN="A disk is a block device of the host; nothing proves that both hosts see the same one.",
)
def check_block_disks(s: Situation) -> list[Finding]:
    """libvirt takes every block device for shared, without a look: local ones would be two different disks."""
    return [
        blocker(
            "DISK_SHARING_UNPROVEN",
            f"{d.target}: {d.source} is a block device, and nothing proves that {s.destination.name} has the same one",
            f"if it is the same LUN there, under the same path: --accept DISK_SHARING_UNPROVEN; else copy it: "
            f"--pool {d.target}=POOL, or --device {d.target}=DEVICE",
        )
        for d in _staying(s)
        if d.type == "block"
    ]


@rule(
    POOL_MISSING="The destination has no active pool of the name that a disk's volume is in.",
    VOLUME_NOT_SHARED="A disk is a volume of a pool that is not the same on both hosts.",
    VOLUME_SHARED="A disk is a volume of a pool that is the same on both hosts.",
)
def check_volume_disks(s: Situation) -> list[Finding]:
    """libvirt looks the pool up by name on each host, and takes what it finds there."""
    return [_volume_disk(s, d, d.source) for d in _staying(s, media=True) if d.type == "volume" and d.source]


def _volume_disk(s: Situation, disk: Disk, source: str) -> Finding:
    name = source.split("/", 1)[0]
    if not any(p.name == name and p.active for p in s.destination.pools):
        message = f"{disk.target}: {s.destination.name} has no active pool {name}"
        return blocker("POOL_MISSING", message, f"virsh pool-start {name} there, or virsh pool-define FILE first")
    sharing = sharing_of(disk, s.source, s.destination)
    if sharing.proven:
        return info("VOLUME_SHARED", f"{disk.target}: {source} stays where it is: {sharing.reason}")
    return blocker(
        "VOLUME_NOT_SHARED", f"{disk.target}: {source} is not proven to be shared: {sharing.reason}", SHARE_HINT
    )


@rule(
    DISK_IS_HOST_DEVICE="A disk is a device of the host (NVMe, vDPA) or of a process beside QEMU (vhost-user).",
    DISK_TYPE_UNKNOWN="A disk has a type that vmferry does not know.",
)
def check_odd_disks(s: Situation) -> list[Finding]:
    """libvirt refuses nvme (81); vhost-user depends on a process that nobody moves."""
    return [_odd_disk(d) for d in s.disks if d.type not in ("file", "block", "network", "volume", "dir")]


def _odd_disk(disk: Disk) -> Finding:
    hint = "detach it, or move its contents to a shared netfs pool"
    if disk.type in ("nvme", "vhostuser", "vhostvdpa"):
        message = f"{disk.target}: a disk of type {disk.type} ({disk.source}) belongs to this host"
        return blocker("DISK_IS_HOST_DEVICE", message, hint)
    message = f"{disk.target}: nothing is known about disks of type {disk.type!r}"
    return blocker("DISK_TYPE_UNKNOWN", message, hint)


@rule(
    MEDIUM_MISSING="A CD-ROM or floppy holds an image that the destination does not have.",
    MEDIUM_UNSEEN="Whether the destination has the image in a CD-ROM or floppy drive cannot be seen.",
    MEDIUM_IS_HOST_DEVICE="A CD-ROM or floppy drive is a device of the host.",
)
def check_media(s: Situation) -> list[Finding]:
    """Live, libvirt fails (38) at its own preparation, whatever startupPolicy says; shut off, it says nothing."""
    media = [d for d in s.disks if d.device in MEDIUM_DEVICES and d.source]
    return [f for d in media if d.source for f in _medium(s, d, d.source)]


def _medium(s: Situation, disk: Disk, path: str) -> list[Finding]:
    eject = f"virsh change-media {s.view.uuid} {disk.target} --eject (with --config for the definition)"
    if disk.type == "block":
        message = f"{disk.target}: {path} is a drive of {s.source.name}"
        return [blocker("MEDIUM_IS_HOST_DEVICE", message, eject)]
    if disk.type != "file":
        return []
    optional = not s.migrates and disk.startup_policy in OPTIONAL_POLICIES
    present = s.media.get(path)
    if present is False:
        message = f"{disk.target}: {s.destination.name} does not have {path}"
        return [blocker_if(not optional, "MEDIUM_MISSING", message, f"{eject}, or copy the file there")]
    if present is True or find_sharing(path, s.source, s.destination).proven:
        return []
    message = f"{disk.target}: no active pool of {s.destination.name} covers {path}, so that nobody can see it"
    # Live, libvirt itself looks before anything is moved; shut off, nobody would before the VM fails to start.
    return [blocker_if(not s.migrates and not optional, "MEDIUM_UNSEEN", message, eject)]


@rule(
    DISK_TRANSIENT="A disk forgets what is written to it when the VM ends; libvirt cannot move such a VM live.",
    DISK_SHAREABLE="A disk is meant to be used by several VMs.",
    DISK_NEEDS_RESERVATIONS="A disk uses SCSI persistent reservations through a helper of the host.",
)
def check_disk_options(s: Situation) -> list[Finding]:
    """libvirt refuses transient disks live (55)."""
    findings = []
    for disk in s.disks:
        if disk.transient:
            message = f"{disk.target} is transient, and what it holds is lost when the VM is stopped"
            hint = "expected; it starts anew there"
            if s.migrates:
                hint = "shut the VM down and move it offline" if s.live else "let its disks go through the worker"
            findings.append(blocker_if(s.migrates, "DISK_TRANSIENT", message, hint))
        if disk.shareable:
            findings.append(info("DISK_SHAREABLE", f"{disk.target} may be in use by other VMs; it is not touched"))
    for found in s.resources("persistent-reservations"):
        message = f"a disk uses persistent reservations through {found.value}"
        findings.append(warning("DISK_NEEDS_RESERVATIONS", message, f"start qemu-pr-helper on {s.destination.name}"))
    return findings


def _storage(s: Situation) -> list[Disk]:
    """What holds the VM's data, in contrast to media."""
    return [d for d in s.disks if d.device not in MEDIUM_DEVICES]


def _staying(s: Situation, *, media: bool = False) -> list[Disk]:
    """The same without the disks that are copied; with media when asked."""
    copied = copied_disks(s)
    return [d for d in (s.disks if media else _storage(s)) if d not in copied]
