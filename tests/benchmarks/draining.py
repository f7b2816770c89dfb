"""A host with twelve idle guests is emptied: by a drain, and by ``virsh migrate`` in a loop, one or several at a time.

The links are shaped in two ways. ``two links``: each of the two hosts that take the guests is reached at that rate, as
over two links of their own. ``one link``: all leaves through one link of that rate, which no order of moves can make
faster than its bytes over its rate; that time is told beside it.
"""

from __future__ import annotations

import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import libvirt

from tasks.hypervisor.address import HostAddress, migrate_uri
from tasks.model.drain import DrainState
from tests.benchmarks.flight import outgoing, wait_filled
from tests.benchmarks.report import Figure, spread
from tests.benchmarks.rig import Rig
from tests.lab import Guest, Lab
from tests.lab.faults import link_shaped
from tests.lab.shell import LabError, run, until

GUESTS = 12
FILL_MIB = 64
"""Of each guest's memory, with what cannot be compressed."""
LINK_MBIT_S = 200
SOURCE, OTHERS = "alpha", ("beta", "gamma")
AT_A_TIME = (1, 2, 3, 4, 6)
"""Processes of the loop; with one it is the loop that everybody writes first."""
MAX_OUTGOING, MAX_INCOMING = 4, 2
SEQUENTIAL_SHARE, BEST_SHARE = 0.6, 1.15
END_TIMEOUT_S = 300.0
PAUSED_FOR_MIGRATION = (libvirt.VIR_DOMAIN_PAUSED_MIGRATION, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)


@dataclass(frozen=True, slots=True)
class Emptied:
    """A host that was emptied once."""

    links: str
    """``two links`` or ``one link``."""
    way: str
    """``drain``, or ``xargs -P N``."""
    total_s: float
    sent_mib: float
    """What all of it took on the wire, as the source's card counts."""
    most_out: int = 0
    """The most that were seen leaving the source at the same time."""
    most_in: int = 0
    """The most that were seen arriving at one host."""
    looks: int = 0


def measure_drains(rig: Rig, rounds: int) -> Iterator[Emptied]:
    """Every round empties the host by each way; the order turns, so that none is always the first."""
    with ExitStack() as stack:
        guests = _make_guests(rig.lab, stack)
        ways = ["drain", *(f"xargs -P {count}" for count in AT_A_TIME)]
        for links, times in (("two links", rounds), ("one link", 1)):  # the second differs little from time to time
            for number in range(times):
                turned = ways[number % len(ways) :] + ways[: number % len(ways)]
                for way in turned:
                    yield _empty(rig, guests, links, way, f"{links.replace(' ', '-')}-{number}")


def _make_guests(lab: Lab, stack: ExitStack) -> list[Guest]:
    guests = []
    for number in range(GUESTS):
        options: dict[str, Any] = {"memory_mib": 128, "fill_mib": FILL_MIB, "tick_ms": 1000}
        guests.append(lab.guest(f"drain-{number:02}", SOURCE, disk=None, network=False, **options))
        stack.callback(guests[-1].remove)
        if number % 2:
            guests[-1].wait_ticking()
    for guest in guests:
        wait_filled(guest)
    return guests


def _empty(rig: Rig, guests: Sequence[Guest], links: str, way: str, tag: str) -> Emptied:
    before = _sent_bytes(rig.lab)
    with _shaped(rig.lab, links), _Looking(rig.lab) as looking:
        total_s = _by_drain(rig, tag) if way == "drain" else _by_xargs(rig, guests, int(way.rpartition(" ")[2]))
    sent_mib = (_sent_bytes(rig.lab) - before) / 2**20
    _bring_back(rig, guests)
    return Emptied(links, way, total_s, sent_mib, looking.most_out, looking.most_in, looking.looks)


def _by_drain(rig: Rig, drain_id: str) -> float:
    rig.client.drain({"host": SOURCE}, drain_id=drain_id)
    until(
        lambda: (found := rig.client.find_drain(drain_id)) and found.is_ended, END_TIMEOUT_S, "the drain does not end"
    )
    record = rig.client.find_drain(drain_id)
    if record is None or record.state is not DrainState.EMPTY or record.finished_at is None:
        raise LabError(f"drain {drain_id}: {record}")
    rig.client.uncordon(SOURCE)
    return record.finished_at - record.submitted_at


def _by_xargs(rig: Rig, guests: Sequence[Guest], processes: int) -> float:
    """Alternately to either host, as one would by hand."""
    lines = [_line(rig, guest, SOURCE, OTHERS[number % len(OTHERS)]) for number, guest in enumerate(guests)]
    began = time.monotonic()
    _xargs(rig, lines, SOURCE, processes)
    return time.monotonic() - began


