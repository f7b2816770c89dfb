"""What preflight refuses is put to libvirt itself: it refuses it too, or the case says why preflight is stricter.

libvirt is asked as ``virsh migrate`` asks it: peer to peer, without any unsafe flag, with the definition as it is.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import libvirt
import pytest

from tasks.model.finding import Severity
from tasks.parallel import make_thread
from tests.lab import Guest, Lab
from tests.lab.devices import add_device, remove_device
from tests.lab.guest import POOL_PATHS
from tests.lab.shell import until
from tests.scenarios.stack import Stack, stack

pytestmark = pytest.mark.lab

LIVE = libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_LIVE
OFFLINE = libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_OFFLINE
STARTS_NO_MORE = "libvirt moves a definition that cannot be started on the destination"
OTHER = "<domain type='qemu'><name>{}</name><uuid>{}</uuid><memory>32768</memory><os><type>hvm</type></os></domain>"
OTHER_UUID = "7d1c0f6e-0000-4000-8000-0000000000a9"
NETWORK = "<network><name>only-here</name><forward mode='bridge'/><bridge name='br0'/></network>"
ISO = "/var/lib/libvirt/images/agree.iso"
CDROM = f"<disk type='file' device='cdrom'><source file='{ISO}'/><target dev='sda' bus='sata'/><readonly/></disk>"
SHMEM = "<shmem name='agree'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem>"
ONLY_POOL = "/var/lib/libvirt/only"
VOLUME = (
    "<disk type='volume' device='disk'><source pool='only-pool' volume='disk'/><target dev='vdb' bus='virtio'/></disk>"
)


ONLY_DIR = "/var/lib/libvirt/only-dir"
P9 = f"<filesystem type='mount' accessmode='mapped'><source dir='{ONLY_DIR}'/><target dir='only'/></filesystem>"
LOG = f"<serial type='file'><source path='{ONLY_DIR}/serial.log'/><target port='1'/></serial>"
MAC = "52:54:00:a9:ee:01"
TWIN = f"""<domain type='qemu'><name>agree-twin</name><uuid>{OTHER_UUID}</uuid><memory>32768</memory>
<os><type>hvm</type></os><devices><interface type='network'><mac address='{MAC}'/><source network='lab'/></interface>
</devices></domain>"""
TWIN_CARD = f"<interface type='network'><mac address='{MAC}'/><source network='lab'/><model type='virtio'/></interface>"
FIXED_PORT = 5987
VNC = f"<graphics type='vnc' port='{FIXED_PORT}' autoport='no' listen='127.0.0.1'/>"
QEMU = """<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><qemu:arg value='-msg'/>
<qemu:arg value='timestamp=on'/></qemu:commandline>"""
LABEL = (
    "<seclabel type='static' model='selinux' relabel='no'><label>system_u:system_r:svirt_t:s0:c1,c2</label></seclabel>"
)
SECRET_DISK = f"""<disk type='network' device='disk'><source protocol='rbd' name='pool/image'><host name='10.88.0.9'/>
<auth username='a'><secret type='ceph' uuid='{OTHER_UUID}'/></auth></source><target dev='vdz' bus='virtio'/></disk>"""
USB = "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/><product id='0x2'/></source></hostdev>"
V3_IMAGE = f"{POOL_PATHS['shared']}/agree-v3.qcow2"
V3_DISK = f"""<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/><source file='{V3_IMAGE}'/>
<target dev='vdy' bus='virtio'/></disk>"""
NBD_PORT = 10987
NBD_DISK = f"""<disk type='network' device='disk'><driver name='qemu' type='raw'/><source protocol='nbd' name='x'>
<host name='127.0.0.1' port='{NBD_PORT}'/></source><target dev='vdx' bus='virtio'/></disk>"""
UEFI = "<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>"


def within(place: str, xml: str) -> tuple[str, str]:
    """The change that adds something before the end of this element."""
    return f"</{place}>", f"{xml}</{place}>"


def after(place: str, xml: str) -> tuple[str, str]:
    """The same, behind this element."""
    return f"</{place}>", f"</{place}>{xml}"


def card(type_: str, source: str) -> str:
    return f"<interface type='{type_}'><source {source}/><model type='virtio'/></interface>"


@dataclass(frozen=True, slots=True)
class Case:
    """One flaw. ``error`` is libvirt's answer; None with ``stricter``: it takes the VM all the same.

    ``at_times`` is what it answers now and then instead.
    """

    code: str
    error: int | None = None
    stricter: str = ""
    at_times: int | None = None
    start: str = "running"
    options: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)
    flags: int | None = None
    """How libvirt is asked, when not as the VM's state suggests."""
    change: tuple[str, str] = ("", "")
    """What is replaced in the definition, by what."""
    around: Callable[[Lab], AbstractContextManager[Any]] = lambda lab: nullcontext()  # noqa: ARG005
    """Made before the guest."""
    beside: Callable[[Lab, Guest], AbstractContextManager[Any]] = lambda lab, guest: nullcontext()  # noqa: ARG005
    """Made when the guest is there."""
    name: str = ""
    severity: Severity = Severity.BLOCKER

    def __str__(self) -> str:
        return self.name or f"{self.code}-{self.start}"


