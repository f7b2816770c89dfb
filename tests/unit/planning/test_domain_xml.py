"""Reading definitions: what they say, what is odd, and what is hostile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from tasks.model.domain import Disk, Graphics, Interface
from tasks.model.errors import InvalidRequest
from tasks.planning.domain_xml import parse_domain
from tasks.planning.xml_tree import MAX_XML_CHARS
from tests.unit.planning.builders import UUID, domain_xml

ENTITY_BOMB = (
    "<!DOCTYPE d [<!ENTITY a0 'aaaaaaaaaa'>"
    + "".join(f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 9))
    + "]><domain><name>&a8;</name></domain>"
)


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "<",
        "plain text",
        "<domain>",
        "<domain/><domain/>",
        "<domain a='1' a='2'/>",
        "<domain><name>\x00</name></domain>",
        "<domain><name>\ud800</name></domain>",
        "<network/>",
        "<domainsnapshot><domain/></domainsnapshot>",
        "<domstatus state='running'><domain/></domstatus>",
        "<x:domain xmlns:x='urn:x'/>",
        "<!DOCTYPE domain><domain/>",
        "<!DOCTYPE domain SYSTEM 'file:///etc/passwd'><domain/>",
        "<!DOCTYPE domain [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><domain><name>&e;</name></domain>",
        "<!DOCTYPE domain [<!ENTITY % e SYSTEM 'http://127.0.0.1:9/x'> %e;]><domain/>",
        "<!DOCTYPE domain [<!ATTLIST domain type CDATA 'kvm'>]><domain/>",
        ENTITY_BOMB,
        "<domain>" + "<a>" * 5000 + "</a>" * 5000 + "</domain>",
        "<domain><name>" + "x" * MAX_XML_CHARS + "</name></domain>",
    ],
    ids=range(20),
)
def test_refuses_what_is_no_plain_domain(xml: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_domain(xml)
    assert caught.value.code == "XML_INVALID"
    assert len(caught.value.message) <= 500
    assert "root:" not in caught.value.message


def test_reads_what_a_definition_says() -> None:
    domain = parse_domain(domain_xml(machine="pc-q35-7.2"))
    assert (domain.name, domain.uuid, domain.virt_type) == ("web", UUID, "kvm")
    assert (domain.memory_kib, domain.vcpus) == (512 * 1024, 2)
    assert (domain.machine, domain.arch, domain.emulator) == ("pc-q35-7.2", "x86_64", "/usr/bin/qemu-system-x86_64")


@pytest.mark.parametrize(
    "xml", ["<domain/>", "\ufeff\n <?xml version='1.0' encoding='ISO-8859-1'?><domain/>", "<domain><!-- x --></domain>"]
)
def test_reads_an_empty_definition(xml: str) -> None:
    domain = parse_domain(xml)
    assert (domain.name, domain.uuid, domain.memory_kib, domain.vcpus, domain.disks) == ("", None, 0, 1, ())


@pytest.mark.parametrize(
    ("memory", "kib"),
    [
        ("<memory>1024</memory>", 1024),
        ("<memory unit='KiB'> 1024\n</memory>", 1024),
        ("<memory unit='k'>1</memory>", 1),
        ("<memory unit='KB'>1024</memory>", 1000),
        ("<memory unit='b'>1025</memory>", 2),
        ("<memory unit='bytes'>1024</memory>", 1),
        ("<memory unit='MB'>128</memory>", 125000),
        ("<memory unit='MiB'>1</memory>", 1024),
        ("<memory unit='G'>1</memory>", 1024**2),
        ("<memory unit='gib'>1</memory>", 1024**2),
        ("<memory unit='TiB'>2</memory>", 2 * 1024**3),
        ("<memory unit='PiB'>1</memory>", 1024**4),
        ("<memory unit='parsec'>1</memory>", 0),
        ("<memory>-1</memory>", 0),
        ("<memory>1.5</memory>", 0),
        ("<memory>many</memory>", 0),
        ("<memory/>", 0),
        ("<memory><!-- - -->7</memory>", 7),
        ("<cpu><numa><cell memory='512' unit='KiB'/><cell memory='1' unit='MiB'/></numa></cpu>", 1536),
    ],
)
def test_memory_in_every_unit(memory: str, kib: int) -> None:
    assert parse_domain(f"<domain>{memory}</domain>").memory_kib == kib


@pytest.mark.parametrize(("vcpu", "count"), [("<vcpu>8</vcpu>", 8), ("<vcpu>x</vcpu>", 1), ("<vcpu/>", 1), ("", 1)])
def test_vcpus(vcpu: str, count: int) -> None:
    assert parse_domain(f"<domain>{vcpu}</domain>").vcpus == count


@pytest.mark.parametrize(
    ("xml", "type_", "source"),
    [
        ("<disk type='file'><source file='/a'/></disk>", "file", "/a"),
        ("<disk><source file='/a'/></disk>", "file", "/a"),
        ("<disk type='block'><source dev='/dev/a'/></disk>", "block", "/dev/a"),
        ("<disk type='dir'><source dir='/d'/></disk>", "dir", "/d"),
        ("<disk type='network'><source protocol='rbd' name='p/i'/></disk>", "network", "rbd:p/i"),
        ("<disk type='volume'><source pool='p' volume='v'/></disk>", "volume", "p/v"),
        ("<disk type='vhostuser'><source type='unix' path='/s'/></disk>", "vhostuser", "/s"),
        (
            "<disk type='nvme'><source namespace='1'><address domain='0x0' bus='0x1' slot='0'/></source></disk>",
            "nvme",
            "nvme:0000:01:00.0/1",
        ),
        ("<disk type='file' device='cdrom'/>", "file", None),
        ("<disk type='file' device='cdrom'><source/></disk>", "file", None),
        ("<disk type='file' device='cdrom'><source file=''/></disk>", "file", None),
    ],
)
def test_disk_sources(xml: str, type_: str, source: str | None) -> None:
    (disk,) = parse_domain(domain_xml(xml)).disks
    assert (disk.type, disk.source) == (type_, source)


def test_disk_with_everything() -> None:
    xml = (
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/>"
        "<source file='/top' startupPolicy='optional'/>"
        "<backingStore type='file'><source file='/mid'/>"
        "<backingStore type='network'><source protocol='nbd' name='x'/><backingStore/></backingStore></backingStore>"
        "<target dev='vdb' bus='virtio'/><readonly/><shareable/><transient/></disk>"
    )
    assert parse_domain(domain_xml(xml)).disks == (
        Disk(
            target="vdb",
            device="disk",
            type="file",
            source="/top",
            driver_format="qcow2",
            cache="none",
            readonly=True,
            shareable=True,
            transient=True,
            startup_policy="optional",
            backing=("/mid", "nbd:x"),
        ),
    )


def test_other_devices() -> None:
    domain = parse_domain(
        domain_xml(
            "<interface type='network'><source network='default'/><mac address='52:54:00:00:00:01'/></interface>"
            "<interface type='user'/>"
            "<interface type='hostdev'/>"
            "<graphics type='vnc' listen='10.0.0.1'><listen type='address' address='10.0.0.2'/></graphics>"
            "<graphics type='spice'><listen type='socket' socket='/s'/></graphics>"
            "<hostdev mode='subsystem' type='usb'/><hostdev mode='capabilities'/>"
            "<tpm><backend type='emulator'/></tpm>"
            "<serial type='file'><source path='/log/s'/></serial>"
            "<console type='pty'><source path='/dev/pts/1'/><log file='/log/c'/></console>",
            os="<loader>/fw</loader><nvram>/vars</nvram>",
        )
    )
    assert domain.interfaces[0] == Interface("network", "default", "52:54:00:00:00:01")
    assert domain.interfaces[1] == Interface("user", None)
    assert domain.graphics == (Graphics("vnc", "10.0.0.2"), Graphics("spice", socket="/s"))
    assert domain.hostdevs == ("usb", "capabilities", "pci")
    assert domain.tpm
    assert domain.console_paths == ("/log/s", "/log/c")
    assert (domain.loader, domain.nvram) == ("/fw", "/vars")


def words(text: str) -> st.SearchStrategy[str]:
    return st.sampled_from(text.split())


NAMES = words(
    """domain name uuid memory vcpu os type devices disk source backingStore address target interface hostdev graphics
    listen tpm backend memoryBacking hugepages page metadata cpu numa cell serial log vendor product odd"""
)
KEYS = words("type file dev dir pool volume protocol name unit memory bus slot path host service listen")
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=8)
ATTRIBUTES = st.dictionaries(KEYS, VALUES, max_size=3)
TEXTS = st.one_of(st.none(), st.integers().map(str), st.sampled_from(["/a/b", " ", "x", "1e9"]))
LEAVES = st.tuples(NAMES, ATTRIBUTES, TEXTS, st.just(()))
TREES = st.recursive(
    LEAVES, lambda inner: st.tuples(NAMES, ATTRIBUTES, TEXTS, st.lists(inner, max_size=4)), max_leaves=25
)


def build(tree: tuple[str, dict[str, str], str | None, list[object]]) -> etree._Element:
    name, attributes, text, children = tree
    element = etree.Element(name, attributes)
    element.text = text
    element.extend(build(child) for child in children)  # type: ignore[arg-type]
    return element


@given(st.lists(TREES, max_size=5), st.booleans())
def test_any_tree_is_read(
    trees: list[tuple[str, dict[str, str], str | None, list[object]]], below_devices: bool
) -> None:
    root = etree.Element("domain")
    holder = etree.SubElement(root, "devices") if below_devices else root
    holder.extend(build(tree) for tree in trees)
    domain = parse_domain(etree.tostring(root, encoding="unicode"))
    assert all(resource.value for resource in domain.resources if resource.known and resource.kind == "file")


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for xml in (text, f"<domain>{text}</domain>", f"<domain type='{text}'/>"):
        try:
            parse_domain(xml)
        except InvalidRequest as error:
            assert error.code == "XML_INVALID"  # noqa: PT017 - either outcome is right


def test_a_running_card_on_a_network_counts_as_the_networks() -> None:
    card = "<interface type='bridge'><source network='lab' portid='x' bridge='br0'/><target dev='vnet0'/></interface>"
    (interface,) = parse_domain(f"<domain type='qemu'><name>n</name><devices>{card}</devices></domain>").interfaces
    assert (interface.type, interface.source) == ("network", "lab")
