"""What a caller asks for."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from tasks.model.errors import InvalidRequest

ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"


class Method(StrEnum):
    """How the VM goes."""

    LIVE = "live"
    """It runs while its memory is sent, and pauses for the switch-over only."""
    SUSPEND = "suspend"
    """It is paused, its memory is sent once, and it goes on at the destination."""
    SAVED = "saved"
    """Its memory is saved to a file, which is moved with the disks and restored at the destination."""
    OFFLINE = "offline"
    """It is shut off, and stays so."""

    @property
    def carries_memory(self) -> bool:
        """Whether the VM is active before and after."""
        return self is not Method.OFFLINE

    @property
    def streams_memory(self) -> bool:
        """Whether the hypervisors send the memory to each other, so that the VM is never down in between."""
        return self in (Method.LIVE, Method.SUSPEND)


class Storage(StrEnum):
    """How its disks go."""

    SHARED = "shared"
    COPY = "copy"
    INCREMENTAL = "incremental"


class DataPath(StrEnum):
    """By which way the contents of disks go that are copied."""

    HOSTS = "hosts"
    """From host to host: libvirt mirrors the disks."""
    WORKER = "worker"
    """Through the worker: the files, byte for byte, by libvirt's volume streams."""


AUTO = "auto"
EVERY_DISK = "*"
DELETE = "delete"
"""Stands for all disks that are not named."""

# libvirt forbids '/' in names; leading '-' and control characters would only ever be a mistake or an attack.
VmName = Annotated[
    str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f/\-][^\x00-\x1f\x7f/]*$")
]
HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
PolicyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
DiskName = Annotated[str, StringConstraints(pattern=r"^(\*|[A-Za-z0-9_]{1,32})$")]
PoolName = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f/]+$")]
DevicePath = Annotated[str, StringConstraints(max_length=1024, pattern=r"^(/[^\x00-\x1f\x7f/]+)+$")]
DiskBytes = Annotated[int, Field(gt=0, le=2**63 - 1)]
FindingCode = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]
RemedyName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]{0,31}$")]
Label = Annotated[str, StringConstraints(max_length=255)]


class Times(BaseModel):
    """When something may start; what is absent does not limit it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    window: Annotated[str, StringConstraints(max_length=32)] | None = None
    """Hours of every day, ``22:00-06:00``, over midnight or not. Nothing starts that is expected to end after it."""
    time_zone: Annotated[str, StringConstraints(max_length=64)] = "UTC"
    """IANA name of the window's time zone."""
    not_before: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Seconds since the epoch."""
    deadline: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Nothing starts that is expected to end after it, seconds since the epoch."""

    @property
    def is_timed(self) -> bool:
        """Whether anything limits when it may start."""
        return bool(self.window) or self.not_before is not None or self.deadline is not None


class Passed(Times):
    """What a drain and each of its migrations have in common."""

    accept: list[FindingCode] = Field(default_factory=list, max_length=32)
    """Codes of findings that shall not stand in the way: warnings, and those blockers that may be accepted."""
    data_path: Annotated[str, StringConstraints(pattern="^(auto|hosts|worker)$")] = AUTO
    """How the disks of a VM that is shut off go when they are copied: ``worker``, byte for byte through the worker,
    which is what ``auto`` does; or ``hosts``: it is started paused, and libvirt mirrors them from host to host."""
    verify: Annotated[str, StringConstraints(pattern="^(auto|basic|deep)$")] = AUTO
    """``deep`` reads everything that was copied of a VM which does not run again from the destination and compares it,
    which is what ``auto`` does; ``basic`` leaves that out, and compares sizes, paths and definitions only."""
    source_disks: Annotated[str, StringConstraints(pattern="^(keep|delete)$")] = "keep"
    """What becomes of the files of copied disks on the source when the VM has moved and was verified: ``delete``
    removes those that are volumes of a pool, and that no other VM and no other image uses."""
    remedies: list[RemedyName] = Field(default_factory=list, max_length=32)
    """What vmferry shall do about findings that would stand in the way; a rollback takes it back."""
    policy: PolicyName = "default"
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """The higher, the earlier it starts when several wait for the same limit."""
    labels: dict[Label, Label] = Field(default_factory=dict, max_length=32)
    """Free text for the caller's own use, returned in the record."""

    @property
    def passed(self) -> dict[str, Any]:
        """What was said of it, to be passed on."""
        said = {name: getattr(self, name) for name in Passed.model_fields}
        defaults = {name: field.get_default(call_default_factory=True) for name, field in Passed.model_fields.items()}
        return {name: value for name, value in said.items() if value != defaults[name]}


