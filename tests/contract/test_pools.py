"""The contract of ``tasks.model.pools.PoolPort``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.model.errors import OperatorMustFix, RetryLater
from tests.contract.acting import code_of
from tests.contract.rigs import Rig, new_identity


def pool_xml(name: str, uuid: str, folder: Path) -> str:
    return f"<pool type='dir'><name>{name}</name><uuid>{uuid}</uuid><target><path>{folder}</path></target></pool>"


class Made:
    """Pools that the tests define, each in a directory that is not there yet."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.rig = rig
        self.folder = folder
        self.uuids: list[str] = []

    def define(self, folder: str = "new") -> tuple[str, str, Path]:
        name, uuid = new_identity()
        self.uuids.append(uuid)
        path = self.folder / folder
        self.rig.hypervisor.define_pool(self.rig.source, pool_xml(name, uuid, path))
        return name, uuid, path


@pytest.fixture
def made(rig: Rig, tmp_path: Path) -> Iterator[Made]:
    arranged = Made(rig, tmp_path / "pools")
    rig.put_directory(rig.source, arranged.folder)
    yield arranged
    for uuid in arranged.uuids:
        rig.hypervisor.stop_pool(rig.source, uuid)
        rig.hypervisor.undefine_pool(rig.source, uuid)


def test_a_pool_is_defined_and_only_that(rig: Rig, made: Made) -> None:
    name, uuid, path = made.define()
    for key in (name, uuid):
        seen = rig.hypervisor.find_pool(rig.source, key)
        assert seen is not None
        assert (seen.uuid, seen.persistent, seen.autostart) == (uuid, True, False)
        assert (seen.pool.name, seen.pool.type, seen.pool.active, seen.pool.target) == (name, "dir", False, str(path))
    assert name in [pool.name for pool in rig.hypervisor.list_pools(rig.source)]
    assert rig.hypervisor.find_pool(rig.destination, uuid) is None
    assert uuid in rig.hypervisor.fetch_pool_xml(rig.source, name)
    assert rig.hypervisor.list_directory(rig.source, str(path.parent), new_identity()[1]) == ()


def test_defining_again_changes_nothing(rig: Rig, made: Made) -> None:
    name, uuid, path = made.define()
    before = rig.hypervisor.find_pool(rig.source, uuid)
    rig.hypervisor.define_pool(rig.source, pool_xml(name, uuid, path))
    assert rig.hypervisor.find_pool(rig.source, uuid) == before


def test_nothing_is_defined_over_another_pool(rig: Rig, made: Made) -> None:
    name, uuid, path = made.define()
    other, other_uuid = new_identity()
    elsewhere = path.parent / "elsewhere"
    for xml in (
        pool_xml(name, other_uuid, elsewhere),
        pool_xml(other, uuid, elsewhere),
        pool_xml(other, other_uuid, path),
    ):
        call = lambda xml=xml: rig.hypervisor.define_pool(rig.source, xml)  # noqa: E731
        assert code_of(call, OperatorMustFix) == "POOL_EXISTS"
    assert rig.hypervisor.find_pool(rig.source, other) is None
    assert rig.hypervisor.find_pool(rig.source, other_uuid) is None


def test_it_starts_when_its_directory_is_there(rig: Rig, made: Made) -> None:
    _, uuid, path = made.define("above/new")
    assert code_of(lambda: rig.hypervisor.start_pool(rig.source, uuid), RetryLater) == "POOL_NOT_STARTED"
    for _ in range(2):
        rig.hypervisor.start_pool(rig.source, uuid, build=True)
        seen = rig.hypervisor.find_pool(rig.source, uuid)
        assert seen is not None
        assert seen.pool.active
    for _ in range(2):
        rig.hypervisor.stop_pool(rig.source, uuid)
        seen = rig.hypervisor.find_pool(rig.source, uuid)
        assert seen is not None
        assert not seen.pool.active
    rig.hypervisor.undefine_pool(rig.source, uuid)
    assert rig.hypervisor.list_directory(rig.source, str(path.parent), new_identity()[1]) == ("new",)


def test_a_pool_that_could_not_be_read_for_a_moment_is_active_again(rig: Rig, made: Made) -> None:
    """libvirt stops a pool that it cannot read, and forgets one that is not defined."""
    name, uuid, path = made.define()
    rig.hypervisor.start_pool(rig.source, uuid, build=True)
    with rig.unreadable_for_a_moment(rig.source, path):
        assert rig.hypervisor.refresh_pool(rig.source, name).active
    transient = rig.make_pool(rig.source)
    with rig.unreadable_for_a_moment(rig.source, transient):
        assert rig.hypervisor.file_exists(rig.source, str(transient / "none")) is False
    assert rig.hypervisor.find_pool_at(rig.source, str(transient)) is not None


