"""Several VMs over one link with a limited bandwidth: what they use together is read from the hosts all the while."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import libvirt
import pytest

from tasks.model.run import RunRecord, State
from tests.lab import Guest, Lab
from tests.lab.guest import POOL_PATHS
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack, until

pytestmark = pytest.mark.lab

LIMIT_MIB_S = 20
TOLERANCE = 1.1
"""TCP's and Ethernet's headers are on the wire as well, and libvirt's own calls; seen: 1 to 4 %."""
WINDOW_S = 2.0
"""QEMU counts in tenths of a second, and two processors have three emulated guests to run."""
PIECE_MIB = 16
"""QEMU sends a disk in pieces of this size, as fast as it can, and waits after each."""
MIB = 1024**2
RACK = {"rack": {"hosts": ["alpha"], "bandwidth_mib_s": LIMIT_MIB_S, "max_transfers": 8}}
UNLIMITED = 1 << 40


@dataclass
class Wire:
    """Looks all the while at what alpha sends, and at the limits that its libvirt says are in force."""

    lab: Lab
    sent: list[tuple[float, int]] = field(default_factory=list)
    """(seconds, bytes)."""
    limits: list[dict[str, int]] = field(default_factory=list)
    """Name -> MiB/s, of the guests whose memory is under way."""
    over: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        with closing(self.lab.host("alpha").connect()) as conn:
            while not self.over.wait(0.1):
                self.sent.append((time.monotonic(), self._counter()))
                first, second = self._limits(conn), self._limits(conn)
                if first == second:  # else they are of different moments
                    self.limits.append(first)

    def _counter(self) -> int:
        lines = Path(f"/proc/{self.lab.host('alpha').pid}/net/dev").read_text().splitlines()
        return next(int(line.split(":")[1].split()[8]) for line in lines if "eth0:" in line)

    def _limits(self, conn: libvirt.virConnect) -> dict[str, int]:
        found = {}
        for domain in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            try:
                if domain.jobStats().get("memory_total"):
                    found[domain.name()] = domain.migrateGetMaxSpeed()
            except libvirt.libvirtError:
                continue  # it has just left
        return {name: limit for name, limit in found.items() if limit < UNLIMITED}

    def most(self, window_s: float = WINDOW_S) -> float:
        """The most that was sent in any such time, MiB/s."""
        rates = []
        for number, (at, count) in enumerate(self.sent):
            later = next(((t, c) for t, c in self.sent[number:] if t - at >= window_s), None)
            if later is not None:
                rates.append((later[1] - count) / (later[0] - at) / MIB)
        return max(rates)

    @contextmanager
    def watched(self) -> Iterator[None]:
        thread = threading.Thread(target=self.look)
        thread.start()
        try:
            yield
        finally:
            self.over.set()
            thread.join()


@pytest.fixture
def running(lab: Lab, tmp_path: Path) -> Iterator[Stack]:
    with stack(lab, tmp_path, links=RACK) as made:
        made.start()
        yield made


def filled(guest: Guest) -> Guest:
    until(lambda: b"\nfilled " in guest.console(guest.host).read_bytes(), 60, f"{guest.name} is not filled")
    return guest


def allotted(running: Stack) -> int:
    from tasks.store import ShareStore

    return sum(flow.held for flow in ShareStore(running.redis.client()).all())


