"""Settings of what several hosts and migrations share: links and storage pools."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from config.section import Section
from tasks.model.request import HostName

PoolPlace = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,63}/)?[^\x00-\x1f\x7f/]{1,255}$")]
"""``pool``, or ``host/pool``."""


class LinkSettings(Section):
    """A network link that several hosts share, for example the uplink of a rack."""

    hosts: list[HostName] = Field(min_length=1)
    """Hosts behind it: a migration between two of them does not use it."""
    max_transfers: int = Field(2, ge=1, le=1000)
    """Migrations over it at the same time."""
    bandwidth_mib_s: int = Field(0, ge=0)
    """What they may use together, in both directions, MiB/s; they share it. 0: no limit."""


class PoolSettings(Section):
    """A storage pool, as its host's libvirt calls it, or ``host/pool`` for that of one host alone."""

    max_transfers: int = Field(2, ge=1, le=1000)
    """Migrations that copy disks out of it or into it at the same time."""
    shared: bool = False
    """The pools of this name are one storage, and count together; else each host's counts for itself."""