class MigrationRequest(Passed):
    """One VM to be moved; exactly what the caller sent, normalised, before anything is resolved."""

    vm: VmName
    """Name or UUID of the VM."""
    destination: HostName
    """Inventory name of the host it shall run on."""
    source: HostName | None = None
    """Inventory name of the host it runs on now; found by looking when absent."""
    method: Annotated[str, StringConstraints(pattern="^(auto|live|suspend|saved|offline)$")] = AUTO
    storage: Annotated[str, StringConstraints(pattern="^(auto|shared|copy|incremental)$")] = AUTO
    shut_down: Annotated[str, StringConstraints(pattern="^(never|allowed)$")] = "never"
    """``allowed``, with the method ``offline``: a VM that runs is asked to shut down, and started again where it is
    then. Its plug is never pulled; one that does not shut down in time stays."""
    pools: dict[DiskName, PoolName] = Field(default_factory=dict, max_length=64)
    """Storage pool of the destination for each disk that is copied, by its guest-side name (``vda``); ``*`` stands for
    all that are not named. A disk that is named is copied even when it is on shared storage. Absent: the pool of the
    same name as on the source, else one with the same directory."""
    devices: dict[DiskName, DevicePath] = Field(default_factory=dict, max_length=64)
    """Existing block device of the destination that a disk is written to, by the disk's guest-side name."""
    sizes: dict[DiskName, DiskBytes] = Field(default_factory=dict, max_length=64)
    """Size that a copied disk is grown to at the end, bytes, by its guest-side name; it never shrinks."""

    @model_validator(mode="after")
    def _shut_down_to_go_offline(self) -> Self:
        if self.shut_down != "never" and self.method != Method.OFFLINE:
            raise ValueError("shut_down: only with the method offline")
        return self

    def fingerprint(self) -> str:
        """SHA-256 over the normalised request: the same for the same request, whatever the order of its keys.

        Left out is the same as the default, so that an option that a newer version knows changes no older request.
        """
        said = self.model_dump(mode="json", exclude_defaults=True)
        return hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def parse_request(values: dict[str, Any]) -> MigrationRequest:
    """Check a caller's arguments.

    Raises:
        InvalidRequest: code ``INVALID_REQUEST``; the message names every offending argument.
    """
    try:
        return MigrationRequest.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'request'}: {e['msg']}" for e in error.errors(include_url=False)
        )
        raise InvalidRequest("INVALID_REQUEST", problems, "see the arguments of tasks.migrate in the README") from None


def parse_pools(words: Sequence[str]) -> dict[str, str]:
    """Pools as people type them: ``vda=fast`` for one disk, ``fast`` for all others.

    Raises:
        InvalidRequest: code ``INVALID_REQUEST``: a disk was named twice.
    """
    pools: dict[str, str] = {}
    for word in words:
        disk, equals, pool = word.partition("=")
        disk, pool = (disk, pool) if equals else (EVERY_DISK, word)
        if disk in pools:
            which = "all disks" if disk == EVERY_DISK else disk
            raise InvalidRequest("INVALID_REQUEST", f"two pools are named for {which}", "name each disk once")
        pools[disk] = pool
    return pools


def parse_devices(words: Sequence[str]) -> dict[str, str]:
    """Devices as people type them: ``vda=/dev/vg0/web``.

    Raises:
        InvalidRequest: code ``INVALID_REQUEST``.
    """
    return dict(_pair(word, "vda=/dev/vg0/web") for word in words)


def parse_sizes(words: Sequence[str]) -> dict[str, int]:
    """Sizes as people type them: ``vda=20G``; K, M, G and T are powers of 1024.

    Raises:
        InvalidRequest: code ``INVALID_REQUEST``.
    """
    return {disk: _bytes(size) for disk, size in (_pair(word, "vda=20G") for word in words)}


def _pair(word: str, example: str) -> tuple[str, str]:
    disk, equals, value = word.partition("=")
    if not equals or not disk or not value:
        raise InvalidRequest("INVALID_REQUEST", f"{word!r:.80} names no disk and value", f"for example {example}")
    return disk, value


def _bytes(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,19})([KMGT]?)(i?B)?", text, re.IGNORECASE)
    if found is None:
        raise InvalidRequest("INVALID_REQUEST", f"{text!r:.40} is no size", "for example 20G, or 21474836480")
    return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[found[2].upper()]


def parse_id(value: object) -> str:
    """Check a migration id.

    Raises:
        InvalidRequest: code ``INVALID_ID``.
    """
    if isinstance(value, str) and re.fullmatch(ID_PATTERN, value):
        return value
    raise InvalidRequest("INVALID_ID", f"{value!r:.80} is not a migration id", "ids are 1 to 64 of A-Z a-z 0-9 _ -")
