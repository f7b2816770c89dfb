"""Which host each VM of a drain goes to: decided from what hosts offer, the same for the same question.

First-fit-decreasing is the measure: whatever it places is placed here as well, and no host ends up fuller than its
fullest. Two better orders are tried before it, to keep what was planned already, and to spread the load evenly; the
first that is no worse is taken. Sizes in KiB and bytes as libvirt gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

NO_POOLS: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class Guest:
    """A VM that needs a host."""

    uuid: str
    name: str
    memory_kib: int
    vcpus: int
    priority: int = 0
    """The higher, the earlier it is placed, should there not be room for all."""
    pools: Mapping[str, int] = field(default_factory=dict)
    """Pool of the destination -> bytes that its copied disks need there."""
    together: str = ""
    """Name of the group that shares one host; empty: none."""
    apart: frozenset[str] = frozenset()
    """Names of groups of which no two may be on one host."""
    unfit: Mapping[str, str] = field(default_factory=dict)
    """Host -> why it cannot take this VM whatever room there is, in words."""


@dataclass(frozen=True, slots=True)
class Site:
    """A host that VMs may go to."""

    name: str
    memory_kib: int
    """What guests may have in all: the host's memory without the reserve."""
    memory_used_kib: int
    """What is taken already, by guests that run and by migrations that are under way or queued."""
    vcpus: int
    """Virtual CPUs that guests may have in all: CPUs times the limit of overcommitment."""
    vcpus_used: int
    pools: Mapping[str, int] = field(default_factory=dict)
    """Active pool -> bytes that may still be used."""
    together: frozenset[str] = frozenset()
    """Groups that have a member here which stays."""
    apart: frozenset[str] = frozenset()
    """The same, of groups that are kept apart."""
    closed: str = ""
    """Why it takes nobody (cordoned, being emptied, unreachable), in words; empty when it is open."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Where one VM goes."""

    uuid: str
    host: str | None
    """None: no host can take it."""
    reason: str
    """Why this one, or why none."""
    others: Mapping[str, str]
    """Why not each of the others."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where everybody goes."""

    choices: tuple[Choice, ...]
    """In the order of the question."""
    peak: float
    """The largest share of memory or virtual CPUs in use on any open host when all are there."""

    @property
    def hosts(self) -> dict[str, str]:
        """UUID -> host, of those that have one."""
        return {choice.uuid: choice.host for choice in self.choices if choice.host is not None}


def place(guests: Sequence[Guest], sites: Sequence[Site], *, planned: Mapping[str, str] | None = None) -> Placement:
    """Find a host for each; ``planned`` (UUID -> host) is kept where it is still as good as anything."""
    units = _units(guests)
    trials = [
        _trial(units, sites, _first_fit),
        _trial(units, sites, _emptiest),
    ]
    reference = trials[0]
    if planned:
        trials.append(_trial(units, sites, _as_planned(planned)))
    best = next(trial for trial in reversed(trials) if trial.no_worse_than(reference))
    chosen = {guest.uuid: best.host_of[unit.key] for unit in units for guest in unit.guests if unit.key in best.host_of}
    by_guest = {guest.uuid: unit for unit in units for guest in unit.guests}
    choices = tuple(_explain(guest, by_guest[guest.uuid], chosen.get(guest.uuid), best) for guest in guests)
    return Placement(choices, best.peak)