def test_three_share_it_and_the_last_gets_all(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    sizes = {"small-1": 32, "small-2": 32, "large": 128}
    guests = [
        make_guest(name, memory_mib=96 + mib, fill_mib=mib, disk=None, network=False) for name, mib in sizes.items()
    ]
    for guest in guests:
        filled(guest)
    wire = Wire(lab)
    with wire.watched():
        to = {"small-1": "beta", "small-2": "gamma", "large": "beta"}
        asked = [running.client.submit({"vm": guest.name, "destination": to[guest.name]}).id for guest in guests]
        records = [running.wait_end(run_id, timeout_s=120) for run_id in asked]
    for guest, record in zip(guests, records, strict=True):
        assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
        check_invariants(running, guest, record, was_running=True, autostart=False)
    sums = [sum(limits.values()) for limits in wire.limits]
    print(f"most in {WINDOW_S:g} s: {wire.most():.1f} MiB/s; limits seen: {wire.limits[::20]}")
    assert max(sums) <= LIMIT_MIB_S
    assert any(len(limits) == 3 for limits in wire.limits), "they were never under way together"
    assert any(limits == {"large": LIMIT_MIB_S} for limits in wire.limits), "the last one did not get all"
    assert LIMIT_MIB_S / TOLERANCE <= wire.most() <= LIMIT_MIB_S * TOLERANCE
    assert allotted(running) == 0


def test_what_post_copy_fetches_is_limited_as_well(lab: Lab, tmp_path: Path, make_guest: Callable[..., Guest]) -> None:
    """QEMU has a limit of its own for that; pages that the guest waits for come at once."""
    guest = make_guest("fetched", memory_mib=128, fill_mib=48, dirty_mib_s=96)
    guest.wait_ticking()
    policies, slow = {"eager": {"post_copy_after_passes": 1}}, {"rack": RACK["rack"] | {"bandwidth_mib_s": 6}}
    with stack(lab, tmp_path, links=slow, policies=policies) as running, closing(lab.host("alpha").connect()) as conn:
        running.start()
        asked = running.client.submit({"vm": guest.name, "destination": "beta", "policy": "eager"})
        until(lambda: running.client.show(asked.id).post_copy_begun, 60, lambda: running.diagnosis(asked.id))
        flag = libvirt.VIR_DOMAIN_MIGRATE_MAX_SPEED_POSTCOPY
        assert conn.lookupByUUIDString(guest.uuid).migrateGetMaxSpeed(flag) == 6
        record = running.wait_end(asked.id, 90)
        assert record.state is State.SUCCEEDED, running.diagnosis(asked.id)
        assert record.progress.post_copy


def test_disks_that_are_mirrored_share_it_too(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    """Two disks, then memory, and another VM that comes in between: QEMU's pieces are all that goes beyond."""
    disks = make_guest("disks", disk="local", second_disk="local", disk_format="raw", disk_mib=80, network=False)
    for _, volume in disks.disks.values():
        file = lab.host("alpha").root / POOL_PATHS["local"].lstrip("/") / volume
        with file.open("r+b") as opened:
            opened.write(os.urandom(80 * MIB))
    other = filled(make_guest("other", memory_mib=128, fill_mib=32, disk=None, network=False))
    disks.wait_ticking()
    wire = Wire(lab)
    with wire.watched():
        first = running.client.submit({"vm": "disks", "destination": "beta", "storage": "copy"}).id
        until(lambda: running.client.show(first).progress.disk.total_bytes, 60, lambda: running.diagnosis(first))
        second = running.client.submit({"vm": "other", "destination": "gamma"}).id
        records: list[RunRecord] = [running.wait_end(run_id, timeout_s=120) for run_id in (first, second)]
    for guest, record in zip((disks, other), records, strict=True):
        assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
        check_invariants(running, guest, record, was_running=True, autostart=False)
    window_s = 6.0
    beyond = 2 * PIECE_MIB / window_s
    print(f"most in {window_s:g} s: {wire.most(window_s):.1f} MiB/s, of which pieces may be {beyond:.1f}")
    assert max(sum(limits.values()) for limits in wire.limits) <= LIMIT_MIB_S
    assert wire.most(window_s) <= LIMIT_MIB_S * TOLERANCE + beyond
    total = (wire.sent[-1][1] - wire.sent[0][1]) / MIB
    assert total > 2 * 80 + 64, "not all of it went over the wire that was looked at"
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(wire.sent)]
    assert max(gaps) < WINDOW_S, "the wire was not looked at often enough"


def test_a_worker_that_is_killed_takes_nothing_with_it(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest]
) -> None:
    """Its transfers go on with what they had; who comes meanwhile gets a part when they were adopted, not before."""
    running.steps_worker()  # one that is there when the other one dies
    first = filled(make_guest("first", memory_mib=288, fill_mib=192, disk=None, network=False))
    second = filled(make_guest("second", memory_mib=128, fill_mib=32, disk=None, network=False))
    wire = Wire(lab)
    with wire.watched():
        one = running.client.submit({"vm": "first", "destination": "beta"}).id
        until(lambda: running.client.show(one).progress.memory.total_bytes, 60, lambda: running.diagnosis(one))
        owner = running.client.show(one).owner.split(".")
        next(worker for worker in running.steps_workers if str(worker.pid) in owner).kill9()
        two = running.client.submit({"vm": "second", "destination": "gamma"}).id
        records = [running.wait_end(run_id, timeout_s=120) for run_id in (one, two)]
    for guest, record in zip((first, second), records, strict=True):
        assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
        check_invariants(running, guest, record, was_running=True, autostart=False)
    assert max(sum(limits.values()) for limits in wire.limits) <= LIMIT_MIB_S
    assert {"first": 10, "second": 10} in wire.limits, wire.limits[::10]
    assert wire.most() <= LIMIT_MIB_S * TOLERANCE
    assert allotted(running) == 0


