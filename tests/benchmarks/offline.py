"""A shut off guest with a scattered disk goes over a shaped link: by vmferry, and by what people use for files."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tasks.model.run import State, StepName
from tests.benchmarks.report import Figure, spread
from tests.benchmarks.rig import Rig
from tests.lab import Guest, Host
from tests.lab.faults import link_shaped
from tests.lab.host import LOCAL_PATH
from tests.lab.shell import LabError, run, until

DISK_MIB = 4096
DATA_MIB = 300
PIECE = 256 * 1024
MIB = 1 << 20
BYTES_RATIO = 1.05
TIME_RATIO = 1.1
LINKS_MBIT = (1000, 100)
NBD_PORT = 10909
END_TIMEOUT_S = 600.0
OURS = {"vmferry": "worker", "vmferry, hosts": "hosts"}
"""Our ways, each with its data path; the first is the one that is chosen unasked."""


@dataclass(frozen=True, slots=True)
class FileTrip:
    """One disk that went over the link."""

    copy_s: float
    """vmferry: enqueue to ``succeeded`` without the step that verifies; the others: their commands."""
    sent: float
    """Bytes that arrived at the destination's card, over what the file takes up on the source."""
    verify_s: float = 0.0
    """vmferry: reading everything again."""


@dataclass(frozen=True, slots=True)
class FileRound:
    """The same disk by everybody."""

    image: str
    mbit: int
    trips: Mapping[str, FileTrip] = field(default_factory=dict)

    def ratio(self, way: str) -> float:
        """The time of one of our ways over the best of the others."""
        return self.trips[way].copy_s / min(t.copy_s for name, t in self.trips.items() if name not in OURS)


_Way = Callable[[Rig, Guest, str], FileTrip]


def measure_files(rig: Rig, folder: Path, rounds: Mapping[int, int]) -> Iterator[FileRound]:
    """``rounds`` of each image on each link (Mbit/s); who goes first changes with every round."""
    images = _make_images(folder)
    for image, path in images.items():
        with ExitStack() as stack:
            guest = rig.lab.guest(f"file-{image}", start="off", disk="local", disk_format=image, disk_mib=DISK_MIB)
            stack.callback(guest.remove)
            run("cp", "--sparse=always", str(path), str(image_folder(rig.lab.host("alpha")) / guest.volume))
            for mbit, count in rounds.items():
                ways = list(_ways(image).items())
                with _link(rig, mbit):
                    for number in range(count):
                        turn = number % len(ways)
                        order = ways[turn:] + ways[:turn]
                        yield FileRound(image, mbit, {name: way(rig, guest, image) for name, way in order})


def file_figures(rounds: list[FileRound]) -> list[Figure]:
    """Times as ratios, and what everybody sent."""
    figures: list[Figure] = []
    for mbit in LINKS_MBIT:
        for image in ("qcow2", "raw"):
            these = [r for r in rounds if (r.image, r.mbit) == (image, mbit)]
            if these:
                figures += _figures_of(f"offline copy, {image}, {mbit} Mbit/s", these)
    return figures


def _figures_of(name: str, rounds: list[FileRound]) -> Iterator[Figure]:
    for way in OURS:
        ours = [r.trips[way] for r in rounds]
        # What is chosen unasked has goals; what it costs to do without the worker is to be seen beside it.
        time_goal, bytes_goal = (TIME_RATIO, BYTES_RATIO) if way == "vmferry" else (None, None)
        yield spread(
            f"{name}: {way}, time over the best other", [r.ratio(way) for r in rounds], unit="×", goal=time_goal
        )
        yield spread(f"{name}: {way}, bytes sent over data", [t.sent for t in ours], unit="×", goal=bytes_goal)
        yield spread(f"{name}: {way}, without verify", [t.copy_s for t in ours], unit="s")
        yield spread(f"{name}: {way}, verify (deep)", [t.verify_s for t in ours], unit="s")
    for other in (other for other in rounds[0].trips if other not in OURS):
        trips = [r.trips[other] for r in rounds]
        sent = statistics.median(t.sent for t in trips)
        yield spread(f"{name}: {other}, bytes {sent:.2f} ×", [t.copy_s for t in trips], unit="s")


def _ways(image: str) -> dict[str, _Way]:
    """scp and rsync send the holes of a raw file, 4 GiB: nobody would, and NBD beats them by far."""
    ours: dict[str, _Way] = {way: partial(_by_vmferry, data_path=path) for way, path in OURS.items()}
    ways = ours | {"qemu-img over NBD": _by_nbd}
    if image == "qcow2":
        ways |= {"rsync --sparse": _by_rsync, "scp": _by_scp}
    return ways


