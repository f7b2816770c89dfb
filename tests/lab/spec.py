"""Names and addresses of a lab, all derived from its name; nothing else decides them."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

HOSTS = ("alpha", "beta", "gamma")
HUB_ADDRESS = "10.88.0.1"
STORE_ADDRESS = "10.88.0.2"
"""Guests get addresses from 10.88.7.0 on. Every lab has namespaces of its own, so that equal addresses never meet."""


def labs_folder() -> Path:
    """Where labs keep their state and the guest image that they share."""
    return Path(os.environ.get("VMFERRY_LAB_DIR", "/var/tmp/vmferry-labs"))


@dataclass(frozen=True, slots=True)
class Spec:
    """What a lab is called and made of."""

    name: str
    hosts: tuple[str, ...] = HOSTS

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", self.name):
            raise ValueError(f"{self.name!r} is no name of a lab: use up to 31 of a-z 0-9 -")

    @property
    def store(self) -> str:
        """Name of the storage server."""
        return "store"

    @property
    def folder(self) -> Path:
        """Everything the lab writes."""
        return labs_folder() / self.name

    @property
    def tag(self) -> str:
        """Short enough for the names of network interfaces (15 characters)."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:6]

    def netns(self, node: str) -> str:
        """Name of a node's network namespace."""
        return f"vmferry-{self.name}-{node}"

    def veth(self, node: str) -> str:
        """Name of the hub's end of a node's cable."""
        return f"v{self.tag}{node[:8]}"

    def bridge_mac(self, node: str) -> str:
        """Address of a node's bridge, locally administered."""
        digest = hashlib.sha256(f"{self.name}/{node}".encode()).hexdigest()
        return ":".join(["02", *(digest[i : i + 2] for i in range(0, 10, 2))])

    def address(self, host: str) -> str:
        """A host's address in the lab's network."""
        return f"10.88.0.{11 + self.hosts.index(host)}"