@contextmanager
def network_here(lab: Lab) -> Iterator[None]:
    """Alpha has a libvirt network that nobody else has."""
    with contextlib.closing(lab.host("alpha").connect()) as conn:
        made = conn.networkDefineXML(NETWORK)
        made.create()
        try:
            yield
        finally:
            libvirt.virNetwork.destroy(made)
            made.undefine()


@contextmanager
def bridge_here(lab: Lab) -> Iterator[None]:
    """The same with a bridge."""
    lab.host("alpha").run(["ip", "link", "add", "only-br", "type", "bridge"])
    try:
        yield
    finally:
        lab.host("alpha").run(["ip", "link", "del", "only-br"])


@contextmanager
def iso_here(lab: Lab) -> Iterator[None]:
    """The same with an image for a drive."""
    file = lab.host("alpha").root / ISO.lstrip("/")
    file.write_bytes(bytes(1 << 20))
    try:
        yield
    finally:
        file.unlink()


@contextmanager
def image_there(lab: Lab) -> Iterator[None]:
    """Shared storage has an image of the kind that keeps bitmaps."""
    lab.host("alpha").run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=1.1", V3_IMAGE, "4M"])
    try:
        yield
    finally:
        lab.host("alpha").run(["rm", "--force", V3_IMAGE])


@contextmanager
def server_here(lab: Lab) -> Iterator[None]:
    """Alpha serves a disk to itself."""
    alpha = lab.host("alpha")
    image = alpha.root / "served.raw"
    image.write_bytes(bytes(4 << 20))
    command = ["qemu-nbd", "-t", "-f", "raw", "-x", "x", "-b", "127.0.0.1", "-p", str(NBD_PORT), str(image)]
    pid = alpha.start_daemon(command, alpha.root / "served.log")
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        image.unlink()


@contextmanager
def directory_here(lab: Lab) -> Iterator[None]:
    """The same with a directory."""
    folder = lab.host("alpha").root / ONLY_DIR.lstrip("/")
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    try:
        yield
    finally:
        shutil.rmtree(folder)


@contextmanager
def pool_here(lab: Lab) -> Iterator[None]:
    """The same with a pool that has a volume."""
    folder = lab.host("alpha").root / ONLY_POOL.lstrip("/")
    folder.mkdir()
    with contextlib.closing(lab.host("alpha").connect()) as conn:
        xml = f"<pool type='dir'><name>only-pool</name><target><path>{ONLY_POOL}</path></target></pool>"
        pool = conn.storagePoolCreateXML(xml, 0)
        pool.createXML("<volume><name>disk</name><capacity unit='MiB'>4</capacity></volume>", 0)
        try:
            yield
        finally:
            libvirt.virStoragePool.destroy(pool)
            shutil.rmtree(folder)


def defined_there(name: str, uuid: str) -> Callable[[Lab, Guest], AbstractContextManager[Any]]:
    """Beta has a domain of this name and UUID already; empty: the guest's."""

    @contextmanager
    def make(lab: Lab, guest: Guest) -> Iterator[None]:
        with contextlib.closing(lab.host("beta").connect()) as conn:
            there = conn.defineXML(OTHER.format(name or guest.name, uuid or guest.uuid))
            try:
                yield
            finally:
                there.undefine()

    return make


@contextmanager
def twin_there(lab: Lab, guest: Guest) -> Iterator[None]:
    """Beta has another VM with the same address of its network card."""
    with contextlib.closing(lab.host("beta").connect()) as conn:
        there = conn.defineXML(TWIN)
        try:
            yield
        finally:
            there.undefine()


@contextmanager
def port_taken(lab: Lab, guest: Guest) -> Iterator[None]:
    """Something of beta listens where the display wants to."""
    beta = lab.host("beta")
    log = beta.root / f"{guest.name}.log"
    code = f"import socket, time; s = socket.create_server(('127.0.0.1', {FIXED_PORT})); print(1, flush=True); "
    pid = beta.start_daemon([sys.executable, "-c", f"{code}time.sleep(300)"], log)
    try:
        until(lambda: log.read_text().strip() == "1", 5, "nothing listens")
        yield
    finally:
        os.kill(pid, signal.SIGKILL)


