"""Rules about what the VM is connected to: networks, bridges, filters, displays, consoles."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.model.domain import Interface
from tasks.model.finding import Finding, blocker, info, warning
from tasks.model.host import Network
from tasks.planning.preflight.registry import rule
from tasks.planning.situation import Situation

ANY_OR_LOOPBACK = frozenset({"0.0.0.0", "127.0.0.1", "::", "::1", "localhost", "*"})  # noqa: S104 - compared, not bound


@rule(
    NETWORK_MISSING="The destination has no libvirt network of that name.",
    NETWORK_INACTIVE="The destination's libvirt network of that name is not active.",
    PORT_GROUP_MISSING="The destination's libvirt network of that name has no such port group.",
)
def check_networks(s: Situation) -> list[Finding]:
    """libvirt refuses this live (43) and says nothing when the VM is shut off, which then fails to start."""
    networks = {n.name: n for n in s.destination.networks}
    named = [i.source for i in s.interfaces if i.type == "network" and i.source]
    named += [r.value for r in s.resources("network")]
    findings = []
    for name in dict.fromkeys(named):
        if name not in networks:
            message = f"{s.destination.name} has no network {name}"
            findings.append(blocker("NETWORK_MISSING", message, f"virsh net-define FILE, virsh net-start {name}"))
        elif not networks[name].active:
            message = f"network {name} is not active on {s.destination.name}"
            findings.append(blocker("NETWORK_INACTIVE", message, f"virsh net-start {name} on {s.destination.name}"))
    return findings + _port_groups(s, networks)


def _port_groups(s: Situation, networks: Mapping[str, Network]) -> list[Finding]:
    """libvirt says nothing, and connects the card without its VLAN and its limits."""
    wanted = dict.fromkeys((i.source, i.port_group) for d in s.definitions for i in d.interfaces if i.type == "network")
    return [
        blocker(
            "PORT_GROUP_MISSING",
            f"network {name} of {s.destination.name} has no port group {group}: the card would be without its VLAN",
            f"virsh net-edit {name} there, or take the port group out of the network card",
        )
        for name, group in wanted
        if name and name in networks and group and group not in networks[name].port_groups
    ]


@rule(
    BRIDGE_MISSING="The destination has no bridge of that name.",
    INTERFACE_MISSING="The destination has no network device of that name.",
    INTERFACE_UNSEEN="Whether the destination has the bridge or network device cannot be seen.",
)
def check_bridges(s: Situation) -> list[Finding]:
    """libvirt fails at its own preparation when live, and at the VM's start when it was shut off."""
    return [f for i in s.interfaces if i.type in ("bridge", "direct") and i.source for f in _device(s, i, i.source)]


def _device(s: Situation, interface: Interface, name: str) -> list[Finding]:
    bridges = {n.bridge for n in s.destination.networks if n.active}
    if name in s.destination.interfaces or name in bridges:
        return []
    if not s.destination.interfaces:
        message = f"a network card uses {name}, and {s.destination.name} does not show its network devices"
        return [warning("INTERFACE_UNSEEN", message, f"ip link show {name} on {s.destination.name}")]
    if interface.type == "bridge":
        message = f"{s.destination.name} has no bridge {name}"
        return [blocker("BRIDGE_MISSING", message, f"make it: ip link add {name} type bridge")]
    message = f"{s.destination.name} has no network device {name}"
    return [blocker("INTERFACE_MISSING", message, "change the network card's source, or name the device alike")]


@rule(
    NWFILTER_MISSING="A network card uses a filter of libvirt that the destination does not have.",
    NWFILTER_UNSEEN="A network card uses a filter of libvirt; whether the destination has it cannot be seen.",
    INTERFACE_SCRIPT="A network card is set up by a script of the host.",
)
def check_filters(s: Situation) -> list[Finding]:
    """Both are looked up on the destination when the card is made."""
    findings = [f for found in s.resources("nwfilter") if (f := _filter(s, found.value)) is not None]
    findings += [
        warning("INTERFACE_SCRIPT", f"{found.value} must be on {s.destination.name}, and do the same there")
        for found in s.resources("script")
    ]
    return findings


def _filter(s: Situation, name: str) -> Finding | None:
    there = s.destination.name
    if s.destination.nwfilters is None:
        message = f"the network filter {name} must exist on {there}"
        return warning("NWFILTER_UNSEEN", message, f"virsh nwfilter-list on {there}")
    if name in s.destination.nwfilters:
        return None
    message = f"{there} does not have the network filter {name}"
    return blocker("NWFILTER_MISSING", message, f"virsh nwfilter-dumpxml {name} here, virsh nwfilter-define FILE there")


@rule(
    MAC_IN_USE="A VM of the destination has a network card with the same address.",
)
def check_macs(s: Situation) -> list[Finding]:
    """libvirt does not look; two cards of one address on one network take each other's packets."""
    return [
        blocker(
            "MAC_IN_USE",
            f"{', '.join(names)} on {s.destination.name} has a network card with the address {mac} as well",
            "give one of them another address: virsh edit; if they never run at once: --accept MAC_IN_USE",
        )
        for mac, names in s.mac_users.items()
        if names
    ]


@rule(
    GRAPHICS_LISTEN_ADDRESS="A display listens at an address that the destination may not have.",
    GRAPHICS_LISTEN_MOVED="A display listens at the source's host name; the destination's is put in its place.",
    GRAPHICS_SOCKET="A display listens at a socket at a fixed path.",
    GRAPHICS_PORT="A display has a fixed port, which must be free on the destination.",
)
def check_graphics(s: Situation) -> list[Finding]:
    """libvirt fails (1): "Failed to bind socket: Cannot assign requested address"."""
    shown = [g for d in s.definitions for g in d.graphics]
    findings = []
    for address in dict.fromkeys(g.listen for g in shown if g.listen and g.listen not in ANY_OR_LOOPBACK):
        if address == s.source.hostname and s.destination.hostname:
            message = f"a display that listens at {address} will listen at {s.destination.hostname}"
            findings.append(info("GRAPHICS_LISTEN_MOVED", message))
        else:
            message = f"a display listens at {address}, which {s.destination.name} may not have"
            findings.append(warning("GRAPHICS_LISTEN_ADDRESS", message, "let it listen at 0.0.0.0 or 127.0.0.1"))
    for path in dict.fromkeys(g.socket for g in shown if g.socket):
        findings.append(info("GRAPHICS_SOCKET", f"a display listens at the socket {path}"))
    fixed = s.domain if s.inactive is None else s.inactive  # a running VM shows those that libvirt chose as well
    ports = dict.fromkeys(r.value for r in fixed.resources if r.kind == "port")
    hint = "let libvirt choose: port='-1' autoport='yes' in the definition"
    return findings + [
        warning("GRAPHICS_PORT", f"a display has the port {port}, which must be free on {s.destination.name}", hint)
        for port in ports
    ]


@rule(
    CONSOLE_FILE="A serial port, console or channel writes to a file, whose directory the destination must have.",
)
def check_consoles(s: Situation) -> list[Finding]:
    """libvirt fails (38) when the directory is missing; what was written so far stays on the source."""
    paths = dict.fromkeys(p for d in s.definitions for p in d.console_paths)
    paths.update(dict.fromkeys(r.value for r in s.resources("log-file")))
    return [
        info("CONSOLE_FILE", f"output goes on in {path} on {s.destination.name}; what was written so far stays behind")
        for path in paths
    ]
