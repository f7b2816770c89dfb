"""Links that a migration goes over and pools that it uses, as the settings have them."""

from __future__ import annotations

from config.settings import Settings
from tasks.model.bandwidth import Route
from tasks.model.run import RunRecord


def links_between(settings: Settings, record: RunRecord) -> list[str]:
    """Links that it goes over: those of which only one of its hosts is behind."""
    ends = (record.source, record.destination)
    return [name for name, link in settings.links.items() if sum(end in link.hosts for end in ends) == 1]


def route_of(settings: Settings, record: RunRecord) -> Route:
    """What it goes over that has a limited bandwidth; a host's own ways out and in are two links."""
    limits = {f"link:{name}": link.bandwidth_mib_s for name, link in settings.links.items()}
    for name, host in settings.hosts.items():
        limits |= {f"out:{name}": host.bandwidth_mib_s, f"in:{name}": host.bandwidth_mib_s}
    limits = {name: limit for name, limit in limits.items() if limit}
    names = [f"out:{record.source}", f"in:{record.destination}"]
    names += [f"link:{name}" for name in links_between(settings, record)]
    return Route(tuple(name for name in names if name in limits), limits)


def pools_used(settings: Settings, record: RunRecord) -> dict[str, int]:
    """Tokens of limited pools that it copies out of or into, with how many may have each; none before it was looked
    at."""
    found = {}
    for place in record.pools:
        name = place.partition("/")[2]
        if (own := settings.pools.get(place)) is not None:
            found[f"pool:{place}"] = own.max_transfers
        elif (pool := settings.pools.get(name)) is not None:
            found[f"pool:{name if pool.shared else place}"] = pool.max_transfers
    return found
