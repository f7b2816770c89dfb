"""Seeing a guest from outside: its heartbeat as it arrives on the hosts' console files.

The guest's own clock stands still while the VM does, so that only an observer outside can tell how long a pause was.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from types import TracebackType

TICK = re.compile(rb"(?:^|\n)tick (\d+) (\d+)\r?(?=\n)")
PERIOD_S = 0.001


@dataclass(frozen=True, slots=True)
class Tick:
    """One beat."""

    host: str
    counter: int
    uptime_us: int
    """The guest's own clock."""
    arrived: float
    """CLOCK_MONOTONIC of the observer, seconds; exact to about a millisecond."""


class GuestWatch:
    """Observes from ``__enter__`` to ``__exit__``; earlier beats do not count."""

    def __init__(self, consoles: dict[str, Path]) -> None:
        self._consoles = consoles
        self._offsets = {host: _size(path) for host, path in consoles.items()}
        self._rest = dict.fromkeys(consoles, b"")
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._ticks: list[Tick] = []
        self._thread = threading.Thread(target=self._observe, name="guest-watch", daemon=True)

    def __enter__(self) -> GuestWatch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(5)

    # -- what was seen ------------------------------------------------------------------------------------------------

    def ticks(self) -> list[Tick]:
        """All beats so far, in the order of their arrival."""
        with self._lock:
            return list(self._ticks)

    def ticks_by_host(self) -> dict[str, list[Tick]]:
        """The beats of each host."""
        found: dict[str, list[Tick]] = {host: [] for host in self._consoles}
        for tick in self.ticks():
            found[tick.host].append(tick)
        return found

    def max_gap_ms(self) -> float:
        """The longest time between two beats: the pause as somebody outside saw it."""
        arrived = [tick.arrived for tick in self.ticks()]
        return max((b - a for a, b in pairwise(arrived)), default=0.0) * 1000

    def beats_on(self, host: str) -> bool:
        """Whether the last beat came from this host, less than a second ago."""
        ticks = self.ticks()
        return bool(ticks) and ticks[-1].host == host and time.monotonic() - ticks[-1].arrived < 1.0

    def check_never_twice(self, *, rebooted: bool = False) -> None:
        """No beat came from two hosts, and no host went on once another had begun: the VM never ran twice.

        One that was rebooted on the way counts anew.
        """
        seen: dict[int, str] = {}
        order = [host for host, _ in groupby(self.ticks(), key=lambda tick: tick.host)]
        assert len(order) == len(set(order)), f"beats came from {', '.join(order)} in turn: the VM ran twice"
        for tick in () if rebooted else self.ticks():
            other = seen.setdefault(tick.counter, tick.host)
            assert other == tick.host, f"beat {tick.counter} came from {other} and from {tick.host}: the VM ran twice"

    def check_continued(self) -> None:
        """The guest went on where it was: counter and its own clock only ever grew."""
        ticks = self.ticks()
        for before, after in pairwise(ticks):
            assert after.counter > before.counter, (
                f"the counter fell from {before.counter} to {after.counter}: rebooted"
            )
            assert after.uptime_us > before.uptime_us, "the guest's clock ran backwards"

    # -- seeing it ----------------------------------------------------------------------------------------------------

    def _observe(self) -> None:
        while not self._stop.is_set():
            for host, path in self._consoles.items():
                self._read(host, path)
            time.sleep(PERIOD_S)

    def _read(self, host: str, path: Path) -> None:
        if _size(path) <= self._offsets[host]:
            return
        now = time.monotonic()
        with path.open("rb") as file:
            file.seek(self._offsets[host])
            data = file.read()
        self._offsets[host] += len(data)
        complete, newline, rest = (self._rest[host] + data).rpartition(b"\n")
        self._rest[host] = rest
        found = TICK.findall(complete + newline)
        with self._lock:
            self._ticks += [Tick(host, int(counter), int(uptime), now) for counter, uptime in found]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