@contextmanager
def saved(lab: Lab, guest: Guest) -> Iterator[None]:
    """Its memory is in a file, and it is shut off."""
    with contextlib.closing(lab.host("alpha").connect()) as conn:
        conn.lookupByUUIDString(guest.uuid).managedSave()
    yield


@contextmanager
def with_checkpoint(lab: Lab, guest: Guest) -> Iterator[None]:
    """A backup was made of it, and the next one shall be incremental."""
    with contextlib.closing(lab.host("alpha").connect()) as conn:
        disks = "<disk name='vda' checkpoint='no'/><disk name='vdy' checkpoint='bitmap'/>"
        xml = f"<domaincheckpoint><name>one</name><disks>{disks}</disks></domaincheckpoint>"
        conn.lookupByUUIDString(guest.uuid).checkpointCreateXML(xml)
    yield


@contextmanager
def with_snapshot(lab: Lab, guest: Guest) -> Iterator[None]:
    """It has an internal snapshot that libvirt knows of."""
    with contextlib.closing(lab.host("alpha").connect()) as conn:
        conn.lookupByUUIDString(guest.uuid).snapshotCreateXML("<domainsnapshot><name>one</name></domainsnapshot>")
    yield


@contextmanager
def moving_already(lab: Lab, guest: Guest) -> Iterator[None]:
    """Somebody moves it by hand, slowly."""
    conn = lab.host("alpha").connect()
    domain = conn.lookupByUUIDString(guest.uuid)
    uri = lab.host("gamma").peer_uri("tcp")

    def move() -> None:
        with contextlib.suppress(libvirt.libvirtError):
            domain.migrateToURI3(uri, {libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: 1}, LIVE)

    thread = make_thread(move, "by-hand")
    thread.start()
    with contextlib.closing(lab.host("alpha").connect()) as other:
        same = other.lookupByUUIDString(guest.uuid)
        until(lambda: same.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE, 10, "the other migration does not begin")
        try:
            yield
        finally:
            same.abortJob()
            thread.join(20)
            conn.close()


@contextmanager
def device_there(lab: Lab, guest: Guest) -> Iterator[None]:
    """Beta has a device at the same place, which is another one."""
    add_device(lab.host("beta"), guest.volume, guest.options.disk_mib)
    try:
        yield
    finally:
        remove_device(lab.host("beta"), guest.volume)


