"""A running guest with a disk of its own goes to another host, by vmferry and by virsh: time and space."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tasks.model.run import State
from tests.benchmarks.pairs import END_TIMEOUT_S, virsh_command
from tests.benchmarks.report import Figure, spread
from tests.benchmarks.rig import Rig
from tests.lab import Guest, Lab
from tests.lab.host import LOCAL_PATH
from tests.lab.shell import LabError

DISK_MIB = 1024
DATA_MIB = 200
RATIO = 1.1
MIB = 1 << 20

_Way = Callable[[Rig, Guest], float]
"""Moves the guest; milliseconds."""


@dataclass(frozen=True, slots=True)
class CopyTrip:
    """One migration with its disk."""

    total_ms: float
    """vmferry: enqueue to ``succeeded``; virsh: the command's run."""
    source_mib: float
    """What the disk takes up on the source's file system."""
    destination_mib: float
    """And on the destination's, afterwards."""

    @property
    def growth(self) -> float:
        """How many times the source's space the copy takes."""
        return self.destination_mib / self.source_mib


@dataclass(frozen=True, slots=True)
class CopyPair:
    """The same by both, from the same beginning."""

    vmferry: CopyTrip
    virsh: CopyTrip

    @property
    def ratio(self) -> float:
        """vmferry's time over virsh's."""
        return self.vmferry.total_ms / self.virsh.total_ms


def measure_copies(rig: Rig, folder: Path, count: int) -> Iterator[CopyPair]:
    """Every trip begins with a fresh guest on alpha, whose disk is a copy of one image; who goes first alternates."""
    image = _make_image(folder)
    ways = (_by_vmferry, _by_virsh)
    for way in ways:  # connections and caches: these do not count
        _trip(rig, image, way, f"copy-warm{ways.index(way)}")
    for number in range(count):
        order = ways if number % 2 == 0 else ways[::-1]
        trips = {way: _trip(rig, image, way, f"copy-{number}-{ways.index(way)}") for way in order}
        yield CopyPair(trips[_by_vmferry], trips[_by_virsh])


def copy_figures(pairs: list[CopyPair]) -> list[Figure]:
    """Time as a ratio, space as a ratio."""
    ferry, virsh = [p.vmferry for p in pairs], [p.virsh for p in pairs]
    name = "live + copy"
    return [
        spread(f"{name}: time, vmferry over virsh", [p.ratio for p in pairs], unit="×", goal=RATIO),
        spread(f"{name}: vmferry, enqueue to succeeded", [t.total_ms for t in ferry]),
        spread(f"{name}: virsh migrate --copy-storage-all", [t.total_ms for t in virsh]),
        spread(f"{name}: space there over space here", [t.growth for t in ferry], unit="×", goal=RATIO),
        Figure(f"{name}: the same by virsh", statistics.median(t.growth for t in virsh), "×"),
    ]


def _make_image(folder: Path) -> Path:
    """A qcow2 image with so much data that cannot be compressed, at its beginning."""
    raw, image = folder / "data.raw", folder / "data.qcow2"
    with raw.open("wb") as file:
        for _ in range(DATA_MIB):
            file.write(os.urandom(MIB))
        file.truncate(DISK_MIB * MIB)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, image], check=True, capture_output=True)
    raw.unlink()
    return image


def _trip(rig: Rig, image: Path, way: _Way, name: str) -> CopyTrip:
    with ExitStack() as stack:
        guest = rig.lab.guest(name, start="off", disk="local", disk_mib=DISK_MIB, memory_mib=96)
        stack.callback(guest.remove)
        here = _images(rig.lab, "alpha")
        subprocess.run(["cp", "--sparse=always", image, here / guest.volume], check=True)
        guest.start()
        guest.wait_ticking()
        source_mib = _allocated_mib(here / guest.volume)
        total_ms = way(rig, guest)
        (there,) = _images(rig.lab, "beta").glob(f"{name}.*")
        return CopyTrip(total_ms, source_mib, _allocated_mib(there))


def _images(lab: Lab, host: str) -> Path:
    return lab.host(host).root / LOCAL_PATH.lstrip("/")


def _allocated_mib(file: Path) -> float:
    return file.stat().st_blocks * 512 / MIB


def _by_vmferry(rig: Rig, guest: Guest) -> float:
    began_at = rig.now()
    run_id = rig.client.submit({"vm": guest.name, "destination": "beta", "storage": "copy"}).id
    rig.elsewhere.AsyncResult(run_id).get(timeout=END_TIMEOUT_S)
    record = rig.client.show(run_id)
    if record.state is not State.SUCCEEDED or record.finished_at is None:
        raise LabError(f"{run_id}: {record.state}: {record.error}")
    return (record.finished_at - began_at) * 1000


def _by_virsh(rig: Rig, guest: Guest) -> float:
    command = virsh_command(rig, guest.name, "alpha", "beta")
    command.insert(command.index("migrate") + 1, "--copy-storage-all")
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=END_TIMEOUT_S, check=False)
    took_ms = (time.monotonic() - began) * 1000
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")
    return took_ms