def test_files_that_the_worker_copies_share_it_with_memory(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest]
) -> None:
    off = make_guest("off", disk="local", disk_format="raw", disk_mib=160, start="off")
    off.fill_disk([(0, 160)])
    live = filled(make_guest("live", memory_mib=128, fill_mib=32, disk=None, network=False))
    wire = Wire(lab)
    with wire.watched():
        one = running.client.submit({"vm": "off", "destination": "beta"}).id
        until(lambda: running.client.show(one).progress.disk.processed_bytes, 60, lambda: running.diagnosis(one))
        two = running.client.submit({"vm": "live", "destination": "gamma"}).id
        records = [running.wait_end(run_id, timeout_s=120) for run_id in (one, two)]
    for guest, record, ran in zip((off, live), records, (False, True), strict=True):
        assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
        check_invariants(running, guest, record, was_running=ran, autostart=False)
    off.check_filled("beta")
    print(f"most in {WINDOW_S:g} s: {wire.most():.1f} MiB/s")
    assert {"live": 10} in wire.limits, wire.limits[::10]
    assert wire.most() <= LIMIT_MIB_S * TOLERANCE
    assert allotted(running) == 0


def test_a_pool_takes_one_at_a_time_and_the_list_says_so(
    lab: Lab, tmp_path: Path, make_guest: Callable[..., Guest]
) -> None:
    guests = [make_guest(f"box-{n}", disk="local", disk_format="raw", disk_mib=48, start="off") for n in range(3)]
    for guest in guests:
        guest.fill_disk([(0, 48)])
    seen, notes = [], set[str]()
    slow = {"slow": {"bandwidth_mib_s": 20}}
    with stack(lab, tmp_path, pools={"beta/local": {"max_transfers": 1}}, policies=slow) as running:
        running.start()
        ask = running.client.submit
        ids = [ask({"vm": guest.name, "destination": "beta", "policy": "slow"}).id for guest in guests]

        def over() -> bool:
            records = running.client.list_runs()
            seen.append(sum(r.state in (State.PREPARING, State.TRANSFERRING) for r in records))
            notes.update(str(r.waiting_for) for r in records if r.state is State.QUEUED)
            return all(r.is_terminal for r in records)

        until(over, 90, lambda: running.diagnosis(ids[0]))
        for guest, run_id in zip(guests, ids, strict=True):
            record = running.wait_end(run_id)
            assert record.state is State.SUCCEEDED, running.diagnosis(run_id)
            check_invariants(running, guest, record, was_running=False, autostart=False)
    assert max(seen) == 1
    assert "as many copy out of or into pool beta/local as are allowed" in notes
