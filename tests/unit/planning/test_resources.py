"""What of the host a definition names."""

from __future__ import annotations

import time

import pytest
from lxml import etree

from tasks.planning.resources import list_resources
from tests.unit.planning.builders import UUID, domain_xml

PCI = "<address domain='0x0000' bus='0x3b' slot='0x02' function='0x1'/>"
QEMU = "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'"


def found(xml: str) -> set[tuple[str, str]]:
    return {(r.kind, r.value) for r in list_resources(xml) if r.known}


def unknown(xml: str) -> set[tuple[str, str]]:
    return {(r.kind, r.value) for r in list_resources(xml) if not r.known}


@pytest.mark.parametrize(
    ("devices", "kind", "value"),
    [
        ("<disk type='file'><source file='/a'/></disk>", "file", "/a"),
        ("<disk type='block'><source dev='/dev/a'/></disk>", "block", "/dev/a"),
        ("<disk type='dir'><source dir='/d'/></disk>", "directory", "/d"),
        ("<disk type='volume'><source pool='p' volume='v'/></disk>", "volume", "p/v"),
        ("<disk type='volume'><source pool='p' volume='v'/></disk>", "pool", "p"),
        ("<disk type='network'><source protocol='rbd' name='p/i'/></disk>", "network-storage", "rbd:p/i"),
        (
            "<disk type='network'><source protocol='nbd'><host name='h' port='1'/></source></disk>",
            "storage-host",
            "h:1",
        ),
        ("<disk type='network'><source><host transport='unix' socket='/s'/></source></disk>", "socket", "/s"),
        ("<disk type='network'><source><config file='/etc/ceph.conf'/></source></disk>", "file", "/etc/ceph.conf"),
        ("<disk type='network'><auth><secret type='ceph' uuid='u'/></auth></disk>", "secret", "u"),
        ("<disk><source file='/a'><encryption><secret uuid='u'/></encryption></source></disk>", "secret", "u"),
        ("<disk type='vhostuser'><source type='unix' path='/s'/></disk>", "vhost-user", "/s"),
        ("<disk type='vhostvdpa'><source dev='/dev/vhost-vdpa-0'/></disk>", "vdpa", "/dev/vhost-vdpa-0"),
        (f"<disk type='nvme'><source namespace='1'>{PCI}</source></disk>", "pci", "0000:3b:02.1"),
        ("<disk><backingStore><source file='/b'/></backingStore></disk>", "file", "/b"),
        (
            "<disk><backingStore><backingStore><source file='/c'/></backingStore></backingStore></disk>",
            "file",
            "/c",
        ),
        ("<disk><mirror><source file='/m'/></mirror></disk>", "file", "/m"),
        ("<disk><source file='/a'><dataStore><source file='/d'/></dataStore></source></disk>", "file", "/d"),
        (
            "<disk><source dev='/d'><reservations><source path='/pr'/></reservations></source></disk>",
            "persistent-reservations",
            "/pr",
        ),
        ("<interface type='network'><source network='n'/></interface>", "network", "n"),
        ("<interface type='bridge'><source bridge='b'/></interface>", "bridge", "b"),
        ("<interface type='direct'><source dev='eth0'/></interface>", "interface", "eth0"),
        ("<interface type='vdpa'><source dev='/dev/v'/></interface>", "vdpa", "/dev/v"),
        ("<interface type='vhostuser'><source path='/v'/></interface>", "vhost-user", "/v"),
        (f"<interface type='hostdev'><source>{PCI}</source></interface>", "pci", "0000:3b:02.1"),
        ("<interface type='user'><filterref filter='f'/></interface>", "nwfilter", "f"),
        ("<interface type='ethernet'><script path='/up'/></interface>", "script", "/up"),
        ("<interface type='user'><backend type='passt' logFile='/l'/></interface>", "log-file", "/l"),
        (f"<hostdev type='pci'><source>{PCI}</source></hostdev>", "pci", "0000:3b:02.1"),
        (
            "<hostdev type='usb'><source><vendor id='0x1'/><product id='0x2'/></source></hostdev>",
            "usb",
            "0x1:0x2",
        ),
        ("<hostdev type='usb'><source><address bus='1' device='2'/></source></hostdev>", "usb", "1.2"),
        ("<hostdev type='mdev'><source><address uuid='u'/></source></hostdev>", "mdev", "u"),
        (
            "<hostdev type='scsi'><source><address bus='0' target='1' unit='2'/></source></hostdev>",
            "scsi",
            "0:1:2",
        ),
        ("<hostdev type='scsi'><source><adapter name='scsi_host0'/></source></hostdev>", "scsi-adapter", "scsi_host0"),
        ("<hostdev mode='capabilities'><source><char>/dev/c</char></source></hostdev>", "device-node", "/dev/c"),
        ("<serial type='file'><source path='/log'/></serial>", "file", "/log"),
        ("<console type='pty'><log file='/log'/></console>", "log-file", "/log"),
        ("<channel type='unix'><source mode='bind' path='/s'/></channel>", "socket", "/s"),
        ("<parallel type='dev'><source path='/dev/p'/></parallel>", "device-node", "/dev/p"),
        ("<serial type='pipe'><source path='/p'/></serial>", "pipe", "/p"),
        ("<serial type='tcp'><source host='h' service='1'/></serial>", "address", "h:1"),
        ("<redirdev type='tcp'><source host='h' service='1'/></redirdev>", "address", "h:1"),
        ("<smartcard type='unix'><source path='/s'/></smartcard>", "socket", "/s"),
        ("<smartcard mode='host-certificates'><database>/db</database></smartcard>", "directory", "/db"),
        ("<rng><backend model='random'>/dev/r</backend></rng>", "rng", "/dev/r"),
        ("<rng><backend model='egd' type='unix'><source path='/s'/></backend></rng>", "socket", "/s"),
        ("<tpm><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>", "tpm", "/dev/tpm0"),
        ("<tpm><backend type='emulator'><encryption secret='u'/></backend></tpm>", "secret", "u"),
        ("<graphics type='vnc' listen='1.2.3.4'/>", "listen-address", "1.2.3.4"),
        ("<graphics type='vnc'><listen type='address' address='1.2.3.4'/></graphics>", "listen-address", "1.2.3.4"),
        ("<graphics type='vnc'><listen type='network' network='n'/></graphics>", "network", "n"),
        ("<graphics type='vnc'><listen type='socket' socket='/s'/></graphics>", "socket", "/s"),
        ("<graphics type='spice'><gl rendernode='/dev/dri/r'/></graphics>", "render-node", "/dev/dri/r"),
        ("<input type='evdev'><source dev='/dev/input/e'/></input>", "input", "/dev/input/e"),
        ("<input type='passthrough'><source evdev='/dev/input/e'/></input>", "input", "/dev/input/e"),
        ("<filesystem><source dir='/d'/><target dir='/t'/></filesystem>", "filesystem", "/d"),
        ("<filesystem><driver type='virtiofs'/><source dir='/d'/></filesystem>", "virtiofs", "/d"),
        ("<filesystem><binary path='/b'/></filesystem>", "binary", "/b"),
        ("<shmem name='s'/>", "shmem", "s"),
        ("<shmem name='s'><server path='/s'/></shmem>", "socket", "/s"),
        ("<memory model='nvdimm'><source><path>/n</path></source></memory>", "memory-file", "/n"),
        ("<lease><lockspace>l</lockspace><key>k</key><target path='/l'/></lease>", "file", "/l"),
        ("<audio type='file' path='/a'/>", "file", "/a"),
        ("<vsock><cid auto='no' address='3'/></vsock>", "vsock-cid", "3"),
        ("<console type='pty' tty='/dev/pts/3'><source path='/dev/pts/3'/></console>", "pty", "/dev/pts/3"),
        ("<serial type='tcp'><source mode='bind' service='4555'/></serial>", "address", ":4555"),
        ("<interface type='server'><source port='5558'/></interface>", "address", ":5558"),
        ("<interface type='mcast'><source address='230.0.0.1' port='5558'/></interface>", "address", "230.0.0.1:5558"),
        (
            "<interface><virtualport type='802.1Qbh'><parameters profileid='p'/></virtualport></interface>",
            "port-profile",
            "p",
        ),
        ("<graphics type='vnc' port='5901' autoport='no'/>", "port", "5901"),
        ("<graphics type='spice' tlsPort='5902'/>", "port", "5902"),
        ("<graphics type='vnc' autoport='yes' websocket='5701'/>", "port", "5701"),
        ("<audio type='jack'><input connectPorts='system:.*'/></audio>", "audio-device", "system:.*"),
        ("<tpm><backend type='emulator'><profile source='local:a'/></backend></tpm>", "tpm-profile", "local:a"),
        ("<memory model='dimm'><source><pagesize>2048</pagesize></source></memory>", "hugepages", "2048 KiB"),
        ("<disk><mirror file='/m'/></disk>", "file", "/m"),
        ("<video><driver/><model type='virtio'/></video>", "emulator", "/usr/bin/qemu-system-x86_64"),
    ],
)
def test_devices(devices: str, kind: str, value: str) -> None:
    xml = domain_xml(devices)
    assert (kind, value) in found(xml)
    assert unknown(xml) == set()


