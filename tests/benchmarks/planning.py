"""How long preflight takes for a VM with eight disks (every rule, both hosts, in one look), and a large placement."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack, closing

from tasks.planning.placement import Guest, Site, place
from tests.benchmarks.report import Figure, spread
from tests.benchmarks.rig import Rig

DISKS = 8
LIMIT_S = 2.0
VMS, HOSTS = 500, 50
VOLUME = "<volume><name>{}</name><capacity unit='MiB'>64</capacity><target><format type='qcow2'/></target></volume>"
DISK = (
    "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
    "<source file='/var/lib/libvirt/images/{}'/><target dev='vd{}' bus='virtio'/></disk>"
)


def measure_plans(rig: Rig, count: int) -> list[float]:
    """Seconds of each look; every disk only its host has, so that each must be found, measured and placed."""
    with ExitStack() as stack:
        host = rig.lab.host("alpha")
        names = [f"eight.{letter}.qcow2" for letter in "bcdefgh"[: DISKS - 1]]
        conn = stack.enter_context(closing(host.connect()))
        pool = conn.storagePoolLookupByName("local")
        for name in names:
            pool.createXML(VOLUME.format(name), 0)  # goes with the guest, whose name it begins with
        extra = "".join(DISK.format(name, name.split(".")[1]) for name in names)
        guest = rig.lab.guest("eight", start="off", disk="local", extra_xml=extra)
        stack.callback(guest.remove)
        took = []
        for number in range(count):
            if number % 2 == 1:
                guest.start()
            began = time.monotonic()
            plan = rig.client.plan({"vm": guest.name, "destination": "beta"})
            took.append(time.monotonic() - began)
            assert plan.allowed, plan.findings
            assert len(plan.copies) == DISKS
            if number % 2 == 1:
                guest.stop()
        return took


def measure_placement(count: int) -> list[float]:
    """Seconds to find places for 500 VMs on 50 hosts, each time other ones."""
    took = []
    for seed in range(count):
        some = random.Random(seed)
        guests = [
            Guest(f"{n:04d}", f"vm-{n}", some.choice((1, 2, 4, 8, 16)) << 20, some.choice((1, 2, 4)), together="")
            for n in range(VMS)
        ]
        sites = [
            Site(f"host-{n:02d}", 128 << 20, some.randrange(64) << 20, 128, some.randrange(64)) for n in range(HOSTS)
        ]
        began = time.monotonic()
        placed = place(guests, sites)
        took.append(time.monotonic() - began)
        assert len(placed.choices) == VMS
    return took


def plan_figures(took: list[float], placing: list[float]) -> list[Figure]:
    """The whole look, half of them of a VM that is shut off; and the placement alone."""
    return [
        spread(f"preflight of a VM with {DISKS} disks", took, unit="s", goal=LIMIT_S),
        spread(f"places for {VMS} VMs on {HOSTS} hosts", placing, unit="s", goal=LIMIT_S),
    ]
