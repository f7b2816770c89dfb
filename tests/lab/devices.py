"""Block devices of the lab's hosts: loop devices, each with a node in a directory that a pool shows.

The kernel has one set of loop devices for all namespaces; the nodes make them belong to one host each.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import libvirt

from tests.lab.shell import run

if TYPE_CHECKING:
    from tests.lab.host import Host

DEVICES = "devices"
DEVICES_PATH = "/var/lib/libvirt/devices"
POOL = f"<pool type='dir'><name>{DEVICES}</name><target><path>{DEVICES_PATH}</path></target></pool>"
DELETED = " (deleted)"


def add_device(host: Host, name: str, size_mib: int) -> str:
    """A new, empty block device; returns its path on the host."""
    folder = host.root / DEVICES_PATH.lstrip("/")
    folder.mkdir(exist_ok=True)
    image = host.root / f"{name}.device"
    with image.open("wb") as file:
        file.truncate(size_mib << 20)
    loop = Path(run("losetup", "--find", "--show", str(image)).strip())
    os.mknod(folder / name, stat.S_IFBLK | 0o660, loop.stat().st_rdev)
    with contextlib.closing(host.connect()) as conn:
        try:
            pool = conn.storagePoolLookupByName(DEVICES)
        except libvirt.libvirtError:
            pool = conn.storagePoolCreateXML(POOL, 0)
        pool.refresh(0)
    return f"{DEVICES_PATH}/{name}"


def remove_device(host: Host, name: str) -> None:
    """Take it away again; harmless when it is not there."""
    (host.root / DEVICES_PATH.lstrip("/") / name).unlink(missing_ok=True)
    detach_loops(host.root / f"{name}.device")
    (host.root / f"{name}.device").unlink(missing_ok=True)


def detach_loops(place: Path) -> None:
    """Let go of the loop devices of one file, or of all files below a folder, those of killed runs included."""
    for line in run("losetup", "--list", "--noheadings", "--raw", "--output", "NAME,BACK-FILE").splitlines():
        loop, _, file = line.partition(" ")
        backing = Path(file.removesuffix(DELETED).replace("\\x20", " ").strip())
        if backing == place or place in backing.parents:
            run("losetup", "--detach", loop, check=False)