@pytest.mark.parametrize(
    ("os", "extra", "kind", "value"),
    [
        ("<loader type='pflash'>/l</loader>", "", "loader", "/l"),
        ("<nvram template='/t'>/n</nvram>", "", "nvram", "/n"),
        ("<nvram template='/t'>/n</nvram>", "", "nvram-template", "/t"),
        ("<nvram type='file'><source file='/n'/></nvram>", "", "nvram", "/n"),
        ("<nvram type='block'><source dev='/dev/n'/></nvram>", "", "nvram", "/dev/n"),
        ("<nvram type='volume'><source pool='p' volume='v'/></nvram>", "", "volume", "p/v"),
        ("<nvram type='network'><source protocol='nbd'><host name='h'/></source></nvram>", "", "storage-host", "h"),
        ("<nvram><source><encryption><secret uuid='u'/></encryption></source></nvram>", "", "secret", "u"),
        ("<root>/r</root>", "", "directory", "/r"),
        ("<kernel>/k</kernel>", "", "kernel", "/k"),
        ("<initrd>/i</initrd>", "", "initrd", "/i"),
        ("<dtb>/d</dtb>", "", "dtb", "/d"),
        ("<acpi><table type='slic'>/t</table></acpi>", "", "acpi-table", "/t"),
        ("", "<memoryBacking><hugepages/></memoryBacking>", "hugepages", "default"),
        (
            "",
            "<memoryBacking><hugepages><page size='1' unit='G' nodeset='0'/></hugepages></memoryBacking>",
            "hugepages",
            "1 G",
        ),
        ("", "<cputune><vcpupin vcpu='0' cpuset='3'/></cputune>", "host-cpus", "3"),
        ("", "<numatune><memory nodeset='1'/></numatune>", "host-nodes", "1"),
        ("", "<blkiotune><device><path>/dev/a</path></device></blkiotune>", "block", "/dev/a"),
        ("", "<resource><partition>/machine</partition></resource>", "cgroup", "/machine"),
        ("", "<sysinfo type='fwcfg'><entry name='opt/a' file='/f'/></sysinfo>", "file", "/f"),
        ("", "<launchSecurity type='sev'/>", "launch-security", "sev"),
    ],
)
def test_the_rest_of_the_definition(os: str, extra: str, kind: str, value: str) -> None:
    xml = domain_xml(os=os, extra=extra)
    assert (kind, value) in found(xml)
    assert unknown(xml) == set()