# -- what is placed as a whole ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Unit:
    """VMs that go to one host, or nowhere."""

    key: str
    guests: tuple[Guest, ...]

    @property
    def memory_kib(self) -> int:
        return sum(guest.memory_kib for guest in self.guests)

    @property
    def vcpus(self) -> int:
        return sum(guest.vcpus for guest in self.guests)

    @property
    def pools(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for guest in self.guests:
            for pool, size in guest.pools.items():
                total[pool] = total.get(pool, 0) + size
        return total

    @property
    def order(self) -> tuple[int, int, int, str]:
        return (-max(guest.priority for guest in self.guests), -self.memory_kib, -self.vcpus, self.key)


def _units(guests: Iterable[Guest]) -> list[_Unit]:
    """Largest first within a priority; names decide between equals, never the order of the question."""
    found: dict[str, list[Guest]] = {}
    for guest in sorted(guests, key=lambda guest: guest.uuid):
        found.setdefault(f"group {guest.together}" if guest.together else f"vm {guest.uuid}", []).append(guest)
    return sorted((_Unit(key, tuple(members)) for key, members in found.items()), key=lambda unit: unit.order)


# -- what a host has left -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Room:
    """A host while it fills."""

    site: Site
    memory_kib: int
    vcpus: int
    pools: dict[str, int]
    apart: dict[str, str]
    """Group -> who of it is here."""

    @classmethod
    def of(cls, site: Site) -> Self:
        apart = dict.fromkeys(site.apart, "a VM that stays there")
        return cls(site, site.memory_used_kib, site.vcpus_used, dict(site.pools), apart)

    @property
    def load(self) -> float:
        return self.load_with(0, 0)

    def load_with(self, memory_kib: int, vcpus: int) -> float:
        memory = (self.memory_kib + memory_kib) / self.site.memory_kib if self.site.memory_kib > 0 else 1.0
        cpus = (self.vcpus + vcpus) / self.site.vcpus if self.site.vcpus > 0 else 1.0
        return max(memory, cpus)

    def refusal(self, unit: _Unit, homes: frozenset[str]) -> str:
        """Why it cannot take all of them; empty when it can. ``homes`` are hosts that the group is bound to."""
        if self.site.closed:
            return self.site.closed
        if homes and self.site.name not in homes:
            return f"the rest of its group is on {', '.join(sorted(homes))}"
        for guest in unit.guests:
            if guest.unfit.get(self.site.name):
                return guest.unfit[self.site.name]
            kept_apart = sorted(guest.apart & self.apart.keys())
            if kept_apart:
                return f"kept apart from {self.apart[kept_apart[0]]} (group {kept_apart[0]})"
        return self._no_room(unit)

    def _no_room(self, unit: _Unit) -> str:
        left = self.site.memory_kib - self.memory_kib
        if unit.memory_kib > left:
            return f"needs {unit.memory_kib // 1024} MiB of memory, {max(0, left) // 1024} MiB are left"
        left = self.site.vcpus - self.vcpus
        if unit.vcpus > left:
            return f"needs {unit.vcpus} virtual CPUs, {max(0, left)} are left"
        for pool, size in sorted(unit.pools.items()):
            if pool not in self.pools:
                return f"has no active pool {pool}"
            if size > self.pools[pool]:
                return f"needs {size >> 20} MiB in pool {pool}, {max(0, self.pools[pool]) >> 20} MiB are left"
        return ""

    def take(self, unit: _Unit) -> None:
        self.memory_kib += unit.memory_kib
        self.vcpus += unit.vcpus
        for pool, size in unit.pools.items():
            self.pools[pool] -= size
        for guest in unit.guests:
            self.apart.update(dict.fromkeys(guest.apart, guest.name))


# -- trying -------------------------------------------------------------------------------------------------------

_Pick = Callable[[_Unit, list[_Room]], _Room]
"""Chooses among the rooms that can take the unit; there is at least one."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """One way of doing it, to its end."""

    host_of: Mapping[str, str]
    refusals: Mapping[str, Mapping[str, str]]
    """Unit -> host -> why not, at the moment of its turn."""
    loads: Mapping[str, Mapping[str, float]]
    """Unit -> host -> how full it would have been with it."""
    peak: float

    def no_worse_than(self, other: _Trial) -> bool:
        return self.host_of.keys() >= other.host_of.keys() and self.peak <= other.peak


def _trial(units: Sequence[_Unit], sites: Sequence[Site], pick: _Pick) -> _Trial:
    rooms = [_Room.of(site) for site in sorted(sites, key=lambda site: site.name)]
    homes = {
        f"group {group}": frozenset(site.name for site in sites if group in site.together)
        for group in {group for site in sites for group in site.together}
    }
    host_of: dict[str, str] = {}
    refusals: dict[str, dict[str, str]] = {}
    loads: dict[str, dict[str, float]] = {}
    for unit in units:
        own = refusals[unit.key] = {}
        able = []
        inner = _at_odds(unit)
        for room in rooms:
            reason = inner or room.refusal(unit, homes.get(unit.key, frozenset()))
            if reason:
                own[room.site.name] = reason
            else:
                able.append(room)
        loads[unit.key] = {room.site.name: room.load_with(unit.memory_kib, unit.vcpus) for room in able}
        if able:
            chosen = pick(unit, able)
            chosen.take(unit)
            host_of[unit.key] = chosen.site.name
    peak = max((room.load for room in rooms if not room.site.closed), default=0.0)
    return _Trial(host_of, refusals, loads, peak)


def _at_odds(unit: _Unit) -> str:
    """Groups that contradict each other: together by one, apart by another."""
    seen: dict[str, str] = {}
    for guest in unit.guests:
        for group in sorted(guest.apart):
            if group in seen:
                return f"{guest.name} and {seen[group]} are to be together ({guest.together}) and apart ({group})"
            seen[group] = guest.name
    return ""


def _first_fit(unit: _Unit, able: list[_Room]) -> _Room:  # noqa: ARG001
    return able[0]


def _emptiest(unit: _Unit, able: list[_Room]) -> _Room:
    return min(able, key=lambda room: (room.load_with(unit.memory_kib, unit.vcpus), room.site.name))


def _as_planned(planned: Mapping[str, str]) -> _Pick:
    def pick(unit: _Unit, able: list[_Room]) -> _Room:
        wanted = {planned.get(guest.uuid) for guest in unit.guests}
        return next((room for room in able if room.site.name in wanted), None) or _emptiest(unit, able)

    return pick


# -- explaining ---------------------------------------------------------------------------------------------------


def _explain(guest: Guest, unit: _Unit, host: str | None, trial: _Trial) -> Choice:
    refusals, loads = dict(trial.refusals[unit.key]), trial.loads[unit.key]
    if host is None:
        return Choice(guest.uuid, None, "no host can take it", refusals)
    others = refusals | {name: f"would be {load:.0%} full" for name, load in loads.items() if name != host}
    reason = f"{loads[host]:.0%} full with it"
    if len(unit.guests) > 1:
        reason += f", together with group {guest.together}"
    if not [name for name in loads if name != host]:
        reason += ", the only one that can take it"
    return Choice(guest.uuid, host, reason, others)
