"""The definition for the destination, and whether the destination has it."""

from __future__ import annotations

from typing import Any

import pytest
from lxml import etree

from tasks.model.disks import DiskCopy
from tasks.model.domain import Mark
from tasks.planning.destination_xml import build_destination_xml, same_definition
from tasks.planning.domain_xml import parse_domain
from tasks.planning.mark_xml import parse_mark, with_mark
from tests.unit.planning.builders import SHARED_DISK, domain_xml, facts

MARK = Mark("m1", 2, 3)
SOURCE, DESTINATION = facts("alpha"), facts("beta")
RICH = domain_xml(
    SHARED_DISK
    + "<interface type='network'><mac address='52:54:00:00:00:01'/><source network='default'/></interface>"
    + "<interface type='network'><mac address='52:54:00:00:00:02'/><source network='other'/></interface>"
    + "<graphics type='vnc' port='-1' autoport='yes' passwd='hunter2'/>",
    extra="<metadata><a:b xmlns:a='urn:a'>kept</a:b></metadata><title>web</title>",
)


def build(xml: str, mark: Mark | None = MARK) -> str:
    return build_destination_xml(xml, mark=mark, source=SOURCE.hostname, destination=DESTINATION.hostname)


def canonical(xml: str) -> bytes:
    return etree.tostring(etree.fromstring(xml), method="c14n")


def test_bears_this_migrations_mark_only() -> None:
    built = build(with_mark(RICH, Mark("older", 1, 1)))
    assert parse_mark(built) == MARK
    assert "older" not in built


def test_without_mark_nothing_else_changes() -> None:
    assert canonical(build(with_mark(RICH, MARK), mark=None)) == canonical(RICH)


def copy_of(source: str, **place: Any) -> DiskCopy:
    values: dict[str, Any] = {"pool": "vg", "volume": "new", "path": "/dev/vg/new"} | place
    return DiskCopy(target="vda", source=source, format="raw", capacity_bytes=1, allocation_bytes=1, **values)


@pytest.mark.parametrize(
    ("source", "place", "expected"),
    [
        ("type='file'><source file='/a'", {"path": "/b"}, "type='file'><source file='/b'"),
        ("type='file'><source file='/a'", {"kind": "block"}, "type='block'><source dev='/dev/vg/new'"),
        ("type='block'><source dev='/a'", {"path": "/b"}, "type='file'><source file='/b'"),
        (
            "type='volume'><source pool='p' volume='v'",
            {"kind": "volume"},
            "type='volume'><source pool='vg' volume='new'",
        ),
        ("type='volume'><source pool='p' volume='v'", {"kind": "block"}, "type='block'><source dev='/dev/vg/new'"),
    ],
)
def test_a_copied_disk_is_named_as_what_it_becomes(source: str, place: dict[str, str], expected: str) -> None:
    rest = "/><target dev='vda'/></disk>"
    chain = "<backingStore type='file'><source file='/base'/></backingStore>"
    xml = domain_xml(f"<disk {source}/>{chain}<target dev='vda'/></disk>")
    copy = copy_of("p/v" if "volume" in source else "/a", **place)
    built = build_destination_xml(xml, mark=None, source="", destination="", copies=(copy,))
    assert canonical(built) == canonical(domain_xml(f"<disk {expected}{rest}"))


@pytest.mark.parametrize("nvram", ["<nvram template='/t'>{}</nvram>", "<nvram type='file'><source file='{}'/></nvram>"])
def test_uefi_variables_are_in_their_new_file(nvram: str) -> None:
    xml = domain_xml(os=nvram.format("/old"))
    built = build_destination_xml(xml, mark=None, source="", destination="", nvram="/new")
    assert canonical(built) == canonical(domain_xml(os=nvram.format("/new")))
    assert canonical(build_destination_xml(xml, mark=None, source="", destination="")) == canonical(xml)


def listening(address: str) -> str:
    return domain_xml(
        f"<graphics type='vnc' listen='{address}'><listen type='address' address='{address}'/></graphics>"
    )


def test_a_display_at_the_sources_name_goes_to_the_destinations() -> None:
    (graphics,) = parse_domain(build(listening(SOURCE.hostname))).graphics
    assert graphics.listen == DESTINATION.hostname
    assert SOURCE.hostname not in build(listening(SOURCE.hostname))


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "10.0.0.1", "alpha"])
def test_other_listen_addresses_are_left_alone(address: str) -> None:
    assert canonical(build(listening(address), mark=None)) == canonical(listening(address))


def test_the_same_definition_has_no_differences() -> None:
    assert same_definition(RICH, RICH) == []
    assert same_definition(with_mark(RICH, MARK), RICH) == []


