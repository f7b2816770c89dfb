"""Where VMs go: promises checked on hosts and VMs of every kind, and the words on some."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.planning.placement import Guest, Placement, Site, place

GROUPS = ("db", "web")
HOSTS = ("alpha", "beta", "gamma", "delta")


@st.composite
def some_guests(draw: st.DrawFn) -> list[Guest]:
    count = draw(st.integers(0, 9))
    return [
        Guest(
            uuid=f"u{number}",
            name=f"vm{number}",
            memory_kib=draw(st.integers(1, 40)) * 1024,
            vcpus=draw(st.integers(1, 6)),
            priority=draw(st.integers(0, 2)),
            pools=draw(st.dictionaries(st.sampled_from(["fast", "big"]), st.integers(1, 30), max_size=2)),
            together=draw(st.sampled_from(["", "", "", *GROUPS])),
            apart=draw(st.frozensets(st.sampled_from(GROUPS), max_size=1)),
            unfit=draw(st.dictionaries(st.sampled_from(HOSTS), st.just("CPU"), max_size=1)),
        )
        for number in range(count)
    ]


@st.composite
def some_sites(draw: st.DrawFn) -> list[Site]:
    return [
        Site(
            name=name,
            memory_kib=draw(st.integers(0, 100)) * 1024,
            memory_used_kib=draw(st.integers(0, 60)) * 1024,
            vcpus=draw(st.integers(0, 24)),
            vcpus_used=draw(st.integers(0, 12)),
            pools=draw(st.dictionaries(st.sampled_from(["fast", "big"]), st.integers(0, 90), max_size=2)),
            together=draw(st.frozensets(st.sampled_from(GROUPS), max_size=1)),
            apart=draw(st.frozensets(st.sampled_from(GROUPS), max_size=1)),
            closed=draw(st.sampled_from(["", "", "", "cordoned"])),
        )
        for name in HOSTS[: draw(st.integers(0, 4))]
    ]


def first_fit_decreasing(guests: Sequence[Guest], sites: Sequence[Site]) -> tuple[set[str], float]:
    """Written anew, simply, to compare with: who gets a place, and how full the fullest host is."""
    units: dict[str, list[Guest]] = defaultdict(list)
    for guest in guests:
        units[(guest.together and f"group {guest.together}") or f"vm {guest.uuid}"].append(guest)
    ordered = sorted(
        units.items(),
        key=lambda item: (
            -max(g.priority for g in item[1]),
            -sum(g.memory_kib for g in item[1]),
            -sum(g.vcpus for g in item[1]),
            item[0],
        ),
    )
    here: dict[str, list[Guest]] = {site.name: [] for site in sites}
    for _, unit in ordered:
        for site in sorted(sites, key=lambda s: s.name):
            if not broken(site, [*here[site.name], *unit], sites):
                here[site.name] += unit
                break
    return {g.uuid for placed in here.values() for g in placed}, peak(sites, here)


def broken(site: Site, there: Sequence[Guest], sites: Sequence[Site]) -> list[str]:
    """Every promise that these VMs on this host would break."""
    problems = []
    if there and site.closed:
        problems.append("closed")
    if there and sum(g.memory_kib for g in there) > site.memory_kib - site.memory_used_kib:
        problems.append("memory")
    if there and sum(g.vcpus for g in there) > site.vcpus - site.vcpus_used:
        problems.append("vcpus")
    for pool in {pool for g in there for pool in g.pools}:
        if pool not in site.pools or sum(g.pools.get(pool, 0) for g in there) > site.pools[pool]:
            problems.append(f"pool {pool}")
    problems += [f"{g.name} unfit" for g in there if site.name in g.unfit]
    for group in GROUPS:
        members = [g for g in there if group in g.apart]
        if len(members) + (group in site.apart and bool(members)) > 1:
            problems.append(f"apart {group}")
        homes = {s.name for s in sites if group in s.together}
        if homes and site.name not in homes and any(g.together == group for g in there):
            problems.append(f"together {group}")
    return problems


def peak(sites: Sequence[Site], here: dict[str, list[Guest]]) -> float:
    loads = [0.0]
    for site in (s for s in sites if not s.closed):
        memory = site.memory_used_kib + sum(g.memory_kib for g in here[site.name])
        vcpus = site.vcpus_used + sum(g.vcpus for g in here[site.name])
        loads.append(memory / site.memory_kib if site.memory_kib else 1.0)
        loads.append(vcpus / site.vcpus if site.vcpus else 1.0)
    return max(loads)


def by_host(guests: Sequence[Guest], sites: Sequence[Site], placed: Placement) -> dict[str, list[Guest]]:
    return {site.name: [g for g in guests if placed.hosts.get(g.uuid) == site.name] for site in sites}


@settings(max_examples=400)
@given(some_guests(), some_sites())
def test_no_promise_is_broken(guests: list[Guest], sites: list[Site]) -> None:
    placed = place(guests, sites)
    here = by_host(guests, sites, placed)
    for site in sites:
        assert not broken(site, here[site.name], sites)
    for group in GROUPS:
        assert len({placed.hosts.get(g.uuid) for g in guests if g.together == group}) <= 1
    assert [choice.uuid for choice in placed.choices] == [g.uuid for g in guests]


@settings(max_examples=400)
@given(some_guests(), some_sites())
def test_no_worse_than_first_fit_decreasing(guests: list[Guest], sites: list[Site]) -> None:
    placed = place(guests, sites)
    reference, highest = first_fit_decreasing(guests, sites)
    assert placed.hosts.keys() >= reference
    assert placed.peak <= highest + 1e-9
    assert abs(placed.peak - peak(sites, by_host(guests, sites, placed))) < 1e-9


@given(some_guests(), some_sites(), st.randoms())
def test_the_order_of_the_question_does_not_matter(guests: list[Guest], sites: list[Site], dice: object) -> None:
    first = place(guests, sites)
    dice.shuffle(guests)  # type: ignore[attr-defined]
    dice.shuffle(sites)  # type: ignore[attr-defined]
    assert place(guests, sites).hosts == first.hosts


@given(some_guests(), some_sites())
def test_a_plan_is_kept_while_nothing_changes(guests: list[Guest], sites: list[Site]) -> None:
    first = place(guests, sites)
    assert place(guests, sites, planned=first.hosts).hosts == first.hosts


@given(some_guests(), some_sites())
def test_everybody_is_told_why(guests: list[Guest], sites: list[Site]) -> None:
    for choice in place(guests, sites).choices:
        assert choice.reason
        assert set(choice.others) | ({choice.host} - {None}) == {site.name for site in sites}
        assert all(choice.others.values())


SITE = Site("beta", memory_kib=8 << 20, memory_used_kib=0, vcpus=16, vcpus_used=0, pools={"fast": 10 << 30})
GUEST = Guest("u1", "web-1", memory_kib=1 << 20, vcpus=2)


def test_words() -> None:
    sites = [
        SITE,
        replace(SITE, name="gamma", closed="cordoned"),
        replace(SITE, name="delta", memory_kib=512 << 10),
        replace(SITE, name="omega", vcpus=1),
        replace(SITE, name="sigma", pools={}),
        replace(SITE, name="theta", apart=frozenset({"web"})),
        replace(SITE, name="kappa", memory_used_kib=4 << 20),
    ]
    guest = replace(GUEST, pools={"fast": 1 << 30}, apart=frozenset({"web"}), unfit={"lambda": "another CPU"})
    (choice,) = place([guest], [*sites, replace(SITE, name="lambda")]).choices
    assert (choice.host, choice.reason) == ("beta", "12% full with it")
    assert choice.others == {
        "gamma": "cordoned",
        "delta": "needs 1024 MiB of memory, 512 MiB are left",
        "omega": "needs 2 virtual CPUs, 1 are left",
        "sigma": "has no active pool fast",
        "theta": "kept apart from a VM that stays there (group web)",
        "kappa": "would be 62% full",
        "lambda": "another CPU",
    }


def test_groups_that_contradict_each_other() -> None:
    pair = [replace(GUEST, uuid=f"u{n}", name=f"db-{n}", together="db", apart=frozenset({"rack"})) for n in (1, 2)]
    choices = place(pair, [SITE]).choices
    assert [choice.host for choice in choices] == [None, None]
    assert choices[0].others["beta"] == "db-2 and db-1 are to be together (db) and apart (rack)"


def test_the_load_is_spread() -> None:
    guests = [replace(GUEST, uuid=f"u{n}", name=f"vm{n}") for n in range(6)]
    hosts = place(guests, [SITE, replace(SITE, name="gamma"), replace(SITE, name="delta")]).hosts
    assert sorted(hosts.values()) == ["beta", "beta", "delta", "delta", "gamma", "gamma"]
