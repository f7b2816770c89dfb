"""Every preflight rule: a situation that it objects to, and one next to it that it passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from tasks.model.cordon import Cordon
from tasks.model.disks import DeviceFacts, DiskSize, ImageFile, Volume
from tasks.model.domain import DomainState, JobStats, Mark
from tasks.model.finding import Severity
from tasks.model.host import Network, Pool
from tasks.model.request import DataPath, Method, Storage
from tasks.planning.domain_xml import parse_domain
from tasks.planning.mounts import plan_mounts
from tasks.planning.preflight import ACCEPTABLE, DESCRIPTIONS, RULES, Situation, run_rules
from tasks.planning.preflight.post_copy import may_switch
from tests.unit.planning.builders import (
    LOCAL_POOL,
    OTHER_UUID,
    POOL,
    SHARED,
    SHARED_DISK,
    domain_xml,
    facts,
    file_disk,
    off,
    request,
    situation,
    view,
)

B, W, I = Severity.BLOCKER, Severity.WARNING, Severity.INFO  # noqa: E741
LOCAL = "/var/lib/libvirt/images/a.img"
ISO = "/isos/a.iso"


PAUSED_NEW = view(state=DomainState.PAUSED, never_ran=True)


class Case(NamedTuple):
    code: str
    severity: Severity
    objects: Situation
    passes: Situation


def dev(xml: str, **changes: object) -> Situation:
    return situation(domain_xml(SHARED_DISK + xml), **changes)  # type: ignore[arg-type]


def boot(xml: str, **changes: object) -> Situation:
    return situation(domain_xml(os=xml), **changes)  # type: ignore[arg-type]


def extra(xml: str, **changes: object) -> Situation:
    return situation(domain_xml(extra=xml), **changes)  # type: ignore[arg-type]


def cdrom(path: str, policy: str = "") -> str:
    return file_disk(path, target="sda", device="cdrom", policy=policy)


def card(type_: str, source: str) -> str:
    return f"<interface type='{type_}'><source {source}/></interface>"


def backed(path: str) -> str:
    base = f"<backingStore type='file'><format type='qcow2'/><source file='{path}'/><backingStore/></backingStore>"
    return domain_xml(file_disk(f"{SHARED}/top.qcow2", inside=f"<driver type='qcow2'/>{base}"))


def served(host: str) -> str:
    """A disk that a server has."""
    source = f"<source protocol='nbd' name='x'><host {host}/></source>"
    return f"<disk type='network' device='disk'>{source}<target dev='vdb'/></disk>"


def volume(pool: str = "shared") -> str:
    return f"<disk type='volume'><source pool='{pool}' volume='v'/><target dev='vdb'/></disk>"


def hosts(**pools: Pool) -> dict[str, object]:
    return {host: facts(host_name, pools=(pools[host],)) for host, host_name in SIDES.items() if host in pools}


SIDES = {"source": "alpha", "destination": "beta"}
OK = situation()
OK_OFF = situation(offline=True)
NVRAM = "<nvram>/var/lib/libvirt/qemu/nvram/web_VARS.fd</nvram>"
NFS_NVRAM = "<nvram type='network'><source protocol='nfs' name='/e/v'><host name='h'/></source></nvram>"
SHARED_NVRAM = f"<nvram>{SHARED}/web_VARS.fd</nvram>"
TPM = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
TPM_ELSEWHERE = "<tpm><backend type='emulator' version='2.0'><source type='dir' path='/srv/tpm'/></backend></tpm>"
NODE_1 = "<numatune><memory mode='strict' nodeset='1'/></numatune>"
TSC = "<cpu mode='custom'><model>Skylake</model><feature policy='require' name='invtsc'/></cpu>"
GROUPED = "<interface type='network'><source network='n' portgroup='dmz'/></interface>"
MEMORY = "<memoryBacking><source type='{}'/></memoryBacking>"
EAGER = situation(post_copy=True)
OLD = situation(post_copy=False, source=facts("alpha", libvirt_version=8_004_000))
HUGE = "<memoryBacking><hugepages><page size='2' unit='MiB'/></hugepages></memoryBacking>"
PCI_ADDRESS = "<address domain='0' bus='1' slot='2' function='0'/>"
PCI = f"<hostdev mode='subsystem' type='pci'><source>{PCI_ADDRESS}</source></hostdev>"
P9 = "<filesystem type='mount'><source dir='{}'/><target dir='tag'/></filesystem>"
VIRTIOFS = P9.replace("<source", "<driver type='virtiofs'/><source")
QEMU_URI = "http://libvirt.org/schemas/domain/qemu/1.0"
QEMU = f"<qemu:commandline xmlns:qemu='{QEMU_URI}'><qemu:arg value='-x'/></qemu:commandline>"
PR = (
    "<disk type='network' device='lun'><source protocol='iscsi' name='iqn.a/1'><host name='s'/>"
    "<reservations managed='no'><source type='unix' path='/run/pr.sock' mode='client'/></reservations></source>"
    "<target dev='sdb'/></disk>"
)
VHOST_USER = "<interface type='vhostuser'><source type='unix' path='/run/v.sock' mode='client'/></interface>"
LISTEN = "<graphics type='vnc' listen='{0}'><listen type='address' address='{0}'/></graphics>"
NVDIMM = "<memory model='nvdimm'><source><path>{}</path></source><target><size unit='KiB'>1</size></target></memory>"
OTHER_EXPORT = Pool("shared", "netfs", active=True, target=SHARED, source="storage:/another")
OTHER_PLACE = Pool("shared", "netfs", active=True, target="/mnt", source="storage:/export")
INACTIVE = Pool("shared", "netfs", active=False, target=SHARED, source="storage:/export")
GIB = 1024**3
ROOMY = replace(LOCAL_POOL, available_bytes=100 * GIB)
QCOW2 = "<driver type='qcow2'/>"


def copied(
    disk: str = file_disk(LOCAL, inside=QCOW2),
    *,
    pool: Pool = ROOMY,
    pools: dict[str, str] | None = None,
    size: DiskSize | None = DiskSize(10 * GIB, 2 * GIB),  # noqa: B008 - frozen
    **changes: object,
) -> Situation:
    """A VM whose first disk is copied."""
    values: dict[str, object] = {"storage": Storage.COPY, "destination": facts("beta", pools=(POOL, pool))}
    values |= {"sizes": {"vda": size} if size else {}, "request": request(pools=pools or {}), "mark": Mark("m1", 1, 3)}
    return situation(domain_xml(disk), **(values | changes))  # type: ignore[arg-type]


FILE = ImageFile(LOCAL, "qcow2", 10 * GIB, 2 * GIB, 2 * GIB, "1.5")
BASE = ImageFile("/var/lib/libvirt/images/base.img", "raw", GIB, GIB, GIB, "1.5")
HIDDEN = replace(BASE, path="/elsewhere/base.img", seen=False)


def secret(there: dict[str, bool]) -> Situation:
    """An encrypted disk, and a destination with these secrets."""
    disk = file_disk(f"{SHARED}/b", target="vdb", inside=f"<encryption><secret uuid='{OTHER_UUID}'/></encryption>")
    return dev(disk, destination=facts("beta", secrets=there))


def labelled(model: str, there: set[str]) -> Situation:
    """A definition with a label of a security driver, and a destination with these drivers."""
    return extra(f"<seclabel model='{model}'/>", destination=facts("beta", security_models=frozenset(there)))


def mounted_with(options: str) -> Situation:
    """A pool of the destination, on which the disk stays, mounted with these options."""
    return situation(**hosts(destination=replace(POOL, options=(options,))))  # type: ignore[arg-type]


def filtered(there: frozenset[str]) -> Situation:
    """A network card with a filter, and a destination with these."""
    card = "<interface type='user'><filterref filter='clean-traffic'/></interface>"
    return dev(card, destination=facts("beta", nwfilters=there))


def mirrored(image: ImageFile = FILE, **changes: object) -> Situation:
    """A VM that is shut off, whose first disk is to go from host to host."""
    values: dict[str, object] = {"request": request(data_path="hosts"), "data_path": DataPath.HOSTS}
    return copied(offline=True, **(values | {"chains": {"vda": (image,)}} | changes))  # type: ignore[arg-type]


DEVICE = DeviceFacts("/dev/sdb", 10 * GIB, True, ())
LV = replace(DEVICE, path="/dev/vg0/web")
ON_LV = {"vda": LV.path}


def written(
    device: DeviceFacts | None = DEVICE,
    *,
    live: bool = False,
    fmt: str = "raw",
    devices: dict[str, str] | None = None,
    sizes: dict[str, int] | None = None,
) -> Situation:
    """A disk that is written to a device."""
    asked = request(devices=devices or {"vda": "/dev/sdb"}, sizes=sizes or {})
    disk = file_disk(LOCAL, inside=f"<driver type='{fmt}'/>")
    more: dict[str, Any] = {"request": asked, "chains": {"vda": (replace(FILE, format=fmt),)}}
    found = {} if device is None else {"vda": device}
    return replace(copied(disk, offline=not live, **more), devices=found)


def sized(sizes: dict[str, int]) -> Situation:
    """A disk that shall have another size."""
    return copied(request=request(sizes=sizes))


def chained(*below: ImageFile, top: ImageFile = FILE, there: int = 0, storage: str = "copy") -> Situation:
    """Shut off, with these files below its disk, and perhaps one of some length at the first one's place."""
    bases = {below[0].path: Volume("b", below[0].path, there, there, length_bytes=there)} if there else {}
    return replace(copied(offline=True, chains={"vda": (top, *below)}, bases=bases), storage=Storage(storage))