def _make_images(folder: Path) -> dict[str, Path]:
    """The same data, which cannot be compressed, scattered in the same way over both."""
    raw, qcow2 = folder / "scattered.raw", folder / "scattered.qcow2"
    places = random.Random(4).sample(range(DISK_MIB * MIB // PIECE), DATA_MIB * MIB // PIECE)
    with raw.open("wb") as file:
        file.truncate(DISK_MIB * MIB)
        for place in places:
            os.pwrite(file.fileno(), os.urandom(PIECE), place * PIECE)
    run("qemu-img", "convert", "-O", "qcow2", str(raw), str(qcow2))
    return {"qcow2": qcow2, "raw": raw}


@contextmanager
def _link(rig: Rig, mbit: int) -> Iterator[None]:
    """What alpha sends, and what beta receives and sends, goes at this rate, wherever it comes from or goes to."""
    beta = rig.lab.host("beta")
    port = ["ip", "netns", "exec", beta.spec.netns("hub"), "tc", "qdisc"]
    where = ["dev", beta.spec.veth("beta"), "root"]
    with link_shaped(rig.lab.host("alpha"), mbit), link_shaped(beta, mbit):
        run(*port, "replace", *where, "tbf", "rate", f"{mbit}mbit", "burst", "128kb", "latency", "50ms")
        try:
            yield
        finally:
            run(*port, "del", *where)


def image_folder(host: Host) -> Path:
    """Where its local volumes are, seen from outside."""
    return host.root / LOCAL_PATH.lstrip("/")


def bytes_received(host: Host) -> int:
    """Bytes that came in by the host's card."""
    (card,) = json.loads(host.run(["ip", "-s", "-j", "link", "show", "dev", "eth0"]))
    return int(card["stats64"]["rx"]["bytes"])


@contextmanager
def _removed(file: Path) -> Iterator[None]:
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _timed(rig: Rig, guest: Guest, copy: Callable[[], None]) -> FileTrip:
    data = (image_folder(rig.lab.host("alpha")) / guest.volume).stat().st_blocks * 512
    before, began = bytes_received(rig.lab.host("beta")), time.monotonic()
    copy()
    took = time.monotonic() - began
    return FileTrip(took, (bytes_received(rig.lab.host("beta")) - before) / data)


def _by_vmferry(rig: Rig, guest: Guest, image: str, *, data_path: str) -> FileTrip:
    began_at, before = rig.now(), bytes_received(rig.lab.host("beta"))
    data = (image_folder(rig.lab.host("alpha")) / guest.volume).stat().st_blocks * 512
    request = {"vm": guest.name, "destination": "beta", "storage": "copy", "data_path": data_path}
    run_id = rig.client.submit(request).id
    rig.elsewhere.AsyncResult(run_id).get(timeout=END_TIMEOUT_S)
    sent = (bytes_received(rig.lab.host("beta")) - before) / data
    record = rig.client.show(run_id)
    if record.state is not State.SUCCEEDED or record.finished_at is None:
        raise LabError(f"{run_id}: {record.state}: {record.error}")
    verify_s = sum(t.ended_at - t.started_at for t in record.timings if t.step is StepName.VERIFY and t.ended_at)
    _bring_back(rig, guest, image, record.copies[0].volume)
    return FileTrip(record.finished_at - began_at - verify_s, sent, verify_s)


def _bring_back(rig: Rig, guest: Guest, image: str, volume: str) -> None:
    """The definition to alpha, whose disk is still there; the copy is compared with it and removed."""
    here, there = image_folder(rig.lab.host("alpha")) / guest.volume, image_folder(rig.lab.host("beta")) / volume
    run("qemu-img", "compare", "-f", image, "-F", image, str(here), str(there))
    beta = rig.lab.host("beta")
    xml = beta.virsh("dumpxml", guest.name).replace(volume, guest.volume)
    beta.virsh("undefine", guest.name)
    there.unlink()
    beta.virsh("pool-refresh", "local")
    file = rig.lab.host("alpha").root / "tmp" / "back.xml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(xml)
    rig.lab.host("alpha").virsh("define", str(file))


def _by_nbd(rig: Rig, guest: Guest, image: str) -> FileTrip:
    alpha, beta = rig.lab.host("alpha"), rig.lab.host("beta")
    target = f"{LOCAL_PATH}/by-nbd"

    def copy() -> None:
        beta.run(["qemu-img", "create", "-q", "-f", image, target, f"{DISK_MIB}M"])
        with subprocess.Popen([*beta.prefix(), "qemu-nbd", "-f", image, "-p", str(NBD_PORT), target]) as server:
            until(lambda: f":{NBD_PORT}" in beta.run(["ss", "-ltn"]), 10, "qemu-nbd does not listen")
            nbd = f"nbd://{beta.address}:{NBD_PORT}"
            convert = ["qemu-img", "convert", "-n", "-W", "-m", "8", "--target-is-zero", "-f", image, "-O", "raw"]
            alpha.run([*convert, f"{LOCAL_PATH}/{guest.volume}", nbd], timeout_s=END_TIMEOUT_S)
            server.wait(10)  # it ends with its only client

    with _removed(image_folder(beta) / "by-nbd"):
        return _timed(rig, guest, copy)


def _by_rsync(rig: Rig, guest: Guest, image: str) -> FileTrip:
    def copy() -> None:
        command = ["rsync", "--sparse", f"{LOCAL_PATH}/{guest.volume}", f"root@beta:{LOCAL_PATH}/by-rsync"]
        rig.lab.host("alpha").run(command, timeout_s=END_TIMEOUT_S)

    with _removed(image_folder(rig.lab.host("beta")) / "by-rsync"):
        return _timed(rig, guest, copy)


def _by_scp(rig: Rig, guest: Guest, image: str) -> FileTrip:
    def copy() -> None:
        command = ["scp", "-O", "-q", f"{LOCAL_PATH}/{guest.volume}", f"root@beta:{LOCAL_PATH}/by-scp"]
        rig.lab.host("alpha").run(command, timeout_s=END_TIMEOUT_S)

    with _removed(image_folder(rig.lab.host("beta")) / "by-scp"):
        return _timed(rig, guest, copy)
