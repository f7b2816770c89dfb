"""Network file systems that the VM stays on: which pools the destination has for them, and which must be made there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from posixpath import normpath

from tasks.model.domain import Disk, Domain
from tasks.model.host import HostFacts, Pool
from tasks.model.pools import Mount, PoolAction
from tasks.model.request import AUTO, EVERY_DISK, MigrationRequest, Storage
from tasks.planning.copies import copied_disks
from tasks.planning.sharing import SHARED_TYPE, find_sharing, mount_of
from tasks.planning.situation import Situation
from tasks.planning.storage import MEDIUM_DEVICES, can_be_copied

CODES = {
    "POOL_NAME_TAKEN": "The destination has another pool under the name of one that would have to be made there.",
    "POOL_TARGET_TAKEN": "A pool of the destination uses the directory at which a network file system must be mounted.",
    "POOL_EXPORT_ELSEWHERE": "The destination has the network file system in a pool that does not serve for it.",
}
"""What each reason against making a pool means."""

MAKING = (AUTO, Storage.SHARED)
"""Storage asked for that has pools made."""


@dataclass(frozen=True, slots=True)
class Place:
    """One file, or one volume, that a disk needs."""

    disk: Disk
    path: str = ""
    """Empty for a volume."""
    pool: str = ""
    """Name of a volume's pool, which libvirt looks up by name on each host."""
    written: bool = False


@dataclass(frozen=True, slots=True)
class Clash:
    """Why the destination cannot have a pool like the source's."""

    code: str
    message: str
    hint: str


def plan_mounts(s: Situation) -> Situation:
    """The situation as *prepare* will make it: pools that are missing or inactive there count as active.

    A caller who asked for a copy wants the disks away from where they are; nothing is made for them.
    """
    if s.request.storage not in MAKING:
        return s
    mounts = _merge(
        mount
        for place in _places(s.definitions)
        if not _named(place.disk, s.request)
        for mount in [_mount(place, s.source, s.destination)]
        if isinstance(mount, Mount)
    )
    planned = tuple(m for m in mounts if m.action is not PoolAction.NONE)
    return replace(s, mounts=planned, destination=_with_pools(s.destination, s.source, planned))


def settle_mounts(s: Situation) -> Situation:
    """With the storage chosen: the mounts that something stays on, those that are there already among them."""
    before = {mount.destination_pool: mount.action for mount in s.mounts}
    used = _merge(
        mount
        for place in _staying(s)
        for mount in [_mount(place, s.source, s.destination)]
        if isinstance(mount, Mount) and _proven(place, s)
    )
    actions = {mount.destination_pool: before.get(mount.destination_pool, mount.action) for mount in used}
    mounts = tuple(mount.model_copy(update={"action": actions[mount.destination_pool]}) for mount in used)
    return replace(s, mounts=mounts, destination=_without_pools(s, mounts))


def clashes_of(s: Situation) -> list[tuple[Clash, bool]]:
    """Why pools cannot be made for what lies on the source's network file systems; and whether a disk stays on it."""
    if s.request.storage not in MAKING:
        return []
    staying = {place.disk for place in _staying(s)}
    found: dict[Clash, bool] = {}
    for place in _places(s.definitions):
        clash = _mount(place, s.source, s.destination)
        if isinstance(clash, Clash):
            needed = place.disk in staying and place.disk.device not in MEDIUM_DEVICES
            found[clash] = found.get(clash, False) or needed
    return list(found.items())


def find_counterpart(here: Pool, pools: Sequence[Pool], destination: str, *, by_name: bool = False) -> Mount | Clash:
    """The destination's pool for one of the source's; ``pools`` are the destination's.

    ``by_name``: a volume is looked up by its pool's name, so that a pool of another name does not serve.
    """
    fitting = [p for p in pools if _same(here, p)]
    found = next((p for p in fitting if p.name == here.name), None if by_name or not fitting else fitting[0])
    if found is not None:
        return _pair(here, found.name, PoolAction.NONE if found.active else PoolAction.START)
    for check in (_check_name, _check_export, _check_target):
        if clash := check(here, pools, destination):
            return clash
    return _pair(here, here.name, PoolAction.MAKE)


def describe_mount(mount: Mount, destination: str) -> str:
    """What *prepare* does, for people."""
    pool = f"pool {mount.destination_pool} on {destination}"
    where = f"{mount.export} at {mount.target}"
    return f"{pool} ({where})" if mount.action is PoolAction.MAKE else f"start of {pool} ({where})"


def _check_name(here: Pool, pools: Sequence[Pool], destination: str) -> Clash | None:
    for other in (p for p in pools if p.name == here.name):
        message = (
            f"{destination} has another pool {other.name}: {other.type} {other.source or 'without source'} at "
            f"{other.target}, and the source's is {here.source} at {here.target}"
        )
        return Clash("POOL_NAME_TAKEN", message, "rename one of them, or have the disks copied: --storage copy")
    return None


