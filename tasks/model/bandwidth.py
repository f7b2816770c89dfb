"""Bandwidth of links, and what of it each transfer is allotted; MiB/s everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Route:
    """What one transfer goes over."""

    links: tuple[str, ...] = ()
    """Those of its links whose bandwidth is limited."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """Bandwidth of every limited link, also of those that other transfers go over."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A transfer that goes over limited links, or waits to."""

    id: str
    links: tuple[str, ...]
    least: int = 1
    """It cannot go with less: libvirt counts in whole MiB/s, and each disk that is mirrored has a limit of its own."""
    most: int = 0
    """Its policy's limit; 0: none."""
    held: int = 0
    """What it is allotted now: at no moment it uses more. 0: it waits to begin."""
    rank: float = 0.0
    """Since when it is known; who waits longer comes first."""
