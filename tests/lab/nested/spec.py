"""Names of a nested lab; apart from those of ordinary labs, so that equal names never meet."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from tests.lab.spec import Spec, labs_folder

HOSTS = ("one", "two")


@dataclass(frozen=True, slots=True)
class NestedSpec(Spec):
    """Two hosts and an NFS server."""

    hosts: tuple[str, ...] = HOSTS

    @property
    def store(self) -> str:
        """Name of the storage server."""
        return "nfs"

    @property
    def folder(self) -> Path:
        """Everything the lab writes."""
        return nested_folder() / self.name

    @property
    def tag(self) -> str:
        """Short enough for the names of network interfaces (15 characters)."""
        return hashlib.sha256(f"nested/{self.name}".encode()).hexdigest()[:6]

    def netns(self, node: str) -> str:
        """Name of a node's network namespace; only the hub has one."""
        return f"vmferry-nested-{self.name}-{node}"


def nested_folder() -> Path:
    """Where nested labs keep their state."""
    return labs_folder() / "nested"
