"""The part of the fake that is about pools themselves and about directories."""

from __future__ import annotations

import uuid as uuid_module
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from posixpath import dirname
from typing import Protocol

from lxml import etree

from tasks.model.disks import Volume
from tasks.model.errors import OperatorMustFix, RetryLater
from tasks.model.host import HostFacts, Pool
from tasks.model.pools import PoolView


@dataclass
class FakePool:
    """What the fake knows of a pool beside what ``HostFacts`` shows."""

    uuid: str
    xml: str
    persistent: bool = True
    autostart: bool = False


@dataclass
class Shelves:
    """Pools and directories of one fake host."""

    pools: dict[str, FakePool] = field(default_factory=dict)
    """By name; one that only the facts have is persistent and has a UUID made of its name."""
    directories: set[str] = field(default_factory=lambda: {"/"})
    unreadable: set[str] = field(default_factory=set)
    """Directories of pools that cannot be read."""


class PoolHost(Protocol):
    """What is used of a fake host."""

    facts: HostFacts
    volumes: dict[str, dict[str, Volume]]
    contents: dict[str, bytearray]
    shelves: Shelves


class FakePools(ABC):
    """See the port."""

    @abstractmethod
    def _asked(
        self, call: str, host: str, *, effect: bool = False, faults: bool = True
    ) -> AbstractContextManager[PoolHost]: ...

    def list_pools(self, host: str) -> tuple[Pool, ...]:
        """See the port."""
        with self._asked("list_pools", host) as there:
            return there.facts.pools

    def find_pool(self, host: str, key: str) -> PoolView | None:
        """See the port."""
        with self._asked("find_pool", host) as there:
            pool = _find(there, key)
            if pool is None:
                return None
            known = _known(there, pool)
            return PoolView(known.uuid, pool, known.persistent, known.autostart)

    def fetch_pool_xml(self, host: str, name: str) -> str:
        """See the port."""
        with self._asked("fetch_pool_xml", host) as there:
            pool = next((p for p in there.facts.pools if p.name == name), None)
            if pool is None:
                raise OperatorMustFix("NO_STORAGE_POOL", f"{host}: no pool {name}", "")
            return _known(there, pool).xml

    def define_pool(self, host: str, xml: str) -> None:
        """See the port."""
        root = etree.fromstring(xml)
        name, uuid = root.findtext("name") or "", root.findtext("uuid") or ""
        with self._asked("define_pool", host, effect=True) as there:
            new = _parse(root)
            for pool in there.facts.pools:
                same = (pool.name == name, _known(there, pool).uuid == uuid)
                if all(same):
                    return
                if any(same) or _conflicts(pool, new):
                    raise OperatorMustFix("POOL_EXISTS", f"{host}: storage source conflict with {pool.name}", "")
            _put(there, new, FakePool(uuid, xml))

    def start_pool(self, host: str, uuid: str, *, build: bool = False) -> None:
        """See the port."""
        with self._asked("start_pool", host, effect=True) as there:
            pool = _find(there, uuid)
            if pool is None:
                raise OperatorMustFix("NO_STORAGE_POOL", f"{host}: no pool {uuid}", "")
            if pool.active:
                return
            path = pool.target or "/"
            if build:
                _make_directories(there, path)
            if not _exists(there, path) or path in there.shelves.unreadable:
                raise RetryLater("POOL_NOT_STARTED", f"{host}: cannot open directory {path}", "")
            _replace(there, pool, replace(pool, active=True))

    def stop_pool(self, host: str, uuid: str) -> None:
        """See the port."""
        with self._asked("stop_pool", host, effect=True) as there:
            pool = _find(there, uuid)
            if pool is None or not pool.active:
                return
            _replace(there, pool, replace(pool, active=False) if _known(there, pool).persistent else None)

    def set_pool_autostart(self, host: str, uuid: str, *, enabled: bool) -> None:
        """See the port."""
        with self._asked("set_pool_autostart", host, effect=True) as there:
            pool = _find(there, uuid)
            if pool is None:
                raise OperatorMustFix("NO_STORAGE_POOL", f"{host}: no pool {uuid}", "")
            known = _known(there, pool)
            known.autostart = enabled
            there.shelves.pools[pool.name] = known

    def undefine_pool(self, host: str, uuid: str) -> None:
        """See the port."""
        with self._asked("undefine_pool", host, effect=True) as there:
            pool = _find(there, uuid)
            if pool is None:
                return
            if pool.active:
                raise OperatorMustFix("OPERATION_INVALID", f"{host}: storage pool {pool.name} is still active", "")
            _replace(there, pool, None)

    def list_directory(self, host: str, path: str, uuid: str) -> tuple[str, ...] | None:  # noqa: ARG002
        """See the port."""
        with self._asked("list_directory", host, effect=True) as there:
            _check_free(there, host, path)
            if not _exists(there, path):
                return None
            return tuple(sorted(_names(there, path)))

    def remove_directory(self, host: str, path: str, uuid: str) -> bool:  # noqa: ARG002
        """See the port."""
        with self._asked("remove_directory", host, effect=True) as there:
            if any(p.type == "dir" and p.target == path for p in there.facts.pools):
                return False
            if _names(there, path) or any(p.active and p.target == path for p in there.facts.pools):
                return False
            there.shelves.directories.discard(path)
            return True

    def write_volume(self, host: str, pool: str, name: str, contents: bytes) -> None:
        """See the port."""
        with self._asked("write_volume", host, effect=True) as there:
            found = next((p for p in there.facts.pools if p.name == pool), None)
            if found is None or not found.active:
                code = "NO_STORAGE_POOL" if found is None else "POOL_INACTIVE"
                raise OperatorMustFix(code, f"{host}: pool {pool}", "")
            volumes, path, size = there.volumes.setdefault(pool, {}), f"{found.target}/{name}", len(contents)
            if name in volumes:
                raise OperatorMustFix("VOLUME_EXISTS", f"{host}: {pool} already has {name}", "")
            volumes[name] = Volume(name, path, size, size, "raw", size)
            there.contents[path] = bytearray(contents)


