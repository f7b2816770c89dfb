"""A short queue and a long one on a real Redis, with a real worker and hosts that cost nothing.

The long one is held again and again, for a short one in between: a machine whose speed changes from minute to minute
changes it for both.
"""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from config.settings import load_settings
from tasks.client import Client
from tasks.model.run import State
from tasks.store import connect
from tests.benchmarks.report import Figure
from tests.fakes.worker import host_of, uuid_of
from tests.queue.harness import Beat, RedisServer, Worker
from tests.scenarios.stack import to_toml

HOSTS = [f"host-{number}" for number in range(6)]
LIMIT = 2
"""Of each host, each way."""
FEW, MANY = 100, 10_000
PARTS = 10
"""In which the long queue is measured, with short ones around each."""
HELD_S = 120.0
"""Nobody's lease ends while the long queue is held."""
WARM = 50
"""So many more go first and do not count: a worker's first ones load code and open connections."""
TAIL = 50
"""So many more come last and do not count either: nothing waits behind them, and of those that count as many are under
way at the first count as at the last."""
LIMITED = (State.CHECKING, State.PREPARING, State.TRANSFERRING)
FLAT = 0.15
"""How far apart the cost of a migration may be, either way."""
REDIS_KIB = 12.0
AT_MOST_S = 3600


@dataclass(frozen=True, slots=True)
class Drained:
    """A queue that was worked off, or a part of one."""

    count: int
    wall_ms: float
    """For each migration."""
    cpu_ms: float
    """Of the worker and of Redis, for each migration."""
    redis_kib: float
    """What Redis holds more than before, for each migration."""
    looks: int
    """How often limits were looked at."""
    most: int
    """Migrations seen at the same time that leave one host, or arrive at one; the most of all looks."""


def measure_queue(count: int, parts: int = 1, between: Callable[[], None] = lambda: None) -> list[Drained]:
    """Fill the queue, then let a worker work it off; it is held for ``between`` after each part but the last."""
    total = count + WARM + TAIL
    with tempfile.TemporaryDirectory(prefix="vmferry-bench-") as scratch, RedisServer(Path(scratch)) as server:
        config = Path(scratch) / "vmferry.toml"
        hosts = {name: {"uri": f"qemu+tcp://{name}/system"} for name in HOSTS}
        patience = {"lease_s": HELD_S, "hand_over_s": HELD_S}
        config.write_text(to_toml({"broker_url": server.url, "hosts": hosts} | patience))
        store = connect(server.url)
        with closing(Client(load_settings(config))) as client:
            empty = int(store.info("memory")["used_memory"])
            for number in range(total):
                source = host_of(number, HOSTS)
                destination = HOSTS[(HOSTS.index(source) + 1) % len(HOSTS)]
                client.submit(
                    {"vm": uuid_of(number), "source": source, "destination": destination}, run_id=f"q{number}"
                )
            store.delete("vmferry")  # the messages that woke nobody up
            worker = Worker(config, concurrency=20, app="tests.fakes.worker", env={"VMFERRY_TEST_VMS": str(total)})
            with worker, Beat(config) as beat:
                looking = _Looking(client)
                looking.start()
                _wait_finished(store, WARM)
                costs = []
                for part in range(1, parts + 1):
                    before, began = _cpu_s(worker.pid) + _cpu_s(server.pid), time.monotonic()
                    _wait_finished(store, WARM + count * part // parts)
                    wall, cpu = time.monotonic() - began, _cpu_s(worker.pid) + _cpu_s(server.pid) - before
                    costs.append((1000 * wall * parts / count, 1000 * cpu * parts / count))
                    if part < parts:
                        with _held(worker.pid, beat.pid):
                            between()
                _wait_finished(store, total)
                looking.stop()
            assert all(run.state is State.SUCCEEDED for run in client.list_runs(limit=total))
            kib = (int(store.info("memory")["used_memory"]) - empty) / 1024 / total
    return [Drained(count, wall, cpu, kib, looking.looks, looking.most) for wall, cpu in costs]


def measure_queues(many: int = MANY) -> tuple[list[Drained], list[Drained]]:
    """Short queues before, between and after the parts of a long one."""
    short = measure_queue(FEW)
    long = measure_queue(many, PARTS, lambda: short.extend(measure_queue(FEW)))
    short += measure_queue(FEW)
    return short, long


@contextmanager
def _held(*pids: int) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def queue_figures(few: list[Drained], many: list[Drained]) -> list[Figure]:
    """The long queue beside the short one; there is one short one more than there are parts."""
    name = f"queue of {many[0].count}"
    return [
        _apart(f"{name}: CPU a migration", few, many, "cpu_ms"),
        _apart(f"{name}: time a migration", few, many, "wall_ms"),
        Figure(
            f"{name}: most at a host, one way",
            max(one.most for one in few + many),
            "",
            goal=LIMIT,
            note=f"looked at {sum(one.looks for one in (*few, many[0]))} times",
        ),
        Figure(f"{name}: Redis for each that has ended", many[0].redis_kib, "KiB", goal=REDIS_KIB),
    ]


def _apart(name: str, few: list[Drained], many: list[Drained], figure: str) -> Figure:
    """How far the long queue's cost is from that of the short ones around each part, as a share of it."""
    short, long = ([float(getattr(one, figure)) for one in each] for each in (few, many))
    ratios = [2 * part / (short[number] + short[number + 1]) for number, part in enumerate(long)]
    ratio = statistics.median(ratios)
    words = (
        f"{statistics.median(long):.0f} ms of {many[0].count}, {statistics.median(short):.0f} ms of {few[0].count}: "
        f"{ratio:.2f} × ({min(ratios):.2f} to {max(ratios):.2f})"
    )
    return Figure(f"{name}, apart from a short queue's", abs(ratio - 1), "×", goal=FLAT, note=words)


class _Looking:
    """Counts what is under way at each host, from the records, again and again."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="looking", daemon=True)
        self.looks = self.most = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.5):
            # Limits hold until the transfer is over: what is left then are a few short calls.
            runs = [run for run in self._client._runtime.store.active() if run.state in LIMITED]
            ways = Counter(f"out {run.source}" for run in runs) + Counter(f"in {run.destination}" for run in runs)
            self.most = max(self.most, max(ways.values(), default=0))
            self.looks += 1


def _wait_finished(server: redis.Redis, count: int) -> None:
    deadline = time.monotonic() + AT_MOST_S
    while int(server.zcard("vmferry:finished")) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{count} migrations have not ended after {AT_MOST_S} s")
        time.sleep(0.05)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