def test_a_pool_that_cannot_be_read(rig: Rig, made: Made) -> None:
    name, uuid, path = made.define()
    rig.hypervisor.start_pool(rig.source, uuid, build=True)
    with rig.unreadable(rig.source, path):
        assert code_of(lambda: rig.hypervisor.refresh_pool(rig.source, name), RetryLater) == "POOL_REFRESH_FAILED"
        assert code_of(lambda: rig.hypervisor.start_pool(rig.source, uuid), RetryLater) == "POOL_NOT_STARTED"
        assert code_of(lambda: rig.hypervisor.refresh_pool(rig.source, name), OperatorMustFix) == "POOL_INACTIVE"
    rig.hypervisor.start_pool(rig.source, uuid)
    assert rig.hypervisor.refresh_pool(rig.source, name).active


def test_autostart_comes_and_goes(rig: Rig, made: Made) -> None:
    _, uuid, _ = made.define()
    for enabled in (True, False, False):
        rig.hypervisor.set_pool_autostart(rig.source, uuid, enabled=enabled)
        seen = rig.hypervisor.find_pool(rig.source, uuid)
        assert seen is not None
        assert seen.autostart is enabled


def test_an_active_pool_is_not_undefined(rig: Rig, made: Made) -> None:
    _, uuid, _ = made.define()
    rig.hypervisor.start_pool(rig.source, uuid, build=True)
    assert code_of(lambda: rig.hypervisor.undefine_pool(rig.source, uuid), OperatorMustFix) == "OPERATION_INVALID"
    rig.hypervisor.stop_pool(rig.source, uuid)
    for _ in range(2):
        rig.hypervisor.undefine_pool(rig.source, uuid)
        assert rig.hypervisor.find_pool(rig.source, uuid) is None


def test_what_is_not_there(rig: Rig) -> None:
    uuid = new_identity()[1]
    assert rig.hypervisor.find_pool(rig.source, uuid) is None
    rig.hypervisor.stop_pool(rig.source, uuid)
    for call in (
        lambda: rig.hypervisor.fetch_pool_xml(rig.source, "none"),
        lambda: rig.hypervisor.start_pool(rig.source, uuid),
        lambda: rig.hypervisor.set_pool_autostart(rig.source, uuid, enabled=True),
        lambda: rig.hypervisor.write_volume(rig.source, "none", "v", b"x"),
    ):
        assert code_of(call, OperatorMustFix) == "NO_STORAGE_POOL"


class TestDirectories:
    def test_one_that_is_not_there(self, rig: Rig, tmp_path: Path) -> None:
        uuid = new_identity()[1]
        assert rig.hypervisor.list_directory(rig.source, str(tmp_path / "none"), uuid) is None
        assert rig.hypervisor.find_pool(rig.source, uuid) is None

    def test_what_is_in_it_is_listed_and_no_pool_is_left(self, rig: Rig, tmp_path: Path) -> None:
        folder, uuid = tmp_path / "folder", new_identity()[1]
        for path in (folder, folder / "below"):
            rig.put_directory(rig.source, path)
        for _ in range(2):
            assert rig.hypervisor.list_directory(rig.source, str(folder), uuid) == ("below",)
            assert rig.hypervisor.find_pool(rig.source, uuid) is None

    def test_one_that_another_pool_has(self, rig: Rig) -> None:
        folder, uuid = rig.make_pool(rig.source), new_identity()[1]
        call = lambda: rig.hypervisor.list_directory(rig.source, str(folder), uuid)  # noqa: E731
        assert code_of(call, OperatorMustFix) == "DIRECTORY_IN_USE"
        assert rig.hypervisor.remove_directory(rig.source, str(folder), uuid) is False
        assert rig.hypervisor.find_pool(rig.source, uuid) is None

    def test_only_an_empty_one_is_removed(self, rig: Rig, tmp_path: Path) -> None:
        outer, inner, uuid = str(tmp_path / "outer"), str(tmp_path / "outer/inner"), new_identity()[1]
        for path in (outer, inner):
            rig.put_directory(rig.source, Path(path))
        assert rig.hypervisor.remove_directory(rig.source, outer, uuid) is False
        assert rig.hypervisor.list_directory(rig.source, outer, uuid) == ("inner",)
        for path in (inner, outer, outer):
            assert rig.hypervisor.remove_directory(rig.source, path, uuid) is True
            assert rig.hypervisor.list_directory(rig.source, path, uuid) is None
        assert rig.hypervisor.find_pool(rig.source, uuid) is None


def test_a_small_volume_is_written(rig: Rig) -> None:
    folder = rig.make_pool(rig.source)
    rig.hypervisor.write_volume(rig.source, folder.name, "small", b"contents" * 512)
    seen = rig.hypervisor.find_volume(rig.source, folder.name, "small")
    assert seen is not None
    assert (seen.path, seen.capacity_bytes) == (str(folder / "small"), 4096)
    assert rig.read_file(rig.source, folder / "small") == b"contents" * 512
    again = lambda: rig.hypervisor.write_volume(rig.source, folder.name, "small", b"other")  # noqa: E731
    assert code_of(again, OperatorMustFix) == "VOLUME_EXISTS"
    assert rig.read_file(rig.source, folder / "small") == b"contents" * 512
