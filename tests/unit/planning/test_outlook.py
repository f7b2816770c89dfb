"""What a plan says beforehand."""

from __future__ import annotations

from dataclasses import replace

from tasks.model.disks import DiskSize, ImageFile
from tasks.model.plan import Downtime
from tasks.model.request import Method, Storage
from tasks.planning.copies import copies_of
from tasks.planning.outlook import HOST_TO_HOST, NOTHING, THROUGH_WORKER, outlook
from tests.unit.planning.builders import SHARED_DISK, domain_xml, file_disk, off, situation

LOCAL = "/var/lib/libvirt/images/a.qcow2"
TOP = ImageFile(LOCAL, "qcow2", 1000, 30, 77, "1.5")
BASE = ImageFile("/var/lib/libvirt/images/base.raw", "raw", 1000, 1000, 55, "1.4")
COPIED = domain_xml(file_disk(LOCAL, inside="<driver type='qcow2'/>"))


def ways(said: object) -> dict[str, bool]:
    return {a.way: a.possible for a in said.alternatives}  # type: ignore[attr-defined]


def test_live_on_shared_storage() -> None:
    said = outlook(situation(domain_xml(SHARED_DISK)), ())
    assert (said.downtime, said.disk_bytes, said.data_path) == (Downtime.SWITCH_OVER, 0, HOST_TO_HOST)
    assert said.memory_bytes == 512 << 20
    assert ways(said) == {
        "method suspend": True,
        "method saved": True,
        "method offline": False,
        "storage copy": True,
        "storage incremental": False,
    }


def test_shut_off_on_shared_storage_nothing_moves_but_the_definition() -> None:
    said = outlook(situation(domain_xml(SHARED_DISK), offline=True, view=off()), ())
    assert (said.downtime, said.memory_bytes, said.data_path) == (Downtime.NONE, 0, NOTHING)
    assert not any(possible for way, possible in ways(said).items() if way.startswith("method"))


def test_a_chain_goes_through_the_worker_with_all_its_files() -> None:
    s = situation(COPIED, offline=True, view=off(), storage=Storage.COPY, chains={"vda": (TOP, BASE)})
    said = outlook(s, copies_of(s))
    assert (said.disk_bytes, said.data_path) == (30 + 55, THROUGH_WORKER)
    assert ways(said)["storage incremental"] is True
    assert ways(said)["storage shared"] is False


def test_a_running_vms_base_goes_first_and_the_rest_from_host_to_host() -> None:
    s = situation(COPIED, storage=Storage.INCREMENTAL, chains={"vda": (TOP, BASE)}, sizes={"vda": DiskSize(1000, 30)})
    said = outlook(s, copies_of(s))
    assert said.data_path == f"{HOST_TO_HOST}; and {THROUGH_WORKER}"
    assert said.disk_bytes == 30 + 55


def test_saved_memory_is_a_file_as_well() -> None:
    said = outlook(replace(situation(domain_xml(SHARED_DISK)), method=Method.SAVED), ())
    assert (said.downtime, said.data_path) == (Downtime.TRANSFER, THROUGH_WORKER)
    assert ways(said)["storage incremental"] is False
