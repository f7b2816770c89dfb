"""libvirt networks that the VM is on and the destination lacks."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from tasks.model.host import Network
from tasks.model.remedies import NetworkOrder
from tasks.planning.remedies.remedy import Refusal, Remedy, Treatment
from tasks.planning.situation import Situation

OWN_BRIDGE_MODES = frozenset({"", "nat", "route", "open"})
"""Ways out for which libvirt makes the bridge itself."""
DEVICE_MODES = frozenset({"bridge", "private", "vepa", "passthrough"})
"""Ways out through something that the host must have."""


def _find(s: Situation) -> list[Treatment | Refusal]:
    there = {network.name: network for network in s.destination.networks}
    named = [i.source for i in s.interfaces if i.type == "network" and i.source]
    named += [r.value for r in s.resources("network")]
    found: list[Treatment | Refusal] = []
    for name in dict.fromkeys(named):
        if name not in there:
            found.append(_make(s, name))
        elif not there[name].active:
            found.append(_start(s, there[name]))
    return found


def _start(s: Situation, network: Network) -> Treatment:
    message = f"network {network.name} is started on {s.destination.name}"
    order = NetworkOrder(name=network.name, action="start")
    about = f"network {network.name} "
    return Treatment("NETWORK_INACTIVE", about, message, lambda s: _ordered(s, replace(network, active=True), order))


def _make(s: Situation, name: str) -> Treatment | Refusal:
    here = next((network for network in s.source.networks if network.name == name), None)
    if here is None:
        message = f"{s.source.name} does not have network {name} either"
        return Refusal(message, f"define it: virsh net-define FILE on {s.destination.name}")
    if clash := _clash(here, s):
        hint = f"define it by hand, otherwise than on {s.source.name}: virsh net-define FILE on {s.destination.name}"
        return Refusal(f"network {name} cannot be copied: {clash}", hint)
    message = f"network {name} is made on {s.destination.name} as it is on {s.source.name}"
    order = NetworkOrder(name=name, action="make")
    about = f"has no network {name}"
    return Treatment("NETWORK_MISSING", about, message, lambda s: _ordered(s, replace(here, active=True), order))


def _ordered(s: Situation, network: Network, order: NetworkOrder) -> Situation:
    others = tuple(n for n in s.destination.networks if n.name != network.name)
    remedied = s.remedied.model_copy(update={"networks": (*s.remedied.networks, order)})
    return replace(s, destination=replace(s.destination, networks=(*others, network)), remedied=remedied)


def _clash(here: Network, s: Situation) -> str | None:
    """Why the destination cannot have the same network, as far as libvirt shows it."""
    if here.mode in OWN_BRIDGE_MODES:
        return _clashing_bridge(here, s) or _clashing_range(here, s) or _missing_device(here.devices, s)
    if here.mode in DEVICE_MODES:
        return _missing_device((*here.devices, *([here.bridge] if here.bridge else [])), s)
    return f"its forward mode {here.mode} belongs to the devices of {s.source.name}"


def _clashing_bridge(here: Network, s: Situation) -> str | None:
    owner = next((n.name for n in s.destination.networks if n.bridge and n.bridge == here.bridge), None)
    if owner is not None:
        return f"network {owner} of {s.destination.name} has the bridge {here.bridge}"
    if here.bridge and here.bridge in s.destination.interfaces:
        return f"{s.destination.name} has an interface {here.bridge}"
    return None


def _clashing_range(here: Network, s: Situation) -> str | None:
    for other in s.destination.networks:
        for theirs in other.ranges:
            for ours in here.ranges:
                if _overlap(ours, theirs):
                    return f"network {other.name} of {s.destination.name} has the addresses {theirs}"
    return None


def _overlap(one: str, other: str) -> bool:
    first, second = ipaddress.ip_network(one), ipaddress.ip_network(other)
    return first.version == second.version and first.overlaps(second)


def _missing_device(names: tuple[str, ...], s: Situation) -> str | None:
    missing = [name for name in names if name not in s.destination.interfaces]
    return f"{s.destination.name} does not show the interface {', '.join(missing)}" if missing else None


CREATE_NETWORK = Remedy(
    name="create-network",
    words="makes a libvirt network that the destination lacks as it is on the source, or starts one that is inactive; "
    "refused where its bridge, its addresses or the devices that it needs clash with what the destination has. "
    "libvirt switches IP forwarding on when it starts a network with a way out, and leaves it on",
    undone="it is stopped and removed, unless another VM has come to use it",
    codes=("NETWORK_MISSING", "NETWORK_INACTIVE"),
    find=_find,
)
