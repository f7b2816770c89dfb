"""A disk whose file below it is on both hosts already: what an incremental copy sends, shut off and live."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.model.run import RunRecord, State
from tests.benchmarks.offline import END_TIMEOUT_S, MIB, bytes_received, image_folder
from tests.benchmarks.report import Figure, spread
from tests.benchmarks.rig import Rig
from tests.lab import Guest
from tests.lab.shell import LabError, run

DISK_MIB = 1024
BASE_MIB = 300
OVERLAY_MIB = 100
PIECE_KIB = 256
RATIO = 1.1


@dataclass(frozen=True, slots=True)
class IncrementalTrip:
    """One VM that went."""

    way: str
    sent: float
    """Bytes of the disk that were sent, over what the file on top takes up on the source."""
    total_s: float
    """Enqueue to ``succeeded``."""


def measure_incremental(rig: Rig, count: int) -> Iterator[IncrementalTrip]:
    """``count`` of each; every one begins with new files."""
    for number in range(count):
        for way in ("shut off", "live"):
            with ExitStack() as stack:
                options: dict[str, Any] = {
                    "disk": "local",
                    "disk_mib": DISK_MIB,
                    "below": ("qcow2",),
                    "below_everywhere": True,
                }
                guest = rig.lab.guest(f"above-{number}-{way.replace(' ', '')}", start="off", memory_mib=96, **options)
                stack.callback(guest.remove)
                yield _trip(rig, guest, way, random.Random(number))


def incremental_figures(trips: list[IncrementalTrip]) -> list[Figure]:
    """By way."""
    figures = []
    for way in dict.fromkeys(trip.way for trip in trips):
        these = [trip for trip in trips if trip.way == way]
        name = f"incremental, {way}"
        figures.append(spread(f"{name}: bytes sent over data on top", [t.sent for t in these], unit="×", goal=RATIO))
        figures.append(spread(f"{name}: enqueue to succeeded", [t.total_s for t in these], unit="s"))
    return figures


def _trip(rig: Rig, guest: Guest, way: str, dice: random.Random) -> IncrementalTrip:
    here, there = (image_folder(rig.lab.host(name)) for name in ("alpha", "beta"))
    _write(rig, here / guest.base(0), BASE_MIB, dice)
    run("cp", "--sparse=always", str(here / guest.base(0)), str(there / guest.base(0)))
    top = here / guest.volume
    _write(rig, top, OVERLAY_MIB, dice)
    data = top.stat().st_blocks * 512
    if way == "live":
        guest.start()
        guest.wait_ticking()
    before, began_at = bytes_received(rig.lab.host("beta")), rig.now()
    run_id = rig.client.submit({"vm": guest.name, "destination": "beta", "storage": "incremental"}).id
    rig.elsewhere.AsyncResult(run_id).get(timeout=END_TIMEOUT_S)
    record = rig.client.show(run_id)
    if record.state is not State.SUCCEEDED or record.finished_at is None:
        raise LabError(f"{run_id}: {record.state}: {record.error}")
    # Live, memory comes in by the same card; what of it was sent is libvirt's own figure, taken at the end.
    sent = bytes_received(rig.lab.host("beta")) - before - record.progress.memory.processed_bytes
    _check_not_copied(record)
    return IncrementalTrip(way, sent / data, record.finished_at - began_at)


def _check_not_copied(record: RunRecord) -> None:
    (copy,) = record.copies
    if [base.how for base in copy.backing] != ["present"]:
        raise LabError(f"the file below was copied: {copy.backing}")


def _write(rig: Rig, file: Path, mib: int, dice: random.Random) -> None:
    """Scattered data; whoever sends it does not compress it."""
    places = dice.sample(range(DISK_MIB * MIB // (PIECE_KIB * 1024)), mib * 1024 // PIECE_KIB)
    commands = [f"write -q -P {dice.randint(1, 255)} {place * PIECE_KIB}k {PIECE_KIB}k" for place in places]
    path = f"/{file.relative_to(rig.lab.host('alpha').root)}"
    rig.lab.host("alpha").run(["qemu-io", "-f", "qcow2", *(word for one in commands for word in ("-c", one)), path])
