"""Which paths are the same file on both hosts, as far as libvirt's storage pools can prove it."""

from __future__ import annotations

from dataclasses import dataclass
from posixpath import normpath

from tasks.model.host import HostFacts, Pool

SHARED_TYPE = "netfs"
MOUNTING_TYPES = frozenset({"netfs", "fs"})
"""Pool types that mount a file system on their target: the innermost one decides what a path below it is on."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """The answer for one path, with the reason in words."""

    proven: bool
    reason: str


def find_sharing(path: str, source: HostFacts, destination: HostFacts) -> Sharing:
    """Whether ``path`` lies on the same network file system, mounted at the same place by active pools of both hosts.

    A path with ``..`` in it is never proven: through a symbolic link it may lead anywhere.
    """
    if not path.startswith("/") or ".." in path.split("/"):
        return Sharing(False, "the path is not absolute and plain")
    here, there = mount_of(path, source), mount_of(path, destination)
    if here is None or here.type != SHARED_TYPE:
        return Sharing(False, f"no active netfs pool of {source.name} holds it")
    if there is None or there.type != SHARED_TYPE:
        return Sharing(False, f"no active netfs pool of {destination.name} holds it")
    return compare_pools(here, there, source, destination)


def compare_pools(here: Pool, there: Pool, source: HostFacts, destination: HostFacts) -> Sharing:
    """Whether two active network pools show the same export at the same place."""
    if here.type != there.type or not here.source or here.source != there.source:
        return Sharing(
            False,
            f"pool {here.name} of {source.name} is {here.type} {here.source or 'without source'}, "
            f"pool {there.name} of {destination.name} is {there.type} {there.source or 'without source'}",
        )
    if _target(here) != _target(there):
        return Sharing(
            False,
            f"{here.source} is mounted at {here.target} on {source.name}, at {there.target} on {destination.name}",
        )
    return Sharing(True, f"{here.source} is mounted at {here.target} on both hosts")


def _target(pool: Pool) -> str:
    return normpath(pool.target or "")


def mount_of(path: str, host: HostFacts) -> Pool | None:
    """The innermost active pool that mounts a file system on a directory above the path."""
    clean = normpath(path)
    holding = [p for p in host.pools if p.active and p.type in MOUNTING_TYPES and p.target and _holds(p, clean)]
    return max(holding, key=lambda pool: len(_target(pool)), default=None)


def _holds(pool: Pool, path: str) -> bool:
    target = _target(pool)
    return path.startswith(target if target.endswith("/") else f"{target}/")