def _find(there: PoolHost, key: str) -> Pool | None:
    by_uuid = (p for p in there.facts.pools if _known(there, p).uuid == key)
    by_name = (p for p in there.facts.pools if p.name == key)
    return next(by_uuid, next(by_name, None))


def _known(there: PoolHost, pool: Pool) -> FakePool:
    uuid = str(uuid_module.uuid5(uuid_module.NAMESPACE_OID, f"{there.facts.name}/{pool.name}"))
    return there.shelves.pools.get(pool.name) or FakePool(uuid, _xml(pool, uuid))


def _put(there: PoolHost, pool: Pool, known: FakePool) -> None:
    there.facts = replace(there.facts, pools=(*there.facts.pools, pool))
    there.shelves.pools[pool.name] = known


def _replace(there: PoolHost, pool: Pool, new: Pool | None) -> None:
    known = _known(there, pool)
    others = tuple(p for p in there.facts.pools if p.name != pool.name)
    there.facts = replace(there.facts, pools=others if new is None else (*others, new))
    if new is None:
        there.shelves.pools.pop(pool.name, None)
    else:
        there.shelves.pools[pool.name] = known


def read_again(there: PoolHost, host: str, pool: Pool) -> Pool:
    """What cannot be read is stopped."""
    if pool.target in there.shelves.unreadable:
        _replace(there, pool, replace(pool, active=False) if _known(there, pool).persistent else None)
        raise RetryLater("POOL_REFRESH_FAILED", f"{host}: pool {pool.name} cannot be read", "")
    return pool


def _conflicts(pool: Pool, new: Pool) -> bool:
    """libvirt refuses two pools of one source; a directory is its own."""
    if pool.type != new.type:
        return False
    return pool.target == new.target if new.type == "dir" else bool(new.source) and pool.source == new.source


def _check_free(there: PoolHost, host: str, path: str) -> None:
    taken = next((p for p in there.facts.pools if p.type == "dir" and p.target == path), None)
    if taken is not None:
        raise OperatorMustFix("DIRECTORY_IN_USE", f"{host}: pool {taken.name} has {path}", "")


def _exists(there: PoolHost, path: str) -> bool:
    targets = {p.target for p in there.facts.pools if p.active}
    return path in there.shelves.directories or any(t and (t == path or t.startswith(f"{path}/")) for t in targets)


def _names(there: PoolHost, path: str) -> set[str]:
    files = {v.path for made in there.volumes.values() for v in made.values()} | there.shelves.directories
    return {file.rsplit("/", 1)[1] for file in files if file != "/" and dirname(file) == path}


def _make_directories(there: PoolHost, path: str) -> None:
    while path != "/":
        there.shelves.directories.add(path)
        path = dirname(path)


def _parse(root: etree._Element) -> Pool:
    host, directory = root.find("source/host"), root.find("source/dir")
    where = directory.get("path", "") if directory is not None else ""
    return Pool(
        name=root.findtext("name") or "",
        type=root.get("type") or "",
        active=False,
        target=root.findtext("target/path"),
        source=where if host is None else f"{host.get('name')}:{where}",
    )


def _xml(pool: Pool, uuid: str) -> str:
    host, _, directory = pool.source.rpartition(":")
    source = f"<source><host name='{host}'/><dir path='{directory}'/></source>" if host else ""
    return (
        f"<pool type='{pool.type}'><name>{pool.name}</name><uuid>{uuid}</uuid>{source}"
        f"<target><path>{pool.target}</path></target></pool>"
    )