def _check_export(here: Pool, pools: Sequence[Pool], destination: str) -> Clash | None:
    """libvirt refuses a second pool of the same export."""
    for other in (p for p in pools if p.type == SHARED_TYPE and p.source == here.source):
        message = (
            f"{destination} has {here.source} as pool {other.name} at {other.target}, and it is needed as pool "
            f"{here.name} at {here.target}"
        )
        hint = f"let both hosts have it alike: virsh pool-edit {other.name} on {destination}"
        return Clash("POOL_EXPORT_ELSEWHERE", message, hint)
    return None


def _check_target(here: Pool, pools: Sequence[Pool], destination: str) -> Clash | None:
    """What is below a directory cannot be seen any more once something is mounted there."""
    target = normpath(here.target or "")
    for other in (p for p in pools if p.target):
        theirs = normpath(other.target or "")
        if theirs == target or theirs.startswith(f"{target}/"):
            message = f"pool {other.name} of {destination} uses {theirs}, and {here.source} must be mounted at {target}"
            return Clash("POOL_TARGET_TAKEN", message, f"virsh pool-dumpxml {other.name} on {destination}")
    return None


def _same(here: Pool, there: Pool) -> bool:
    return (
        here.type == there.type == SHARED_TYPE
        and bool(here.source)
        and here.source == there.source
        and normpath(here.target or "") == normpath(there.target or "")
    )


def _pair(here: Pool, name: str, action: PoolAction) -> Mount:
    return Mount(
        source_pool=here.name, destination_pool=name, export=here.source, target=here.target or "", action=action
    )


def _mount(place: Place, source: HostFacts, destination: HostFacts) -> Mount | Clash | None:
    """None when the source does not have it on a network file system."""
    if place.pool:
        here = next((p for p in source.pools if p.name == place.pool and p.active), None)
    else:
        here = mount_of(place.path, source)
    if here is None or here.type != SHARED_TYPE or not here.source or not here.target:
        return None
    found = find_counterpart(here, destination.pools, destination.name, by_name=bool(place.pool))
    return found.model_copy(update={"written": place.written}) if isinstance(found, Mount) else found


def _places(definitions: Sequence[Domain]) -> Iterator[Place]:
    """Every file and volume of the disks, those below them too; media as well, without which the VM does not start."""
    for disk in (d for definition in definitions for d in definition.disks if d.source):
        written = not disk.readonly and disk.device not in MEDIUM_DEVICES
        source = disk.source or ""
        if disk.type == "volume":
            yield Place(disk, pool=source.split("/", 1)[0], written=written)
        elif disk.type in ("file", "dir"):
            yield Place(disk, path=source, written=written)
        yield from (Place(disk, path=path) for path in disk.backing if path.startswith("/"))


def _staying(s: Situation) -> Iterator[Place]:
    copied = {(disk.target, disk.source) for disk in copied_disks(s)}
    return (place for place in _places(s.definitions) if (place.disk.target, place.disk.source) not in copied)


def _proven(place: Place, s: Situation) -> bool:
    """A pool's own name says enough for a volume; of a path, something else may be mounted above it."""
    return bool(place.pool) or find_sharing(place.path, s.source, s.destination).proven


def _named(disk: Disk, request: MigrationRequest) -> bool:
    """Whether the request sends it to another pool, whatever it is on."""
    if not can_be_copied(disk):
        return False
    return disk.target in request.pools or (EVERY_DISK in request.pools and not disk.readonly and not disk.shareable)


def _merge(mounts: Iterator[Mount]) -> tuple[Mount, ...]:
    """Each pair once; written when anything on it is."""
    found: dict[tuple[str, str], Mount] = {}
    for mount in mounts:
        key = (mount.source_pool, mount.destination_pool)
        before = found.get(key)
        found[key] = mount if before is None or mount.written else before
    return tuple(found.values())


def _without_pools(s: Situation, mounts: Sequence[Mount]) -> HostFacts:
    """Pools that were planned and are not needed after all stay as they are."""
    dropped = {m.destination_pool: m.action for m in s.mounts} | {m.destination_pool: PoolAction.NONE for m in mounts}
    pools = (
        replace(pool, active=pool.active and dropped.get(pool.name) is not PoolAction.START)
        for pool in s.destination.pools
        if dropped.get(pool.name) is not PoolAction.MAKE
    )
    return replace(s.destination, pools=tuple(pools))


def _with_pools(destination: HostFacts, source: HostFacts, planned: Sequence[Mount]) -> HostFacts:
    """The destination as it will be. Free space is the source's: it is the same file system."""
    theirs = {pool.name: pool for pool in source.pools}
    new = {m.destination_pool: replace(theirs[m.source_pool], name=m.destination_pool) for m in planned}
    kept = tuple(pool for pool in destination.pools if pool.name not in new)
    return replace(destination, pools=tuple(sorted((*kept, *new.values()), key=lambda pool: pool.name)))
