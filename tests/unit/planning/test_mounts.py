"""Which pools the destination gets, and what stands in the way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lxml import etree

from tasks.model.domain import Mark
from tasks.model.finding import Severity
from tasks.model.host import Pool
from tasks.model.pools import Mount, PoolAction
from tasks.model.request import Method, Storage
from tasks.planning.domain_xml import parse_domain
from tasks.planning.mounts import Clash, describe_mount, find_counterpart, plan_mounts, settle_mounts
from tasks.planning.object_mark import mark_uuid
from tasks.planning.pool_users import uses_pool
from tasks.planning.pool_xml import copy_pool_xml
from tasks.planning.preflight import run_rules
from tasks.planning.situation import Situation
from tasks.planning.storage import StorageChoice, choose_storage
from tests.unit.planning.builders import (
    LOCAL_POOL,
    POOL,
    SHARED,
    SHARED_DISK,
    domain_xml,
    facts,
    file_disk,
    request,
    situation,
)

MAKE, START, NONE = PoolAction.MAKE, PoolAction.START, PoolAction.NONE
INACTIVE = replace(POOL, active=False)
OTHER_NAME = replace(POOL, name="vmstore")
OTHER_EXPORT = replace(POOL, source="storage:/another")
OTHER_PLACE = replace(POOL, name="vmstore", target="/mnt")
ISO = file_disk(f"{SHARED}/a.iso", target="sda", device="cdrom")
VOLUME = "<disk type='volume'><source pool='shared' volume='v'/><target dev='vdb'/></disk>"
LOCAL_DISK = file_disk("/var/lib/libvirt/images/web.img", target="vdc")


def seen(devices: str = SHARED_DISK, *pools: Pool, **asked: object) -> Situation:
    """As the survey does it, for a destination with these pools."""
    s = situation(domain_xml(devices), destination=facts("beta", pools=pools), request=request(**asked))
    s = plan_mounts(s)
    chosen = choose_storage(s.request, s.method, s.definitions, s.source, s.destination)
    assert isinstance(chosen, StorageChoice)
    return settle_mounts(replace(s, storage=chosen.storage))


def actions(s: Situation) -> list[tuple[str, PoolAction, bool]]:
    return [(mount.destination_pool, mount.action, mount.written) for mount in s.mounts]


@pytest.mark.parametrize(
    ("devices", "pools", "expected"),
    [
        (SHARED_DISK, (POOL,), [("shared", NONE, True)]),
        (SHARED_DISK, (), [("shared", MAKE, True)]),
        (SHARED_DISK, (INACTIVE,), [("shared", START, True)]),
        (SHARED_DISK, (replace(OTHER_NAME, active=False),), [("vmstore", START, True)]),
        (SHARED_DISK, (OTHER_NAME,), [("vmstore", NONE, True)]),
        (VOLUME, (), [("shared", MAKE, True)]),
        (VOLUME + SHARED_DISK, (INACTIVE,), [("shared", START, True)]),
        (ISO, (), [("shared", MAKE, False)]),
        (ISO + SHARED_DISK, (), [("shared", MAKE, True)]),
        (LOCAL_DISK, (LOCAL_POOL,), []),
        ("", (), []),
    ],
)
def test_what_prepare_does(devices: str, pools: tuple[Pool, ...], expected: list[tuple[str, PoolAction, bool]]) -> None:
    s = seen(devices, *pools)
    assert actions(s) == expected
    assert {mount.destination_pool for mount in s.mounts if mount.action is not NONE} == s.planned_pools


def test_rules_count_a_pool_that_will_be_made() -> None:
    s = seen(SHARED_DISK + VOLUME + ISO)
    assert s.storage is Storage.SHARED
    codes = {finding.code: finding.severity for finding in run_rules(s)}
    assert Severity.BLOCKER not in codes.values(), codes
    assert {"POOL_MADE", "DISK_SHARED", "VOLUME_SHARED"} <= set(codes)


def test_a_disk_beside_it_is_copied_all_the_same() -> None:
    s = seen(SHARED_DISK + LOCAL_DISK, LOCAL_POOL)
    assert (s.storage, actions(s)) == (Storage.COPY, [("shared", MAKE, True)])


def test_nothing_is_made_for_what_goes_elsewhere() -> None:
    assert actions(seen(SHARED_DISK, LOCAL_POOL, storage="copy")) == []
    assert actions(seen(SHARED_DISK, LOCAL_POOL, pools={"vda": "default"})) == []
    assert actions(seen(SHARED_DISK, LOCAL_POOL, pools={"*": "default"})) == []


def test_what_stays_is_proven_when_other_disks_are_copied() -> None:
    both = seen(SHARED_DISK + LOCAL_DISK, POOL, LOCAL_POOL, storage="copy")
    assert (both.storage, actions(both)) == (Storage.COPY, [("shared", NONE, True)])


@pytest.mark.parametrize(
    ("pools", "code"),
    [
        ((OTHER_EXPORT,), "POOL_NAME_TAKEN"),
        ((replace(LOCAL_POOL, name="shared"),), "POOL_NAME_TAKEN"),
        ((OTHER_PLACE,), "POOL_EXPORT_ELSEWHERE"),
        ((replace(LOCAL_POOL, target=SHARED),), "POOL_TARGET_TAKEN"),
        ((replace(LOCAL_POOL, target=f"{SHARED}/below", active=False),), "POOL_TARGET_TAKEN"),
    ],
)
def test_what_stands_in_the_way(pools: tuple[Pool, ...], code: str) -> None:
    clash = find_counterpart(POOL, pools, "beta")
    assert isinstance(clash, Clash)
    assert (clash.code, bool(clash.hint)) == (code, True)
    shared = seen(SHARED_DISK, *pools, storage="shared")
    assert shared.mounts == ()
    assert (code, Severity.BLOCKER) in [(f.code, f.severity) for f in run_rules(shared)]
    chosen = seen(SHARED_DISK, *pools)
    assert chosen.storage is Storage.COPY
    assert (code, Severity.WARNING) in [(f.code, f.severity) for f in run_rules(chosen)]


def test_a_directory_next_to_it_is_none_of_its_business() -> None:
    beside = replace(LOCAL_POOL, target=f"{SHARED}-2")
    above = replace(LOCAL_POOL, name="srv", target="/srv")
    found = find_counterpart(POOL, (beside, above), "beta")
    assert isinstance(found, Mount)
    assert found.action is MAKE
    assert describe_mount(found, "beta") == "pool shared on beta (storage:/export at /srv/shared)"


def test_a_volume_needs_the_pool_by_its_name() -> None:
    clash = find_counterpart(POOL, (OTHER_NAME,), "beta", by_name=True)
    assert isinstance(clash, Clash)
    assert clash.code == "POOL_EXPORT_ELSEWHERE"


def test_local_pools_of_the_source_are_never_made() -> None:
    assert actions(seen(LOCAL_DISK)) == []


def test_the_method_does_not_matter() -> None:
    offline = plan_mounts(situation(offline=True, destination=facts("beta", pools=())))
    assert offline.method is Method.OFFLINE
    assert actions(offline) == [("shared", MAKE, True)]


def test_free_space_of_a_planned_pool_is_the_sources() -> None:
    here = facts("alpha", pools=(replace(POOL, available_bytes=77),))
    s = plan_mounts(situation(source=here, destination=facts("beta", pools=(INACTIVE,))))
    (pool,) = s.destination.pools
    assert (pool.name, pool.active, pool.available_bytes) == ("shared", True, 77)


def test_the_definition_is_the_sources_under_another_uuid() -> None:
    xml = (
        "<pool type='netfs' xmlns:fs='http://libvirt.org/schemas/storagepool/fs/1.0'><name>shared</name>"
        "<uuid>00000000-0000-4000-8000-000000000001</uuid><capacity unit='bytes'>9</capacity>"
        "<allocation unit='bytes'>1</allocation><available unit='bytes'>8</available>"
        "<source><host name='storage'/><dir path='/export'/><format type='nfs'/><protocol ver='4'/></source>"
        "<target><path>/srv/shared</path><permissions><mode>0755</mode></permissions></target>"
        "<fs:mount_opts><fs:option name='soft'/></fs:mount_opts></pool>"
    )
    root = etree.fromstring(copy_pool_xml(xml, "new"))
    assert [child.tag for child in root][:4] == ["name", "uuid", "source", "target"]
    assert (root.findtext("uuid"), root.findtext("target/path")) == ("new", "/srv/shared")
    assert root.find("target/permissions") is None
    assert root.find("source/protocol") is not None
    assert b"soft" in etree.tostring(root)
    assert etree.fromstring(copy_pool_xml("<pool><name>a</name></pool>", "new")).findtext("uuid") == "new"


def test_marks_are_uuids_of_their_own() -> None:
    marks = [Mark("m1", 1, 1), Mark("m1", 1, 2), Mark("m1", 2, 1), Mark("m2", 1, 1)]
    made = {mark_uuid(mark, what) for mark in marks for what in ("pool/a", "pool/b")}
    assert len(made) == 8
    assert mark_uuid(marks[0], "pool/a") == mark_uuid(Mark("m1", 1, 1), "pool/a")


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (SHARED_DISK, True),
        (VOLUME, True),
        (file_disk(f"{SHARED}/deep/below/a.img"), True),
        (ISO, True),
        (f"<filesystem type='mount'><source dir='{SHARED}'/><target dir='tag'/></filesystem>", True),
        (f"<serial type='file'><source path='{SHARED}/console.log'/></serial>", True),
        (LOCAL_DISK, False),
        (file_disk(f"{SHARED}-2/a.img"), False),
        ("<disk type='volume'><source pool='shared2' volume='v'/><target dev='vdb'/></disk>", False),
        ("", False),
    ],
)
def test_who_uses_a_pool(devices: str, expected: bool) -> None:
    assert uses_pool(parse_domain(domain_xml(devices)), POOL) is expected