def _xargs(rig: Rig, lines: Sequence[str], source: str, processes: int) -> None:
    flags = ["--live", "--p2p", "--persistent", "--undefinesource", "--abort-on-error"]
    virsh = ["virsh", "--quiet", "--connect", rig.lab.host(source).uri(rig.transport), "migrate", *flags]
    command = ["xargs", "-P", str(processes), "-L", "1", *virsh]
    done = subprocess.run(
        command, input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=END_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")


def _line(rig: Rig, guest: Guest, source: str, destination: str) -> str:
    host = rig.lab.host(destination)
    peer = host.peer_uri(rig.transport)
    address = migrate_uri(HostAddress(host.uri(rig.transport), peer, host.address))
    assert source != destination
    return f"--migrateuri {address} {guest.name} {peer}"


def _bring_back(rig: Rig, guests: Sequence[Guest]) -> None:
    """Over links that are not shaped; whoever has moved must still run."""
    for host in OTHERS:
        with closing(rig.lab.host(host).connect()) as conn:
            there = {domain.name() for domain in conn.listAllDomains() if domain.isActive()}
        here = [guest for guest in guests if guest.name in there]
        for guest in here:
            guest.wait_ticking(host)
        if here:
            _xargs(rig, [_line(rig, guest, host, SOURCE) for guest in here], host, 3)
    with closing(rig.lab.host(SOURCE).connect()) as conn:
        running = {domain.name() for domain in conn.listAllDomains() if domain.isActive()}
    if missing := [guest.name for guest in guests if guest.name not in running]:
        raise LabError(f"not back on {SOURCE}: {', '.join(missing)}")


@contextmanager
def _shaped(lab: Lab, links: str) -> Iterator[None]:
    with ExitStack() as stack:
        if links == "one link":
            stack.enter_context(link_shaped(lab.host(SOURCE), LINK_MBIT_S))
        for host in OTHERS if links == "two links" else ():
            stack.enter_context(_way_to(lab, host))
        yield


@contextmanager
def _way_to(lab: Lab, host: str) -> Iterator[None]:
    """What is sent to a host is limited, at the hub's end of its cable."""
    device = ["dev", lab.spec.veth(host), "root"]
    hub = ["tc", "-n", lab.spec.netns("hub"), "qdisc"]
    run(*hub, "replace", *device, "tbf", "rate", f"{LINK_MBIT_S}mbit", "burst", "128kb", "latency", "50ms")
    try:
        yield
    finally:
        run(*hub, "del", *device)


def _sent_bytes(lab: Lab) -> int:
    return int(lab.host(SOURCE).run(["cat", "/sys/class/net/eth0/statistics/tx_bytes"]))


@dataclass
class _Looking:
    """Counts what leaves and what arrives, as libvirt shows it, again and again."""

    lab: Lab
    most_out: int = 0
    most_in: int = 0
    looks: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> _Looking:
        self._thread = threading.Thread(target=self._look, name="looking", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        assert self._thread is not None
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.2):
            self.most_out = max(self.most_out, outgoing(self.lab, SOURCE))
            self.most_in = max(self.most_in, *(_arriving(self.lab, host) for host in OTHERS))
            self.looks += 1


def _arriving(lab: Lab, host: str) -> int:
    with closing(lab.host(host).connect()) as conn:
        return sum(_arrives(domain) for domain in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_PAUSED))


def _arrives(domain: libvirt.virDomain) -> bool:
    try:
        state, reason = domain.state()
    except libvirt.libvirtError:
        return False
    return state == libvirt.VIR_DOMAIN_PAUSED and reason in PAUSED_FOR_MIGRATION


def drain_figures(emptied: Sequence[Emptied]) -> list[Figure]:
    """The drain beside the loops; goals where the links themselves leave room for them."""
    figures: list[Figure] = []
    for links in ("two links", "one link"):
        figures += _figures_of(links, [one for one in emptied if one.links == links])
    drains = [one for one in emptied if one.way == "drain"]
    looks = f"looked at {sum(one.looks for one in drains)} times"
    figures.append(
        Figure("drain: most leaving at once", max(o.most_out for o in drains), "", goal=MAX_OUTGOING, note=looks)
    )
    figures.append(
        Figure("drain: most arriving at one host", max(o.most_in for o in drains), "", goal=MAX_INCOMING, note=looks)
    )
    return figures


def _figures_of(links: str, emptied: Sequence[Emptied]) -> list[Figure]:
    name = f"drain, {links} of {LINK_MBIT_S} Mbit/s"
    times: dict[str, list[float]] = {}
    for one in emptied:
        times.setdefault(one.way, []).append(one.total_s)
    middle = {way: statistics.median(values) for way, values in times.items()}
    best = min((way for way in middle if way != "drain"), key=lambda way: middle[way])
    loop = f"xargs -P {AT_A_TIME[0]}"
    wire_s = statistics.median(one.sent_mib for one in emptied if one.way == "drain") * 2**20 * 8 / LINK_MBIT_S / 1e6
    least = wire_s if links == "one link" else wire_s / len(OTHERS)
    possible = least / middle[loop]
    note = f"the bytes alone take {least:.1f} s: no order of moves is below {possible:.2f} ×"
    goal = SEQUENTIAL_SHARE if possible < SEQUENTIAL_SHARE else None
    return [
        *(spread(f"{name}: {way}", values, unit="s") for way, values in times.items()),
        Figure(f"{name}: time over a loop's", middle["drain"] / middle[loop], "×", goal=goal, note=note),
        Figure(f"{name}: time over the best, {best}", middle["drain"] / middle[best], "×", goal=BEST_SHARE),
    ]