SHARED = {"storage": "shared"}
CASES = [
    Case("DISK_NOT_SHARED", libvirt.VIR_ERR_MIGRATE_UNSAFE, options={"disk": "local"}, asked=SHARED),
    Case("DISK_NOT_SHARED", stricter=STARTS_NO_MORE, start="off", options={"disk": "local"}, asked=SHARED),
    Case(
        "DISK_SHARING_UNPROVEN",
        stricter="libvirt takes any block device for the same one, whatever is behind it",
        options={"disk": "devices", "disk_format": "raw"},
        asked=SHARED,
        beside=device_there,
    ),
    Case("MEDIUM_MISSING", libvirt.VIR_ERR_SYSTEM_ERROR, options={"extra_xml": CDROM}, around=iso_here),
    Case("MEDIUM_MISSING", stricter=STARTS_NO_MORE, start="off", options={"extra_xml": CDROM}, around=iso_here),
    Case(
        "NETWORK_MISSING",
        libvirt.VIR_ERR_NO_NETWORK,
        options={"extra_xml": card("network", "network='only-here'")},
        around=network_here,
    ),
    Case(
        "NETWORK_MISSING",
        stricter=STARTS_NO_MORE,
        start="off",
        options={"extra_xml": card("network", "network='only-here'")},
        around=network_here,
    ),
    Case(
        "BRIDGE_MISSING",
        libvirt.VIR_ERR_SYSTEM_ERROR,
        options={"extra_xml": card("bridge", "bridge='only-br'")},
        around=bridge_here,
    ),
    Case(
        "GRAPHICS_LISTEN_ADDRESS",
        libvirt.VIR_ERR_INTERNAL_ERROR,
        options={"extra_xml": "<graphics type='vnc' port='-1' autoport='yes' listen='10.88.0.11'/>"},
        severity=Severity.WARNING,  # which addresses a host has libvirt tells nobody
    ),
    Case("DESTINATION_HAS_SAME_NAME", libvirt.VIR_ERR_OPERATION_FAILED, beside=defined_there("", OTHER_UUID)),
    Case("DESTINATION_HAS_SAME_UUID", libvirt.VIR_ERR_OPERATION_FAILED, beside=defined_there("another", "")),
    Case(
        "DESTINATION_HAS_SAME_UUID",
        stricter="libvirt writes over a definition of the same name and UUID",
        beside=defined_there("", ""),
        name="DEFINED_ON_DESTINATION",
    ),
    Case("HAS_SNAPSHOTS", libvirt.VIR_ERR_OPERATION_INVALID, beside=with_snapshot),
    Case("JOB_ACTIVE", libvirt.VIR_ERR_OPERATION_INVALID, options={"fill_mib": 24}, beside=moving_already),
    Case("SHARED_MEMORY", libvirt.VIR_ERR_OPERATION_INVALID, options={"extra_xml": SHMEM}),
    Case(
        "POOL_MISSING",
        libvirt.VIR_ERR_MIGRATE_UNSAFE,
        options={"extra_xml": VOLUME},
        asked=SHARED,
        around=pool_here,
    ),
    Case(
        "CPU_INCOMPATIBLE",
        stricter="with check='none' features that are not there are left out without a word",
        change=("qemu64", "EPYC"),
    ),
    Case(
        "METHOD_NEEDS_SHUT_OFF_VM",
        stricter="libvirt defines a running VM there a second time, as one that is shut off",
        asked={"method": "offline"},
        flags=OFFLINE,
    ),
    Case(
        "DISK_TRANSIENT",
        libvirt.VIR_ERR_OPERATION_INVALID,
        change=("bus='virtio'/></disk>", "bus='virtio'/><transient/></disk>"),
    ),
    Case(
        "MANAGED_SAVE",
        stricter="libvirt leaves the saved memory behind, for whoever gets that name next",
        beside=saved,
    ),
    Case(
        "CHECKPOINTS_LOST",
        stricter="libvirt forgets checkpoints without a word",
        # 'cont' on the destination: "Could not reopen qcow2 layer: Bitmap '' doesn't satisfy the constraints"
        at_times=libvirt.VIR_ERR_INTERNAL_ERROR,
        options={"extra_xml": V3_DISK},
        around=image_there,
        beside=with_checkpoint,
        severity=Severity.WARNING,
    ),
    Case(
        "CONSOLE_FILE",
        libvirt.VIR_ERR_SYSTEM_ERROR,
        options={"extra_xml": LOG},
        around=directory_here,
        severity=Severity.INFO,
    ),
    Case("FILESYSTEM_NOT_SHARED", libvirt.VIR_ERR_INTERNAL_ERROR, options={"extra_xml": P9}, around=directory_here),
    Case(
        "FILESYSTEM_NOT_SHARED", stricter=STARTS_NO_MORE, start="off", options={"extra_xml": P9}, around=directory_here
    ),
    Case("DISK_SERVER_LOCAL", libvirt.VIR_ERR_INTERNAL_ERROR, options={"extra_xml": NBD_DISK}, around=server_here),
    Case(
        "MAC_IN_USE",
        stricter="libvirt does not compare addresses of network cards",
        options={"extra_xml": TWIN_CARD},
        beside=twin_there,
    ),
    Case(
        "GRAPHICS_PORT",
        libvirt.VIR_ERR_INTERNAL_ERROR,
        options={"extra_xml": VNC},
        beside=port_taken,
        severity=Severity.WARNING,  # who listens on a host libvirt tells nobody
    ),
    Case(
        "PORT_GROUP_MISSING",
        stricter="libvirt connects the card as if no port group had been named",
        options={"extra_xml": card("network", "network='lab' portgroup='dmz'")},
    ),
    Case(
        "QEMU_COMMANDLINE",
        stricter="libvirt hands the arguments on unread",
        change=after("devices", QEMU),
    ),
    Case(
        "CLOCK_LOCAL_TIME",
        stricter="libvirt does not know in which time zone its peer is",
        change=after("features", "<clock offset='localtime'/>"),
        severity=Severity.WARNING,
    ),
    Case("SECURITY_MODEL_MISSING", stricter=STARTS_NO_MORE, start="off", change=after("devices", LABEL)),
    Case("SECRET_MISSING", stricter=STARTS_NO_MORE, start="off", options={"extra_xml": SECRET_DISK}),
    Case(
        "NWFILTER_MISSING",
        stricter=STARTS_NO_MORE,
        start="off",
        options={"extra_xml": TWIN_CARD.replace("<model", "<filterref filter='none-such'/><model")},
    ),
    Case("PINNED_CPU_MISSING", stricter=STARTS_NO_MORE, start="off", change=("<vcpu>", "<vcpu cpuset='500'>")),
    Case(
        "PINNED_NODE_MISSING",
        stricter=STARTS_NO_MORE,
        start="off",
        change=after("vcpu", "<numatune><memory nodeset='99'/></numatune>"),
    ),
    Case(
        "HUGEPAGES_TOO_FEW",
        stricter=STARTS_NO_MORE,
        start="off",
        change=after("memory", "<memoryBacking><hugepages><page size='2048'/></hugepages></memoryBacking>"),
        severity=Severity.WARNING,  # pages can be set aside before it is started
    ),
    Case(
        "MEMORY_TOO_SMALL",
        stricter=STARTS_NO_MORE,
        start="off",
        options={"memory_mib": 4_000_000},
        severity=Severity.WARNING,
    ),
    Case(
        "NVRAM_NOT_A_FILE",
        stricter=STARTS_NO_MORE,
        start="off",
        options={"os_xml": f"{UEFI}<nvram type='block'><source dev='/dev/no'/></nvram>"},
    ),
    Case(
        "VHOST_USER",
        stricter=STARTS_NO_MORE,
        start="off",
        options={"extra_xml": card("vhostuser", "type='unix' path='/run/no' mode='client'")},
        severity=Severity.WARNING,  # the same process may be started there
    ),
    Case(
        "HOST_DEVICE",
        stricter=STARTS_NO_MORE,
        start="off",
        options={"extra_xml": USB},
    ),
]