LVM = Pool("vg", "logical", active=True, target="/dev/vg")
LUKS = "<encryption format='luks'/>"
CHAIN = "<backingStore type='file'><format type='raw'/><source file='/base.img'/><backingStore/></backingStore>"
FS = Pool("inner", "fs", active=True, target=f"{SHARED}/inner", source="/dev/sdb1")

ALIAS = situation(
    domain_xml(machine="q35"),
    source=facts("alpha", machine_aliases={"q35": "pc-q35-7.2"}),
    destination=facts("beta", machine_aliases={"q35": "pc-q35-8.0"}),
)


def mounted(*pools: Pool) -> Situation:
    """A VM whose disk lies on a netfs pool, with what prepare would do for it on the destination."""
    return plan_mounts(situation(destination=facts("beta", pools=pools)))


CASES = [
    Case("MACHINE_ALIAS", B, ALIAS, replace(ALIAS, destination=facts("beta", machine_aliases={"q35": "pc-q35-7.2"}))),
    Case("POOL_MADE", I, mounted(LOCAL_POOL), mounted(POOL)),
    Case("POOL_STARTED", I, mounted(INACTIVE), mounted(POOL)),
    Case("POOL_NAME_TAKEN", B, mounted(OTHER_EXPORT), mounted(replace(OTHER_EXPORT, name="other", target="/other"))),
    Case("POOL_TARGET_TAKEN", B, mounted(replace(LOCAL_POOL, target=SHARED)), mounted(LOCAL_POOL)),
    Case("POOL_EXPORT_ELSEWHERE", B, mounted(replace(OTHER_PLACE, name="x")), mounted(replace(POOL, name="x"))),
    Case("HAS_SNAPSHOTS", B, situation(view=view(snapshots=2)), OK),
    Case(
        "HAS_SNAPSHOTS",
        B,
        situation(offline=True, view=off(snapshots=1, external_snapshots=1)),
        situation(offline=True, view=off(snapshots=1)),
    ),
    Case("SNAPSHOTS_MOVE", I, situation(offline=True, view=off(snapshots=1)), OK_OFF),
    Case("PAUSED_SINCE_START", B, situation(view=PAUSED_NEW), situation(view=replace(PAUSED_NEW, never_ran=False))),
    Case("STAYS_PAUSED", I, situation(view=PAUSED_NEW), OK),
    Case("CHECKPOINTS_LOST", W, situation(view=view(checkpoints=1)), OK),
    Case("DISK_COPIED", I, copied(), OK),
    Case("DISK_COPIED", I, copied(SHARED_DISK, pools={"vda": "default"}), copied(SHARED_DISK)),
    Case("NOTHING_TO_COPY", B, copied(SHARED_DISK), copied()),
    Case("POOL_FOR_NO_DISK", B, copied(pools={"vdb": "default"}), copied(pools={"vda": "default"})),
    Case("COPY_NOT_ATTACHED", B, copied(inactive=domain_xml(file_disk(LOCAL + "2"))), copied()),
    Case("COPY_FORMAT", B, copied(file_disk(LOCAL, inside="<driver type='vmdk'/>")), copied(file_disk(LOCAL))),
    Case("COPY_FORMAT", B, copied(file_disk(LOCAL, inside=LUKS)), copied()),
    Case("COPY_READONLY", B, copied(file_disk(LOCAL, inside="<readonly/>")), copied()),
    Case("COPY_SHAREABLE", B, copied(file_disk(LOCAL, inside="<shareable/>")), copied()),
    Case("COPY_SIZE_UNSEEN", B, copied(size=None), copied()),
    Case("COPY_SOURCE_UNSEEN", B, copied(offline=True), copied(offline=True, chains={"vda": (FILE,)})),
    Case("COPY_CHAIN_UNSEEN", B, chained(HIDDEN), chained(BASE)),
    Case("COPY_DATA_FILE", B, chained(top=replace(FILE, external_data=True)), chained()),
    Case("NOTHING_INCREMENTAL", B, chained(storage="incremental"), chained(BASE, storage="incremental")),
    Case("BACKING_FILE_COPIED", I, chained(BASE), chained()),
    Case("BACKING_FILE_KEPT", I, chained(BASE, there=GIB, storage="incremental"), chained(BASE, storage="incremental")),
    Case("BACKING_FILE_KEPT", I, chained(replace(BASE, path=f"{SHARED}/base.img")), chained(BASE)),
    Case("SNAPSHOTS_LOST", W, copied(chains={"vda": (replace(FILE, snapshots=2),)}), copied(chains={"vda": (FILE,)})),
    Case("DEVICE_UNSEEN", B, written(None), written()),
    Case("DEVICE_TOO_SMALL", B, written(replace(DEVICE, capacity_bytes=GIB)), written()),
    Case("DEVICE_TOO_SMALL", B, written(fmt="qcow2"), written(replace(DEVICE, capacity_bytes=11 * GIB), fmt="qcow2")),
    Case(
        "DEVICE_SIZE_DIFFERS",
        B,
        written(replace(DEVICE, capacity_bytes=11 * GIB), live=True),
        written(replace(DEVICE, capacity_bytes=11 * GIB)),
    ),
    Case("DEVICE_NEEDS_RAW", B, written(live=True, fmt="qcow2"), written(live=True)),
    Case("DEVICE_NOT_EMPTY", B, written(replace(DEVICE, empty=False)), written()),
    Case("DEVICE_IN_USE", B, written(replace(DEVICE, users=("other",))), written()),
    Case("DEVICE_TWICE", B, written(devices={"vda": "/dev/sdb", "vdb": "/dev/sdb"}), written()),
    Case(
        "DEVICE_TWICE",
        B,
        written(LV, devices={"vda": LV.path, "vdb": "/dev/mapper/vg0-web"}),
        written(LV, devices=ON_LV),
    ),
    Case("DEVICE_OTHER_NAME", B, written(LV, devices={"vda": "/dev/dm-3"}), written(LV, devices=ON_LV)),
    Case("DEVICE_FOR_NO_DISK", B, written(devices={"vdx": "/dev/sdb"}), written()),
    Case("SIZE_FOR_NO_DISK", B, sized({"vdx": 20 * GIB}), sized({"vda": 20 * GIB})),
    Case("SIZE_TOO_SMALL", B, sized({"vda": GIB}), sized({"vda": 10 * GIB})),
    Case("SIZE_OF_DEVICE", B, written(sizes={"vda": 20 * GIB}), written()),
    Case("DISK_GROWS", I, sized({"vda": 20 * GIB}), sized({})),
    Case(
        "VERIFY_NOT_DEEP",
        W,
        copied(request=request(verify="deep")),
        copied(request=request(verify="deep"), offline=True, chains={"vda": (FILE,)}),
    ),
    Case("HOSTS_PATH_UNFIT", B, mirrored(replace(FILE, snapshots=1)), mirrored()),
    Case(
        "HOSTS_PATH_NEEDS_OFFLINE",
        B,
        copied(method=Method.SAVED, request=request(data_path="hosts"), data_path=DataPath.WORKER),
        copied(method=Method.SAVED, data_path=DataPath.WORKER),
    ),
    Case(
        "WORKER_PATH_NEEDS_OFFLINE",
        B,
        copied(request=request(data_path="worker"), data_path=DataPath.HOSTS),
        copied(request=request(data_path="hosts"), data_path=DataPath.HOSTS),
    ),
    Case("STARTED_PAUSED", I, mirrored(), mirrored(replace(FILE, snapshots=1))),
    # What libvirt must be able to start there, and to migrate, although the VM is shut off.
    Case(
        "MEMORY_TOO_SMALL",
        B,
        mirrored(destination=facts("beta", pools=(POOL, ROOMY), memory_free_kib=1)),
        mirrored(),
    ),
    Case(
        "DISK_TRANSIENT",
        B,
        mirrored(domain=parse_domain(domain_xml(file_disk(LOCAL, inside="<driver type='qcow2'/><transient/>")))),
        mirrored(),
    ),
    Case("COPY_POOL_MISSING", B, copied(pool=replace(ROOMY, active=False)), copied()),
    Case("COPY_POOL_MISSING", B, copied(pools={"*": "fast"}), copied(pools={"*": "default"})),
    Case("COPY_POOL_UNFIT", B, copied(pool=LVM, pools={"*": "vg"}), copied()),
    Case("COPY_NO_SPACE", B, copied(pool=replace(ROOMY, available_bytes=2 * GIB)), copied()),
    Case(
        "COPY_NO_SPACE",
        B,
        copied(file_disk(LOCAL, inside=QCOW2 + CHAIN), pool=replace(ROOMY, available_bytes=3 * GIB)),
        copied(pool=replace(ROOMY, available_bytes=3 * GIB)),
    ),
    Case("COPY_MAY_FILL_POOL", W, copied(pool=replace(ROOMY, available_bytes=5 * GIB)), copied()),
    Case("BACKING_CHAIN_FLATTENED", W, copied(file_disk(LOCAL, inside=QCOW2 + CHAIN)), copied()),
    Case("HOST_CORDONED", B, situation(cordon=Cordon(host="beta", reason="fans", at=1.0)), OK),
    Case("SAME_HOST", B, situation(destination=facts("beta", uuid="host-alpha")), OK),
    Case("SAME_HOSTNAME", B, situation(destination=facts("beta", hostname="alpha.example")), OK),
    Case("DESTINATION_HAS_SAME_UUID", B, situation(on_destination=(off("beta"),)), OK),
    Case(
        "DESTINATION_HAS_SAME_UUID",
        B,
        situation(on_destination=(off("beta", mark=Mark("m2", 1, 1)),)),
        situation(on_destination=(off("beta", mark=Mark("m1", 1, 1)),)),
    ),
    Case(
        "DESTINATION_HAS_SAME_UUID",
        B,
        situation(on_destination=(off("beta", name="renamed"),)),
        situation(on_destination=(off("beta", uuid=OTHER_UUID),)),
    ),
    Case(
        "DESTINATION_HAS_SAME_NAME",
        B,
        situation(on_destination=(off("beta", uuid=OTHER_UUID, mark=Mark("m1", 1, 1)),)),
        situation(on_destination=(off("beta", mark=Mark("m1", 1, 1)),)),
    ),
    Case("DESTINATION_HAS_SAME_NAME", B, situation(on_destination=(view("beta", uuid=OTHER_UUID),)), OK),
    Case("RUNNING_ON_BOTH", B, situation(on_destination=(view("beta", mark=Mark("m1", 1, 1)),)), OK),
    Case("RUNNING_ON_DESTINATION", B, situation(offline=True, on_destination=(view("beta"),)), OK_OFF),
    Case("RUNNING_ELSEWHERE", B, situation(elsewhere=(view("gamma"),)), situation(elsewhere=(off("gamma"),))),
    Case(
        "DEFINED_ELSEWHERE", W, situation(elsewhere=(off("gamma"),)), situation(elsewhere=(off("c", uuid=OTHER_UUID),))
    ),
    Case(
        "MARKED_BY_ANOTHER",
        W,
        situation(view=view(mark=Mark("m2", 1, 1))),
        situation(view=view(mark=Mark("m1", 1, 1))),
    ),
    Case("TRANSIENT_VM", W, situation(view=view(persistent=False)), OK),
    Case("TRANSIENT_OFFLINE", B, situation(offline=True, view=off(persistent=False)), OK_OFF),
    Case("AUTOSTART_MOVES", I, situation(view=view(autostart=True)), OK),
    Case("JOB_ACTIVE", B, situation(view=view(job=JobStats(active=True, is_migration=False))), OK),
    # Disks
    Case("DISK_NOT_SHARED", B, situation(domain_xml(file_disk(LOCAL))), OK),
    Case("DISK_NOT_SHARED", B, situation(domain_xml(file_disk(LOCAL)), offline=True), OK_OFF),
    Case("DISK_NOT_SHARED", B, situation(domain_xml(file_disk(f"{SHARED}/../x.img"))), OK),
    Case("DISK_NOT_SHARED", B, situation(domain_xml(file_disk(f"{SHARED}2/x.img"))), OK),
    Case("DISK_NOT_SHARED", B, situation(**hosts(destination=OTHER_EXPORT)), OK),  # type: ignore[arg-type]
    Case("DISK_NOT_SHARED", B, situation(**hosts(destination=OTHER_PLACE)), OK),  # type: ignore[arg-type]
    Case("DISK_NOT_SHARED", B, situation(**hosts(destination=INACTIVE)), OK),  # type: ignore[arg-type]
    Case("DISK_NOT_SHARED", B, situation(**hosts(source=INACTIVE)), OK),  # type: ignore[arg-type]
    Case(
        "DISK_NOT_SHARED",
        B,
        situation(domain_xml(file_disk(f"{SHARED}/inner/a.img")), source=facts("alpha", pools=(POOL, FS))),
        situation(domain_xml(file_disk(f"{SHARED}/inner/a.img"))),
    ),
    Case("DISK_NOT_SHARED", B, situation(inactive=domain_xml(file_disk(LOCAL, target="vdb"))), OK),
    Case("DISK_SHARED", I, OK, situation(domain_xml(file_disk(LOCAL)))),
    Case("BACKING_FILE_NOT_SHARED", B, situation(backed(LOCAL)), situation(backed(f"{SHARED}/base.qcow2"))),
    Case(
        "BACKING_CHAIN_UNSEEN",
        I,
        situation(domain_xml(file_disk(f"{SHARED}/a", inside="<driver type='qcow2'/>")), offline=True),
        situation(domain_xml(file_disk(f"{SHARED}/a", inside="<driver type='raw'/>")), offline=True),
    ),
    Case(
        "DISK_NOT_ON_DESTINATION",
        B,
        situation(media={f"{SHARED}/a.img": False}),
        situation(media={f"{SHARED}/a.img": True}),
    ),
    Case(
        "DISK_NOT_ON_DESTINATION",
        B,
        situation(media={f"{SHARED}/a.img": False}, offline=True),
        situation(domain_xml(file_disk(LOCAL)), media={LOCAL: False}),
    ),
    Case("DISK_SHARING_UNPROVEN", B, dev("<disk type='block'><source dev='/dev/vg/a'/><target dev='vdb'/></disk>"), OK),
    Case("DISK_ON_NETWORK", I, dev(PR), OK),
    Case("DISK_SERVER_LOCAL", B, dev(served("name='localhost' port='10809'")), dev(served("name='storage'"))),
    Case(
        "DISK_SERVER_LOCAL", B, dev(served("transport='unix' socket='/run/nbd.sock'")), dev(served("name='10.0.0.1'"))
    ),
    Case(
        "DATA_FILE_UNSEEN",
        W,
        dev("", offline=True, chains={"vda": (replace(FILE, external_data=True),)}),
        dev("", offline=True, chains={"vda": (FILE,)}),
    ),
    Case("POOL_MISSING", B, dev(volume(), **hosts(destination=INACTIVE)), dev(volume())),
    Case("VOLUME_NOT_SHARED", B, dev(volume("default")), dev(volume())),
    Case("VOLUME_NOT_SHARED", B, dev(volume(), **hosts(destination=OTHER_EXPORT)), dev(volume())),
    Case("MOUNT_OPTIONS_RISKY", W, mounted_with("hard,nolock"), mounted_with("hard,vers=4.2")),
    Case("MOUNT_OPTIONS_RISKY", W, mounted_with("soft"), mounted_with("hard")),
    Case("VOLUME_SHARED", I, dev(volume()), dev(volume("default"))),
    Case("DISK_IS_HOST_DEVICE", B, dev("<disk type='nvme'><source namespace='1'/><target dev='vdb'/></disk>"), OK),
    Case("DISK_TYPE_UNKNOWN", B, dev("<disk type='new'><source a='1'/><target dev='vdb'/></disk>"), OK),
    Case("MEDIUM_MISSING", B, dev(cdrom(ISO), media={ISO: False}), dev(cdrom(ISO), media={ISO: True})),
    Case("MEDIUM_MISSING", B, dev(cdrom(ISO, "optional"), media={ISO: False}), dev(cdrom(f"{SHARED}/a.iso"))),
    Case("MEDIUM_MISSING", W, dev(cdrom(ISO, "optional"), offline=True, media={ISO: False}), dev(cdrom(""))),
    Case("MEDIUM_UNSEEN", W, dev(cdrom(ISO), media={ISO: None}), dev(cdrom(f"{SHARED}/a.iso"))),
    Case("MEDIUM_UNSEEN", B, dev(cdrom(ISO), offline=True), dev(cdrom(ISO), offline=True, media={ISO: True})),
    Case(
        "MEDIUM_IS_HOST_DEVICE",
        B,
        dev("<disk type='block' device='cdrom'><source dev='/dev/sr0'/><target dev='sda'/></disk>"),
        dev("<disk type='block' device='cdrom'><target dev='sda'/></disk>"),
    ),
    Case("DISK_TRANSIENT", B, situation(domain_xml(file_disk(f"{SHARED}/a", inside="<transient/>"))), OK),
    Case("DISK_SHAREABLE", I, situation(domain_xml(file_disk(f"{SHARED}/a", inside="<shareable/>"))), OK),
    Case("DISK_NEEDS_RESERVATIONS", W, dev(PR), OK),
    # State beside the disks
    Case("NVRAM_COPIED", I, boot(NVRAM, offline=True), boot(SHARED_NVRAM, offline=True)),
    Case("NVRAM_LEFT_ON_SOURCE", I, boot(NVRAM), boot(SHARED_NVRAM)),
    Case("NVRAM_NOT_A_FILE", B, boot("<nvram type='block'><source dev='/dev/n'/></nvram>"), boot(NVRAM)),
    Case("NVRAM_NOT_A_FILE", B, boot("<nvram><source pool='p' volume='v'/></nvram>", offline=True), boot(NFS_NVRAM)),
    Case("TPM_STATE_NOT_COPIED", B, dev(TPM_ELSEWHERE, offline=True), dev(TPM, offline=True)),
    Case("TPM_STATE_COPIED", I, dev(TPM, offline=True), OK_OFF),
    Case("TPM_STATE_LEFT_ON_SOURCE", I, dev(TPM), OK),
    Case(
        "TPM_IS_HOST_DEVICE", B, dev("<tpm><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>"), OK
    ),
    Case("MANAGED_SAVE", B, situation(offline=True, view=off(managed_save=True)), OK_OFF),
    Case("MANAGED_SAVE", W, situation(view=view(managed_save=True)), OK),
    Case(
        "BOOT_FILE_MISSING",
        B,
        boot("<kernel>/boot/k</kernel>", media={"/boot/k": False}),
        boot("<kernel>/boot/k</kernel>", media={"/boot/k": True}),
    ),
    Case("BOOT_FILE_UNSEEN", W, boot("<kernel>/boot/k</kernel>"), boot(f"<kernel>{SHARED}/k</kernel>")),
    # Devices of the host
    Case("HOST_DEVICE", B, dev(PCI), OK),
    Case("HOST_DEVICE", B, dev(PCI, offline=True), OK_OFF),
    Case("HOST_DEVICE", B, dev("<interface type='hostdev'><mac address='52:54:00:00:00:01'/></interface>"), OK),
    Case("VDPA_DEVICE", B, dev(card("vdpa", "dev='/dev/vhost-vdpa-0'")), OK),
    Case("INPUT_DEVICE", B, dev("<input type='evdev'><source dev='/dev/input/event1'/></input>"), OK),
    Case(
        "RANDOM_DEVICE",
        W,
        dev("<rng model='virtio'><backend model='random'>/dev/odd</backend></rng>"),
        dev("<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"),
    ),
    Case("RENDER_NODE", W, dev("<graphics type='egl-headless'><gl rendernode='/dev/dri/renderD128'/></graphics>"), OK),
    Case(
        "VSOCK_ADDRESS",
        W,
        dev("<vsock><cid auto='no' address='3'/></vsock>"),
        dev("<vsock><cid auto='yes' address='3'/></vsock>"),
    ),
    Case("VIRTIOFS_LIVE", B, dev(VIRTIOFS.format(f"{SHARED}/d")), dev(VIRTIOFS.format(f"{SHARED}/d"), offline=True)),
    Case("FILESYSTEM_NOT_SHARED", B, dev(P9.format("/data"), offline=True), dev(P9.format(f"{SHARED}/d"))),
    Case("FILESYSTEM_MOUNTED", W, dev(P9.format(f"{SHARED}/d")), dev(P9.format(f"{SHARED}/d"), offline=True)),
    Case("VHOST_USER", B, dev(VHOST_USER), OK),
    Case("VHOST_USER", W, dev(VHOST_USER, offline=True), OK_OFF),
    Case("SHARED_MEMORY", B, dev("<shmem name='s'/>"), OK),
    Case("MEMORY_FILE_NOT_SHARED", B, dev(NVDIMM.format("/tmp/nv")), dev(NVDIMM.format(f"{SHARED}/nv"))),
    Case(
        "SECRET_UNSEEN",
        W,
        dev(file_disk(f"{SHARED}/b", target="vdb", inside=f"<encryption><secret uuid='{OTHER_UUID}'/></encryption>")),
        OK,
    ),
    Case("SECRET_MISSING", B, secret({}), secret({OTHER_UUID: True})),
    Case("SECRET_MISSING", B, secret({OTHER_UUID: False}), secret({OTHER_UUID: True})),
    Case("NWFILTER_MISSING", B, filtered(frozenset()), filtered(frozenset({"clean-traffic"}))),
    Case("MAC_IN_USE", B, situation(mac_users={"52:54:00:00:00:01": ("other",)}), situation(mac_users={"52:54": ()})),
    Case("LAUNCH_SECURITY", B, extra("<launchSecurity type='sev'/>"), OK),
    Case("QEMU_COMMANDLINE", B, extra(QEMU), OK),
    Case("RESOURCE_UNKNOWN", B, dev("<teleporter to='mars'/>"), OK),
    Case("REMOTE_ENDPOINT", I, dev("<serial type='tcp'><source host='logs' service='9'/></serial>"), OK),
    Case(
        "REMOTE_ENDPOINT",
        I,
        dev("<channel type='unix'><source mode='bind' path='/run/a.sock'/></channel>"),
        dev("<channel type='unix'><source mode='bind' path='/run/auto'/></channel>", inactive=domain_xml()),
    ),
    # What the destination can run
    Case("VIRT_TYPE_MISSING", B, situation(destination=facts("beta", virt_types=frozenset({"qemu"}))), OK),
    Case("ARCH_DIFFERS", B, situation(destination=facts("beta", arch="aarch64")), OK),
    Case("MACHINE_MISSING", B, situation(domain_xml(machine="pc-q35-9.0")), OK),
    Case("MACHINE_UNSEEN", W, situation(destination=facts("beta", machines=frozenset())), OK),
    Case(
        "EMULATOR_MISSING", B, situation(destination=facts("beta", emulators=frozenset({"/usr/libexec/qemu-kvm"}))), OK
    ),
    Case(
        "EMULATOR_UNSEEN",
        W,
        situation(
            source=facts("alpha", emulators=frozenset({"/x"})), destination=facts("beta", emulators=frozenset({"/x"}))
        ),
        OK,
    ),
    Case("LIBVIRT_OLDER", B, situation(destination=facts("beta", libvirt_version=8_000_000)), OK),
    Case("LIBVIRT_OLDER", W, situation(offline=True, destination=facts("beta", libvirt_version=8_000_000)), OK_OFF),
    Case("HYPERVISOR_OLDER", B, situation(destination=facts("beta", hypervisor_version=6_000_000)), OK),
    Case("MEMORY_TOO_SMALL", B, situation(destination=facts("beta", memory_free_kib=512 * 1024 - 1)), OK),
    Case("MEMORY_TOO_SMALL", W, situation(offline=True, destination=facts("beta", memory_free_kib=1)), OK_OFF),
    Case("MEMORY_UNSEEN", W, situation(destination=facts("beta", memory_total_kib=0, memory_free_kib=0)), OK),
    Case(
        "VCPUS_OVERCOMMITTED",
        W,
        situation(destination=facts("beta", cpus=1)),
        situation(destination=facts("b", cpus=2)),
    ),
    Case(
        "PINNED_CPU_MISSING",
        B,
        extra("<cputune><vcpupin vcpu='0' cpuset='2-4'/></cputune>"),
        extra("<cputune><vcpupin vcpu='0' cpuset='2-3'/></cputune>"),
    ),
    Case(
        "PINNED_NODE_UNSEEN", W, extra(NODE_1), extra(NODE_1, destination=facts("beta", numa_nodes=frozenset({0, 1})))
    ),
    Case(
        "PINNED_NODE_MISSING",
        B,
        extra(NODE_1, destination=facts("beta", numa_nodes=frozenset({0}))),
        extra(NODE_1, destination=facts("beta", numa_nodes=frozenset({0, 1}))),
    ),
    Case(
        "POST_COPY_TOO_OLD", W, situation(post_copy=True, destination=facts("beta", libvirt_version=8_004_000)), EAGER
    ),
    Case("POST_COPY_TOO_OLD", W, situation(post_copy=True, source=facts("alpha", hypervisor_version=2_012_000)), EAGER),
    Case("POST_COPY_TOO_OLD", W, situation(post_copy=True, source=facts("alpha", libvirt_version=8_004_000)), OLD),
    Case("POST_COPY_MEMORY", W, extra(HUGE, post_copy=True), extra(HUGE)),
    Case(
        "POST_COPY_MEMORY",
        W,
        extra(MEMORY.format("file"), post_copy=True),
        extra(MEMORY.format("memfd"), post_copy=True),
    ),
    Case("POST_COPY_PAUSED", W, situation(post_copy=True, view=view(state=DomainState.PAUSED)), EAGER),
    Case("HUGEPAGES_UNSEEN", W, extra("<memoryBacking><hugepages/></memoryBacking>"), OK),
    Case(
        "HUGEPAGES_TOO_FEW",
        B,
        extra(HUGE, destination=facts("beta", free_hugepages={2048: 255})),
        extra(HUGE, destination=facts("beta", free_hugepages={2048: 256})),
    ),
    Case(
        "TPM_UNSUPPORTED",
        B,
        dev(TPM, destination=facts("beta", tpm_versions=frozenset({"1.2"}))),
        dev(TPM, destination=facts("beta", tpm_versions=frozenset({"2.0"}))),
    ),
    Case("CPU_INCOMPATIBLE", B, situation(cpu_fits=False), situation(cpu_fits=True)),
    Case("CPU_HOST_PASSTHROUGH", W, extra("<cpu mode='host-passthrough'/>"), extra("<cpu mode='custom'/>")),
    Case("CPU_FOLLOWS_HOST", I, extra("<cpu mode='host-model'/>"), extra("<cpu mode='custom'/>")),
    Case("TSC_RATE_UNKNOWN", B, extra(TSC), extra(TSC + "<clock><timer name='tsc' frequency='2400000000'/></clock>")),
    Case("TSC_RATE_UNKNOWN", B, extra(TSC), extra(TSC, offline=True)),
    Case("CLOCK_LOCAL_TIME", W, extra("<clock offset='localtime'/>"), extra("<clock offset='utc'/>")),
    Case("SECURITY_MODEL_MISSING", B, labelled("selinux", {"apparmor"}), labelled("selinux", {"selinux"})),
    Case("SECURITY_MODEL_MISSING", B, labelled("apparmor", {"none", "dac"}), labelled("dac", {"none"})),
    # Connections
    Case("NETWORK_MISSING", B, dev(card("network", "network='dmz'")), dev(card("network", "network='default'"))),
    Case("NETWORK_MISSING", B, dev(card("network", "network='dmz'"), offline=True), OK_OFF),
    Case(
        "NETWORK_INACTIVE",
        B,
        dev(card("network", "network='n'"), destination=facts("beta", networks=(Network("n", active=False),))),
        dev(card("network", "network='n'"), destination=facts("beta", networks=(Network("n", active=True),))),
    ),
    Case(
        "PORT_GROUP_MISSING",
        B,
        dev(GROUPED, destination=facts("beta", networks=(Network("n", active=True),))),
        dev(GROUPED, destination=facts("beta", networks=(Network("n", active=True, port_groups=frozenset({"dmz"})),))),
    ),
    Case("BRIDGE_MISSING", B, dev(card("bridge", "bridge='br7'")), dev(card("bridge", "bridge='br0'"))),
    Case("INTERFACE_MISSING", B, dev(card("direct", "dev='eth7'")), dev(card("direct", "dev='eth0'"))),
    Case(
        "INTERFACE_UNSEEN",
        W,
        dev(card("bridge", "bridge='br7'"), destination=facts("beta", interfaces=frozenset())),
        dev(card("bridge", "bridge='virbr0'"), destination=facts("beta", interfaces=frozenset())),
    ),
    Case("NWFILTER_UNSEEN", W, dev("<interface type='user'><filterref filter='clean-traffic'/></interface>"), OK),
    Case("INTERFACE_SCRIPT", W, dev("<interface type='ethernet'><script path='/etc/up'/></interface>"), OK),
    Case("GRAPHICS_LISTEN_ADDRESS", W, dev(LISTEN.format("10.0.0.1")), dev(LISTEN.format("0.0.0.0"))),
    Case("GRAPHICS_LISTEN_MOVED", I, dev(LISTEN.format("alpha.example")), dev(LISTEN.format("127.0.0.1"))),
    Case("GRAPHICS_PORT", W, dev("<graphics type='vnc' port='5901'/>"), dev("<graphics type='vnc' port='-1'/>")),
    Case(
        "GRAPHICS_PORT",
        W,
        dev("<graphics type='spice' tlsPort='5902'/>"),
        dev("<graphics type='vnc' websocket='5700'/>", inactive=domain_xml()),
    ),
    Case("GRAPHICS_SOCKET", I, dev("<graphics type='vnc' socket='/run/vnc.sock'/>"), OK),
    Case(
        "CONSOLE_FILE", I, dev("<serial type='file'><source path='/var/log/c'/></serial>"), dev("<serial type='pty'/>")
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{case.code}" for i, case in enumerate(CASES)])
def test_rule_objects_and_passes(case: Case) -> None:
    objections = [f for f in run_rules(case.objects) if f.code == case.code]
    assert [f.severity for f in objections] == [case.severity] * len(objections) != []
    assert case.code not in {f.code for f in run_rules(case.passes)}


def test_every_code_has_a_case() -> None:
    assert {case.code for case in CASES} == set(DESCRIPTIONS)


def test_every_finding_is_declared_by_its_rule_and_says_something() -> None:
    for case in CASES:
        for rule in RULES:
            for finding in rule(case.objects):
                assert finding.code in rule.codes, rule.name
                assert finding.message.strip()
                assert finding.severity is not B or finding.hint


def test_codes_belong_to_one_rule_each() -> None:
    assert sum(len(rule.codes) for rule in RULES) == len(DESCRIPTIONS)


@pytest.mark.parametrize("offline", [False, True])
def test_a_vm_on_shared_storage_may_move(offline: bool) -> None:
    assert [f for f in run_rules(situation(offline=offline)) if f.severity is not I] == []


def test_all_findings_are_reported_blockers_first() -> None:
    bad = situation(domain_xml(file_disk(LOCAL) + TPM_ELSEWHERE + LISTEN.format("10.0.0.1")), offline=True)
    severities = [f.severity for f in run_rules(bad)]
    assert {f.code for f in run_rules(bad)} >= {"DISK_NOT_SHARED", "TPM_STATE_NOT_COPIED", "GRAPHICS_LISTEN_ADDRESS"}
    assert severities == sorted(severities, key=[B, W, I].index)


def test_unknown_values_are_not_repeated_in_findings() -> None:
    secret = "hunter2"  # noqa: S105
    findings = run_rules(
        situation(domain_xml(SHARED_DISK + f"<odd key='{secret}'/>", extra=QEMU.replace("-x", secret)))
    )
    assert {"RESOURCE_UNKNOWN", "QEMU_COMMANDLINE"} <= {f.code for f in findings}
    assert not any(secret in f.message + f.hint for f in findings)


@pytest.mark.parametrize("code", sorted(ACCEPTABLE))
def test_a_named_blocker_is_accepted_and_said_to_be(code: str) -> None:
    case = next(case for case in CASES if case.code == code and case.severity is B)
    accepting = replace(case.objects, request=case.objects.request.model_copy(update={"accept": [code]}))
    found = [f for f in run_rules(accepting) if f.code == code]
    assert [(f.severity, f.accepted) for f in found] == [(W, True)] * len(found) != []


@pytest.mark.parametrize("code", sorted({case.code for case in CASES if case.severity is B} - ACCEPTABLE))
def test_no_other_blocker_can_be_accepted(code: str) -> None:
    case = next(case for case in CASES if case.code == code and case.severity is B)
    accepting = replace(case.objects, request=case.objects.request.model_copy(update={"accept": [code]}))
    refused = [f for f in run_rules(accepting) if f.code == code]
    assert all(f.severity is B and not f.accepted and f.hint.endswith("it cannot be accepted") for f in refused)
    assert [f for f in run_rules(accepting) if f.code != code] == [f for f in run_rules(case.objects) if f.code != code]


@pytest.mark.parametrize("code", sorted(ACCEPTABLE))
def test_a_blocker_that_may_be_accepted_says_how(code: str) -> None:
    case = next(case for case in CASES if case.code == code and case.severity is B)
    assert all(f"--accept {code}" in f.hint for f in run_rules(case.objects) if f.code == code)


def test_accepting_one_says_nothing_of_the_others() -> None:
    both = dev("<odd key='/x'/>", inactive=domain_xml(SHARED_DISK, extra=QEMU))
    accepting = replace(both, request=request(accept=["RESOURCE_UNKNOWN"]))
    assert {f.code for f in run_rules(accepting) if f.severity is B} == {"QEMU_COMMANDLINE"}


def test_what_cannot_be_switched_to_post_copy_goes_without() -> None:
    assert may_switch(EAGER)
    assert not may_switch(situation())
    assert not may_switch(extra(HUGE, post_copy=True))
    assert not may_switch(OLD)
    assert not may_switch(situation(post_copy=True, method=Method.SUSPEND))
    assert all(f.severity is not Severity.BLOCKER for f in run_rules(extra(MEMORY.format("file"), post_copy=True)))