@pytest.mark.parametrize(
    ("xml", "value"),
    [
        (domain_xml("<teleporter/>"), "teleporter"),
        (domain_xml("<teleporter to='mars'/>"), "mars"),
        (domain_xml("<teleporter><to>mars</to></teleporter>"), "mars"),
        (domain_xml("<disk><source origin='pluto'/></disk>"), "pluto"),
        (domain_xml("<disk><target shadow='/x/y'/></disk>"), "/x/y"),
        (domain_xml("<disk><driver helper='run=/x/y'/></disk>"), "run=/x/y"),
        (domain_xml("<sound model='ich6' network='n'/>"), "n"),
        (domain_xml("<disk><brandnew ref='x'/></disk>"), "x"),
        (domain_xml(extra="<brandnew ref='x'/>"), "x"),
        (domain_xml(os="<brandnew>x</brandnew>"), "x"),
        (domain_xml(extra="<features><thing where='/x'/></features>"), "/x"),
        (domain_xml(extra="<features><thing>file:///x</thing></features>"), "file:///x"),
        (
            domain_xml(extra=f"<qemu:commandline {QEMU}><qemu:arg value='-drive file=/x'/></qemu:commandline>"),
            "-drive file=/x",
        ),
        (domain_xml(extra=f"<qemu:commandline {QEMU}><qemu:env name='A' value='/x'/></qemu:commandline>"), "/x"),
        (domain_xml("<alien xmlns='urn:alien' at='home'/>"), "home"),
    ],
)
def test_what_is_not_recognised_is_reported(xml: str, value: str) -> None:
    assert value in {v for _, v in unknown(xml)}