EVERYDAY = """<serial type='pty'><target port='0'/></serial>
<console type='pty'><target type='serial' port='0'/></console>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<input type='tablet' bus='virtio'/><graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/>
<video><model type='virtio'/></video><rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
<watchdog model='i6300esb' action='reset'/><panic model='isa'/></devices>"""
"""What virt-install gives a VM."""


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(lab, tmp_path_factory.mktemp("agreement")) as made:
        yield made


@pytest.mark.parametrize("case", CASES, ids=str)
def test_libvirt_agrees(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest], case: Case, request: pytest.FixtureRequest
) -> None:
    assert (case.error is None) == bool(case.stricter)
    with ExitStack() as held:
        held.enter_context(case.around(lab))
        guest = make_guest(f"agree-{request.node.callspec.indices['case']}", start="off", **case.options)
        held.callback(guest.remove)
        with contextlib.closing(lab.host("alpha").connect()) as conn:
            domain = conn.defineXML(guest.xml.replace(*case.change))
            if case.start == "running":
                domain.create()
                guest.wait_ticking()
            held.enter_context(case.beside(lab, guest))
            plan = running.client.plan({"vm": guest.name, "destination": "beta"} | case.asked)
            print(*plan.findings, sep="\n")
            assert (case.code, case.severity) in [(f.code, f.severity) for f in plan.findings]
            flags = LIVE if domain.isActive() else OFFLINE
            answer = _ask(domain, lab, flags if case.flags is None else case.flags)
            assert answer in (case.error, case.at_times or case.error)


def test_an_everyday_vm_is_not_refused(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    """What libvirt itself adds to the definition while it runs, pseudo-terminals and ports, is no obstacle."""
    guest = make_guest("agree-everyday", start="off")
    xml = re.sub(r"<serial type='file'>.*?</serial>", "", guest.xml).replace("</devices>", EVERYDAY)
    with contextlib.closing(lab.host("alpha").connect()) as conn:
        domain = conn.defineXML(xml)
        domain.create()
        assert "tty='/dev/pts/" in domain.XMLDesc()
        plan = running.client.plan({"vm": guest.name, "destination": "beta"})
        print(*plan.findings, sep="\n")
        # The lab's guests boot from a kernel beside all pools; nothing else is worth a warning.
        assert {f.code for f in plan.findings if f.severity is not Severity.INFO} == {"BOOT_FILE_UNSEEN"}
        assert "REMOTE_ENDPOINT" not in {f.code for f in plan.findings}
        assert _ask(domain, lab, LIVE) is None
    guest.remove()


def _ask(domain: libvirt.virDomain, lab: Lab, flags: int) -> int | None:
    try:
        domain.migrateToURI3(lab.host("beta").peer_uri("tcp"), {}, flags)
    except libvirt.libvirtError as error:
        print(error.get_error_code(), error)
        return int(error.get_error_code())
    return None
