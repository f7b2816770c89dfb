"""Storage pools that disks stay on: what is planned of them, and what is seen and made."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from tasks.model.frozen import Frozen
from tasks.model.host import Pool

WINDOW_PREFIX = "vmferry."
"""Pools of this name are windows, whoever's: they may be ended at any moment. Others are there to stay."""
HELPER_PREFIX = "vmferry-"
"""Names of the pools that are there for a moment only begin with it."""
PASSING_PREFIXES = (WINDOW_PREFIX, HELPER_PREFIX)
"""How the names of all pools begin that vmferry makes for a while."""


class PoolAction(StrEnum):
    """What *prepare* does with the destination's pool."""

    NONE = "none"
    """It is there and active."""
    START = "start"
    """It is there and not active."""
    MAKE = "make"
    """It is made from the source's definition."""


class Mount(Frozen):
    """A network file system that something of the VM stays on: a netfs pool on either host."""

    source_pool: str
    destination_pool: str
    export: str
    """``host:directory``."""
    target: str
    """Directory on both hosts."""
    action: PoolAction = PoolAction.NONE
    written: bool = False
    """The VM writes to it: that both hosts have the same behind it is proven before anything is moved."""


@dataclass(frozen=True, slots=True)
class PoolView:
    """A storage pool of a host at one moment."""

    uuid: str
    pool: Pool
    persistent: bool
    autostart: bool


class PoolPort(Protocol):
    """The part of ``tasks.model.ports.Hypervisor`` that is about pools themselves.

    Whatever changes or removes a pool names it by UUID, which tells whose it is: libvirt 9.0 keeps no other mark.
    """

    def list_pools(self, host: str) -> tuple[Pool, ...]:
        """All pools of a host, active or not."""

    def find_pool(self, host: str, key: str) -> PoolView | None:
        """Look a pool up by UUID or by name; None when the host does not have it."""

    def fetch_pool_xml(self, host: str, name: str) -> str:
        """The definition. Raises ``OperatorMustFix`` (``NO_STORAGE_POOL``)."""

    def define_pool(self, host: str, xml: str) -> None:
        """Define a pool; nothing happens when it is defined with the same name and UUID already.

        Raises ``OperatorMustFix`` (``POOL_EXISTS``) when the name, the UUID or the source is another pool's."""

    def start_pool(self, host: str, uuid: str, *, build: bool = False) -> None:
        """Start a pool, having made its directory when ``build``; no error when it is active."""

    def stop_pool(self, host: str, uuid: str) -> None:
        """Stop a pool; a transient one is gone then. No error when it is not active, or not there.

        Raises ``OperatorMustFix`` (``POOL_BUSY``) when the host uses its file system."""

    def set_pool_autostart(self, host: str, uuid: str, *, enabled: bool) -> None:
        """Set whether the host starts the pool at boot."""

    def undefine_pool(self, host: str, uuid: str) -> None:
        """Remove an inactive pool's definition; no error when there is none."""

    def list_directory(self, host: str, path: str, uuid: str) -> tuple[str, ...] | None:
        """Names in a directory; None when there is no such directory.

        libvirt shows directories as pools only: for a moment there is a transient one with this UUID. Raises
        ``OperatorMustFix`` (``DIRECTORY_IN_USE``) when another pool has the directory, ``RetryLater``
        (``DIRECTORY_BUSY``) when somebody else is looking, too."""

    def remove_directory(self, host: str, path: str, uuid: str) -> bool:
        """Remove an empty directory; False when there is something in it, or another pool has it.

        For a moment there is a pool with this UUID, which may be left from before."""

    def write_volume(self, host: str, pool: str, name: str, contents: bytes) -> None:
        """Make a small volume with these contents. Raises ``OperatorMustFix`` (``VOLUME_EXISTS``)."""
