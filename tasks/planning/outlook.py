"""What a migration would be like: what moves and how, how long the VM stands still, and which other ways there are."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.model.disks import DiskCopy
from tasks.model.plan import Alternative, Downtime, Outlook
from tasks.model.request import Method, Storage
from tasks.planning.data_path import against_hosts
from tasks.planning.situation import Situation
from tasks.planning.storage import SUPPORTED, can_be_copied, sharing_of

DOWNTIME = {
    Method.LIVE: (Downtime.SWITCH_OVER, "it pauses for the switch-over, as a rule well under a second"),
    Method.SUSPEND: (Downtime.TRANSFER, "it is paused while its memory is sent"),
    Method.SAVED: (Downtime.TRANSFER, "it stands still from the moment it is saved until it is restored"),
    Method.OFFLINE: (Downtime.NONE, "it is shut off, and stays so"),
}
SHUT_DOWN = (Downtime.TRANSFER, "it is shut down, moved, and started again on the destination")
HOST_TO_HOST = "from host to host by libvirt, while the VM is there"
STARTED_PAUSED = "from host to host by libvirt, for which the VM is started paused; "
COMPARED = "what the guest would read is compared at the end"
NOT_COMPARED = "contents are not compared"
THROUGH_WORKER = (
    "byte for byte through the worker, in pieces that are checked and not sent twice, read again at the end"
)
NOTHING = "nothing but the definition"


def outlook(s: Situation, copies: Sequence[DiskCopy]) -> Outlook:
    """For a situation that has been decided."""
    downtime, words = DOWNTIME[s.method] if s.carries_memory or not s.view.active else SHUT_DOWN
    files = [*s.files, *(file for copy in copies for file in copy.files)]
    mirrored = sum(copy.allocation_bytes for copy in copies if not copy.length_bytes)
    own = {copy.target: copy.allocation_bytes for copy in copies}
    return Outlook(
        downtime=downtime,
        downtime_words=words,
        memory_bytes=s.view.memory_kib * 1024 if s.carries_memory else 0,
        # Holes are not sent: of a disk's own file its allocation counts, of those below it the length is known.
        disk_bytes=mirrored + sum(own.get(file.key, file.length_bytes) for file in files),
        data_path=_data_path(s, copies),
        alternatives=(*_methods(s), *_storages(s), *_data_paths(s)),
    )


def _data_path(s: Situation, copies: Sequence[DiskCopy]) -> str:
    mirrored = any(not copy.length_bytes for copy in copies)
    through = bool(s.files) or any(copy.files for copy in copies) or s.method is Method.SAVED
    off = NOT_COMPARED if s.request.verify == "basic" else COMPARED
    ways = [STARTED_PAUSED + off] if s.mirrored_off else [HOST_TO_HOST] if mirrored or s.method.streams_memory else []
    ways += [THROUGH_WORKER] if through else []
    return "; and ".join(ways) or NOTHING


def _methods(s: Situation) -> list[Alternative]:
    return [_method(s, other) for other in Method if other is not s.method]


def _method(s: Situation, other: Method) -> Alternative:
    if other.carries_memory and not s.view.active:
        return Alternative(way=f"method {other}", possible=False, reason="the VM is shut off")
    if not other.carries_memory and s.view.active:
        return Alternative(
            way=f"method {other}",
            possible=False,
            reason=f"the VM is {s.view.state.value}; --shut-down allows that it is shut down",
        )
    return Alternative(way=f"method {other}", possible=True, reason=DOWNTIME[other][1])


def _storages(s: Situation) -> list[Alternative]:
    return [_storage(s, other) for other in Storage if other is not s.storage]


def _storage(s: Situation, other: Storage) -> Alternative:
    way = f"storage {other}"
    if other not in SUPPORTED[s.method]:
        return Alternative(way=way, possible=False, reason=f"a VM that goes {s.method} cannot have it")
    disks = [d for d in s.disks if can_be_copied(d)]
    if other is Storage.SHARED:
        local = [f"{d.target}: {r.reason}" for d in disks if not (r := sharing_of(d, s.source, s.destination)).proven]
        reason = "; ".join(local) or "every disk is on storage that both hosts have"
        return Alternative(way=way, possible=not local, reason=reason)
    if not disks:
        return Alternative(way=way, possible=False, reason="there is no disk to be copied")
    if other is Storage.INCREMENTAL:
        chained = [d.target for d in disks if d.backing or len(s.chains.get(d.target, ())) > 1]
        reason = f"{', '.join(chained)}: only the top file" if chained else "no file below a disk is known"
        return Alternative(way=way, possible=bool(chained), reason=reason)
    return Alternative(way=way, possible=True, reason="the disks get new volumes there")


def _data_paths(s: Situation) -> list[Alternative]:
    """There is a choice for a VM that is shut off only."""
    if s.data_path is None or s.method is not Method.OFFLINE:
        return []
    if s.mirrored_off:
        reason = "the files are copied byte for byte, in recorded pieces; nothing is started"
        return [Alternative(way="data path worker", possible=True, reason=reason)]
    against = against_hosts(s)
    reason = "; ".join(against) or "it is started paused and mirrored; its disks do not pass through the worker"
    return [Alternative(way="data path hosts", possible=not against, reason=reason)]
