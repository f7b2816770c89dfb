"""What the remedies that were asked for do to the VM's definition and to the hosts."""

from __future__ import annotations

from typing import Literal

from tasks.model.frozen import Frozen


class Change(Frozen):
    """Something that a definition names otherwise on the destination."""

    old: str
    new: str


class Medium(Frozen):
    """What is in a CD-ROM or floppy drive."""

    target: str
    """Guest-side name of the drive."""
    source: str


class NetworkOrder(Frozen):
    """A libvirt network that the destination needs."""

    name: str
    action: Literal["make", "start"]


class Remedied(Frozen):
    """Everything that remedies do beside copying files; empty: nothing."""

    ejected: tuple[Medium, ...] = ()
    """Media that are taken out of their drives on the source."""
    networks: tuple[NetworkOrder, ...] = ()
    listens: tuple[Change, ...] = ()
    """Addresses at which displays listen."""
    machines: tuple[Change, ...] = ()
    """Names of machine types that stand for others."""


NO_REMEDIES = Remedied()
