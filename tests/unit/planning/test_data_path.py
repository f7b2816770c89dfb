"""By which way the contents of copied disks go, why, and what stands against the other one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tasks.model.disks import DiskSize, ImageFile
from tasks.model.request import DataPath, Method, Storage
from tasks.planning.copies import copies_of
from tasks.planning.data_path import against_hosts, choose_data_path, explain
from tasks.planning.domain_xml import parse_domain
from tasks.planning.outlook import COMPARED, HOST_TO_HOST, NOT_COMPARED, STARTED_PAUSED, THROUGH_WORKER, outlook
from tasks.planning.situation import Situation
from tests.unit.planning.builders import SHARED_DISK, domain_xml, file_disk, off, request, situation, view

LOCAL = "/var/lib/libvirt/images/a.qcow2"
DISK = file_disk(LOCAL, inside="<driver type='qcow2'/>")
TOP = ImageFile(LOCAL, "qcow2", 1000, 30, 77, "1.5")
BASE = ImageFile("/var/lib/libvirt/images/base.raw", "raw", 1000, 1000, 55, "1.4")
TPM = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"


def copying(xml: str = domain_xml(DISK), *, image: ImageFile = TOP, asked: str = "auto", **changes: Any) -> Situation:
    """A VM that is shut off and whose disk is copied."""
    values: dict[str, Any] = {"storage": Storage.COPY, "view": off(), "chains": {"vda": (image,)}}
    s = situation(xml, offline=True, **(values | {"request": request(data_path=asked)} | changes))
    return replace(s, data_path=choose_data_path(s))


@pytest.mark.parametrize(
    ("asked", "expected"), [("auto", DataPath.WORKER), ("worker", DataPath.WORKER), ("hosts", DataPath.HOSTS)]
)
def test_shut_off_there_is_a_choice(asked: str, expected: DataPath) -> None:
    s = copying(asked=asked)
    assert s.data_path is expected
    assert s.mirrored_off is (expected is DataPath.HOSTS)
    assert ("as asked for" in explain(s)) is (asked != "auto")


@pytest.mark.parametrize("asked", ["auto", "worker", "hosts"])
def test_otherwise_there_is_none(asked: str) -> None:
    live = replace(copying(asked=asked), method=Method.LIVE, sizes={"vda": DiskSize(1000, 30)})
    assert choose_data_path(live) is DataPath.HOSTS
    assert choose_data_path(replace(live, method=Method.SAVED)) is DataPath.WORKER
    assert choose_data_path(copying(domain_xml(SHARED_DISK), asked=asked)) is None
    assert choose_data_path(replace(live, storage=Storage.SHARED)) is None


@pytest.mark.parametrize(
    ("s", "word"),
    [
        (copying(image=replace(TOP, snapshots=2)), "2 internal snapshot(s)"),
        (copying(image=replace(TOP, options=("has subclusters",))), "the image of vda has subclusters"),
        (copying(chains={"vda": (TOP, BASE)}), BASE.path),
        (copying(storage=Storage.INCREMENTAL), "incremental"),
        (copying(view=off(snapshots=3)), "3 snapshot(s)"),
        (copying(view=view()), "shut down first"),
        (copying(domain_xml(DISK, os="<nvram>/var/lib/libvirt/qemu/nvram/web.fd</nvram>")), "variables"),
        (copying(domain_xml(DISK).replace("<os>", "<os firmware='efi'>")), "variables"),
        (copying(domain_xml(DISK + TPM)), "TPM"),
        (copying(request=request(devices={"vda": "/dev/sdb"})), "block device"),
        (
            copying(
                domain_xml("<disk type='block'><source dev='/dev/vg/a'/><target dev='vda'/></disk>"),
                image=replace(TOP, path="/dev/vg/a", format="raw"),
            ),
            "block device",
        ),
    ],
)
def test_what_only_files_keep_stands_against_hosts(s: Situation, word: str) -> None:
    assert any(word in reason for reason in against_hosts(s)), against_hosts(s)
    assert s.data_path is DataPath.WORKER
    assert word in explain(s)
    (way,) = [a for a in outlook(s, copies_of(s)).alternatives if a.way == "data path hosts"]
    assert not way.possible
    assert word in way.reason


def test_what_is_mirrored_has_no_length_to_be_copied() -> None:
    """Its new volume is one of the disk's own format and size, into which libvirt mirrors."""
    (through,), (mirrored,) = copies_of(copying()), copies_of(copying(asked="hosts"))
    assert (through.length_bytes, mirrored.length_bytes) == (77, 0)
    assert mirrored.files == ()
    assert (mirrored.source_path, mirrored.modified, mirrored.capacity_bytes) == (LOCAL, "1.5", 1000)


def test_what_a_plan_says() -> None:
    through = outlook(copying(), copies_of(copying()))
    assert (through.data_path, through.disk_bytes) == (THROUGH_WORKER, 30)
    assert [a.possible for a in through.alternatives if a.way == "data path hosts"] == [True]
    s = copying(asked="hosts")
    said = outlook(s, copies_of(s))
    assert (said.data_path, said.disk_bytes, said.memory_bytes) == (STARTED_PAUSED + COMPARED, 30, 0)
    assert [a.possible for a in said.alternatives if a.way == "data path worker"] == [True]
    basic = copying(request=request(data_path="hosts", verify="basic"))
    assert outlook(basic, copies_of(basic)).data_path == STARTED_PAUSED + NOT_COMPARED
    live = situation(domain_xml(DISK), storage=Storage.COPY, sizes={"vda": DiskSize(1000, 30)})
    live = replace(live, data_path=choose_data_path(live))
    assert outlook(live, copies_of(live)).data_path == HOST_TO_HOST
    assert not [a for a in outlook(live, copies_of(live)).alternatives if a.way.startswith("data path")]


def test_a_firmware_without_variables_is_none() -> None:
    assert parse_domain(domain_xml(DISK)).firmware is None
    assert against_hosts(copying()) == []
