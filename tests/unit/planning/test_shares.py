"""Dividing the bandwidth of links: properties of every division, and a few that can be counted by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasks.model.bandwidth import Flow
from tasks.planning.shares import share_out

LINKS = ("a", "b", "c")


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Flow], dict[str, int]]:
    limits = {link: draw(st.integers(1, 300)) for link in LINKS}
    flows = []
    for number in range(draw(st.integers(0, 12))):
        links = tuple(sorted(draw(st.sets(st.sampled_from(LINKS), min_size=1))))
        least, most = draw(st.integers(1, 5)), draw(st.sampled_from([0, 0, 1, 7, 40, 1000]))
        flows.append(Flow(f"m{number}", links, least, most, held=draw(st.integers(0, 3)), rank=draw(st.floats(0, 9))))
    return flows, limits


def used(flows: list[Flow], got: dict[str, int], link: str) -> int:
    return sum(got[flow.id] for flow in flows if link in flow.links)


@given(situations())
def test_no_link_is_ever_given_more_than_it_has(situation: tuple[list[Flow], dict[str, int]]) -> None:
    flows, limits = situation
    got = share_out(flows, limits)
    assert set(got) == {flow.id for flow in flows}
    for link, limit in limits.items():
        assert used(flows, got, link) <= limit


@given(situations())
def test_nobody_has_more_than_its_policy_nor_less_than_it_can_go_with(
    situation: tuple[list[Flow], dict[str, int]],
) -> None:
    flows, limits = situation
    got = share_out(flows, limits)
    for flow in flows:
        assert got[flow.id] <= (flow.most or 10_000)
        assert got[flow.id] == 0 or got[flow.id] >= min(flow.least, flow.most or flow.least)


@given(situations())
def test_who_could_have_more_goes_over_a_full_link_with_others_who_have_no_more(
    situation: tuple[list[Flow], dict[str, int]],
) -> None:
    """Max-min fairness, to one MiB/s; what somebody cannot go without is not taken away."""
    flows, limits = situation
    got = share_out(flows, limits)
    for flow in (f for f in flows if got[f.id] and not (f.most and got[f.id] >= f.most)):
        full = [link for link in flow.links if used(flows, got, link) == limits[link]]
        assert full, f"{flow.id} could have more"
        assert any(
            all(got[o.id] <= max(got[flow.id] + 1, o.least) for o in flows if link in o.links and got[o.id])
            for link in full
        )


@given(situations())
def test_who_waits_could_not_go_beside_those_before_it_or_must_not_overtake_one_of_them(
    situation: tuple[list[Flow], dict[str, int]],
) -> None:
    flows, limits = situation
    got = share_out(flows, limits)
    order = sorted(flows, key=lambda flow: (flow.held == 0, flow.rank, flow.id))
    for place, flow in enumerate(order):
        if got[flow.id] == 0:
            before = [o for o in order[:place] if got[o.id]]
            needed = [min(o.least, o.most or o.least) for o in (*before, flow)]
            waiting = [o for o in order[:place] if not got[o.id] and set(o.links) & set(flow.links)]
            assert (waiting and not flow.held) or any(
                sum(n for o, n in zip((*before, flow), needed, strict=True) if link in o.links) > limits[link]
                for link in flow.links
            )


@given(situations(), st.randoms())
def test_it_does_not_depend_on_the_order_in_which_they_are_told(
    situation: tuple[list[Flow], dict[str, int]], random: object
) -> None:
    flows, limits = situation
    shuffled = list(flows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert share_out(shuffled, limits) == share_out(flows, limits)


def test_three_share_a_link_and_the_first_has_what_is_left() -> None:
    flows = [Flow(f"m{n}", ("rack",), rank=n) for n in range(3)]
    assert share_out(flows, {"rack": 100}) == {"m0": 34, "m1": 33, "m2": 33}
    assert share_out(flows[2:], {"rack": 100}) == {"m2": 100}


def test_what_one_cannot_use_the_others_get() -> None:
    flows = [Flow("slow", ("rack",), most=10), Flow("m1", ("rack", "beta")), Flow("m2", ("rack",))]
    assert share_out(flows, {"rack": 100, "beta": 20}) == {"slow": 10, "m1": 20, "m2": 70}


def test_a_newcomer_is_not_kept_out_by_those_under_way() -> None:
    flows = [Flow("old", ("rack",), held=50), Flow("new", ("rack",), least=2)]
    assert share_out(flows, {"rack": 50}) == {"old": 25, "new": 25}


def test_who_needs_too_much_waits_and_holds_nobody_up() -> None:
    flows = [Flow("wide", ("rack",), least=4, rank=1), Flow("m", ("rack",), rank=2)]
    assert share_out(flows, {"rack": 3}) == {"wide": 0, "m": 3}


def test_who_needs_more_is_not_overtaken_for_ever_by_those_who_need_less() -> None:
    old = [Flow("old", ("rack",), least=2, held=2)]
    wide, small = Flow("wide", ("rack",), least=2, rank=1), Flow("small", ("rack",), rank=2)
    assert share_out([*old, wide, small], {"rack": 3}) == {"old": 3, "wide": 0, "small": 0}


def test_links_without_a_limit_count_for_nothing() -> None:
    assert share_out([Flow("m", ("gone",))], {"rack": 3}) == {"m": 1}