@pytest.mark.parametrize(
    "xml",
    [
        domain_xml("", os="<cmdline>root=/dev/vda1</cmdline><init>/sbin/init</init>"),
        domain_xml("<filesystem><target dir='/mnt'/></filesystem>"),
        domain_xml("", extra="<metadata><a:b xmlns:a='urn:a' path='/x'>/y</a:b></metadata><title>/x</title>"),
        domain_xml("", extra="<description>/x or file:///y</description>"),
        domain_xml("<disk><target dev='vda' bus='virtio'/><address type='pci' bus='0'/></disk>"),
        domain_xml("<controller type='usb'><alias name='ua-x'/></controller>"),
        domain_xml("<channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>"),
        domain_xml("<vsock model='virtio'><cid auto='yes' address='7'/></vsock>"),
        domain_xml("<graphics type='vnc' port='5900' autoport='yes' websocket='-1'/><graphics type='vnc' port='-1'/>"),
        domain_xml("", extra="<features><brandnew state='on'/></features><cpu><feature name='x'/></cpu>"),
    ],
)
def test_what_is_the_guests_own_is_not_reported(xml: str) -> None:
    assert {(r.kind, r.value) for r in list_resources(xml)} == {("emulator", "/usr/bin/qemu-system-x86_64")}


def test_xpaths_lead_back_to_the_value() -> None:
    xml = domain_xml(
        "<disk><source file='/a'/></disk><disk><source file='/b'/></disk><tpm><backend>"
        "<device path='/t'/></backend></tpm><odd key='v'>w</odd>",
        os="<kernel>/k</kernel>",
    )
    root = etree.fromstring(xml)
    for resource in list_resources(xml):
        hits = root.xpath(resource.xpath)
        assert isinstance(hits, list)
        assert len(hits) == 1
        assert resource.value in (hits[0], getattr(hits[0], "text", None), getattr(hits[0], "tag", None))


def test_xpaths_lead_back_among_namespaces_and_many_siblings() -> None:
    xml = domain_xml(
        "<disk><source file='/a'/></disk>" * 3
        + "<odd xmlns='urn:a' at='b'/><odd xmlns='urn:b' xmlns:c='urn:c' c:at='d'/>",
        extra=f"<qemu:commandline {QEMU}><qemu:arg value='e'/><qemu:arg value='f'/></qemu:commandline>",
    )
    root = etree.fromstring(xml)
    for resource in list_resources(xml):
        hits = root.xpath(resource.xpath, namespaces={"qemu": "http://libvirt.org/schemas/domain/qemu/1.0"})
        assert isinstance(hits, list)
        assert len(hits) == 1, resource
        tag = str(getattr(hits[0], "tag", "")).rpartition("}")[2]
        assert resource.value in (hits[0], getattr(hits[0], "text", None), tag), resource


def test_a_definition_of_four_megabytes_is_read_in_seconds() -> None:
    """It took minutes while every path counted its siblings anew: a caller could stop a worker with one document."""
    xml = domain_xml("".join(f"<disk><source file='/a{i}'/></disk>" for i in range(50_000)))
    began = time.monotonic()
    assert len(list_resources(xml)) == 50_001
    assert time.monotonic() - began < 60


def test_passwords_are_not_reported() -> None:
    xml = domain_xml(
        "<graphics type='vnc' passwd='/hunter2'/><odd password='/hunter2'><token>/hunter2</token></odd>"
        "<disk><source protocol='https' name='x'><cookies><cookie name='a'>/hunter2</cookie></cookies></source></disk>"
    )
    assert not any("hunter2" in r.value for r in list_resources(xml))
    assert UUID not in {r.value for r in list_resources(xml)}
