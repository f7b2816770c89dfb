"""How the bandwidth of links is divided: nobody can have more without taking it from one who has less."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tasks.model.bandwidth import Flow


def share_out(flows: Iterable[Flow], limits: Mapping[str, int]) -> dict[str, int]:
    """Id -> MiB/s: max-min fair over all links at once, in whole MiB/s, and never more in all than a link has.

    Who begins needs its least on each of its links; until that is there it gets 0, and nobody who came later begins on
    one of these links before it.
    """
    order = sorted(flows, key=lambda flow: (flow.held == 0, flow.rank, flow.id))
    room, got = dict(limits), {flow.id: 0 for flow in order}
    begun, awaited = [], set[str]()
    for flow in order:
        least, links = min(flow.least, flow.most) if flow.most else flow.least, _limited(flow, room)
        if all(room[link] >= least for link in links) and (flow.held or not awaited & set(links)):
            _raise(flow, least, got, room)
            begun.append(flow)
        elif all(limits[link] >= least for link in links):
            awaited |= set(links)
    _fill([flow for flow in begun if _limited(flow, room)], got, room)
    return got


def _fill(active: Sequence[Flow], got: dict[str, int], room: dict[str, int]) -> None:
    """Those who have least get more, together, until a link of theirs is full or they have all they may have."""
    active = [flow for flow in active if not flow.most or got[flow.id] < flow.most]
    while active:
        low = min(got[flow.id] for flow in active)
        lowest = [flow for flow in active if got[flow.id] == low]
        step = _step(active, lowest, low, got, room)
        for flow in lowest:
            # What is left when it cannot be divided evenly goes to the first of them.
            if step or all(room[link] for link in _limited(flow, room)):
                _raise(flow, max(1, step), got, room)
        full = {flow.id for flow in lowest if not step and got[flow.id] == low}
        active = [f for f in active if f.id not in full and not (f.most and got[f.id] >= f.most)]


def _step(
    active: Sequence[Flow], lowest: Sequence[Flow], low: int, got: Mapping[str, int], room: Mapping[str, int]
) -> int:
    """By how much all of the lowest can be raised at once."""
    bounds = [got[flow.id] - low for flow in active if got[flow.id] > low]
    bounds += [flow.most - low for flow in lowest if flow.most]
    for link in {link for flow in lowest for link in _limited(flow, room)}:
        bounds.append(room[link] // sum(link in flow.links for flow in lowest))
    return min(bounds)


def _raise(flow: Flow, by: int, got: dict[str, int], room: dict[str, int]) -> None:
    got[flow.id] += by
    for link in _limited(flow, room):
        room[link] -= by


def _limited(flow: Flow, room: Mapping[str, int]) -> list[str]:
    return [link for link in flow.links if link in room]