def without_metadata(xml: str) -> str:
    return xml.replace("<metadata><a:b xmlns:a='urn:a'>kept</a:b></metadata>", "")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<domain type='kvm'>", "<domain type='kvm' id='7'>"),
        ("<memory unit='MiB'>512</memory>", "<memory unit='KiB'>524288</memory>"),
        ("<devices>", "<seclabel type='dynamic' model='apparmor'/><devices>"),
        ("<target dev='vda'/>", "<target dev='vda' bus='virtio'/><alias name='virtio0'/><address type='pci'/>"),
        ("<target dev='vda'/>", "<backingStore/><target dev='vda'/>"),
        ("</devices>", "<controller type='usb' index='0'/><memballoon model='virtio'/><input type='mouse'/></devices>"),
        ("</devices>", "<console type='pty'><target type='serial' port='0'/></console></devices>"),
        ("port='-1'", "port='-0x1'"),
        ("</devices>", "\n  </devices>\n"),
    ],
)
def test_what_libvirt_fills_in_is_no_difference(old: str, new: str) -> None:
    assert old in RICH
    assert same_definition(RICH, RICH.replace(old, new)) == []


def test_order_is_no_difference() -> None:
    root = etree.fromstring(RICH)
    for parent in (root, root.find("devices")):
        assert parent is not None
        parent[:] = list(reversed(parent))
    assert same_definition(RICH, etree.tostring(root, encoding="unicode")) == []


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("<name>web</name>", "<name>other</name>", "name is other instead of web"),
        ("<memory unit='MiB'>512<", "<memory unit='MiB'>256<", "memory is 262144 KiB instead of 524288 KiB"),
        ("<vcpu>2</vcpu>", "<vcpu>1</vcpu>", "vcpu is 1 instead of 2"),
        ("machine='pc-q35-7.2'", "machine='pc-q35-8.0'", "os/type@machine is pc-q35-8.0"),
        ("/srv/shared/a.img", "/tmp/a.img", "devices/disk[vda]/source@file is /tmp/a.img"),
        ("<target dev='vda'/>", "<target dev='vda'/><readonly/>", "devices/disk[vda]/readonly is there and should not"),
        (SHARED_DISK, "", "devices/disk[vda] is missing"),
        (SHARED_DISK, SHARED_DISK + SHARED_DISK.replace("vda", "vdb"), "devices/disk[vdb] is there and should not"),
        ("network='other'", "network='third'", "interface[52:54:00:00:00:02]/source@network is third"),
        ("passwd='hunter2'", "passwd='hunter3'", "graphics[vnc]@passwd differs"),
        ("passwd='hunter2'", "", "graphics[vnc]@passwd differs"),
        (">kept<", ">lost<", "metadata/b is lost instead of kept"),
        ("<title>web</title>", "", "title is missing"),
    ],
)
def test_what_matters_is_a_difference(old: str, new: str, names: str) -> None:
    assert old in RICH
    differences = same_definition(RICH, RICH.replace(old, new))
    assert len(differences) == 1
    assert names in differences[0]
    assert "hunter" not in differences[0]


def test_labels_and_aliases_that_people_gave_matter() -> None:
    static = "<seclabel type='static' model='selinux'><label>a</label></seclabel><devices>"
    named = "<alias name='ua-disk'/><target dev='vda'/>"
    for old, new in (("<devices>", static), ("<target dev='vda'/>", named)):
        assert len(same_definition(RICH.replace(old, new), RICH)) == 1


def test_arguments_of_qemu_are_not_shown() -> None:
    space = "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'"
    arguments = f"<qemu:commandline {space}><qemu:arg value='-secret=hunter2'/></qemu:commandline><devices>"
    intended = RICH.replace("<devices>", arguments)
    (difference,) = same_definition(intended, intended.replace("-secret", "-other"))
    assert "hunter2" not in difference


def test_a_cdrom_is_read_only_anyway() -> None:
    empty = domain_xml("<disk type='file' device='cdrom'><target dev='sda'/></disk>")
    filled_in = empty.replace("<target", "<readonly/><target")
    assert same_definition(empty, filled_in) == []
    with_medium = empty.replace("<target", "<source file='/a.iso'/><target")
    assert same_definition(empty, with_medium) == ["devices/disk[sda]/source is there and should not"]


def test_the_serial_port_as_console_may_come_and_go() -> None:
    console = domain_xml("<console type='pty'><target type='serial' port='0'/></console>")
    assert same_definition(console, domain_xml("")) == []
    assert same_definition(console.replace("'serial'", "'virtio'"), domain_xml("")) == ["devices/console[0] is missing"]
