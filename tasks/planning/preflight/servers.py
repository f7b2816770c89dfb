"""Rules about what is reached over the network, or through a socket: disks, and the other ends of character devices."""

from __future__ import annotations

from tasks.model.domain import Resource
from tasks.model.finding import Finding, blocker, info
from tasks.planning.preflight.registry import rule
from tasks.planning.situation import Situation

LOOPBACK = ("localhost", "127.", "::1", "[::1]")
CHARACTER_DEVICES = ("serial", "parallel", "console", "channel", "redirdev")


@rule(
    DISK_ON_NETWORK="QEMU reaches a disk over the network itself; the destination must be able to do the same.",
    DISK_SERVER_LOCAL="A disk is served by a process of the source host, which the destination does not reach.",
)
def check_network_disks(s: Situation) -> list[Finding]:
    """nbd, rbd, iscsi, gluster, nfs, http: the same server from either host, unless it is the host itself."""
    findings = [
        info(
            "DISK_ON_NETWORK",
            f"{d.target}: {d.source} is reached over the network; {s.destination.name} must reach it as well",
        )
        for d in s.disks
        if d.type == "network"
    ]
    hint = f"name the server by an address that {s.destination.name} reaches; or, with the same server there, "
    return findings + [
        blocker(
            "DISK_SERVER_LOCAL",
            f"a disk is served at {r.value}, which on {s.destination.name} is another process, or none",
            f"{hint}--accept DISK_SERVER_LOCAL",
        )
        for r in s.resources("storage-host", "socket")
        if _serves_disk(r) and (r.kind == "socket" or r.value.startswith(LOOPBACK))
    ]


def _serves_disk(resource: Resource) -> bool:
    return "/disk" in resource.xpath and "/host" in resource.xpath


@rule(
    REMOTE_ENDPOINT="A serial port, console or channel is connected to a network address or a socket of the host.",
)
def check_endpoints(s: Situation) -> list[Finding]:
    """Whoever is at the other end must find the VM on its new host."""
    endpoints = s.resources("address", "character-device", "device-node", "pipe")
    # A running VM shows the sockets as well that libvirt made for it, under names that are new on each host.
    fixed = s.domain if s.inactive is None else s.inactive
    sockets = [r for r in fixed.resources if r.kind == "socket" and _of_character_device(r)]
    return [
        info("REMOTE_ENDPOINT", f"{r.value} ({r.kind}) is opened on {s.destination.name} as well")
        for r in (*endpoints, *sockets)
    ]


def _of_character_device(resource: Resource) -> bool:
    return resource.xpath.split("/")[3].partition("[")[0] in CHARACTER_DEVICES
