"""Real libvirt hosts on one machine: for tests, for the demo, for trying things out.

A *lab* is a hub and hosts (alpha, beta, gamma), each in namespaces of its own with an ordinary libvirtd, QEMU and
sshd, a GlusterFS volume mounted by libvirt itself as ``netfs`` pool ``shared``, and a ``dir`` pool ``local`` on each
host. Whatever talks to the hosts (workers, CLI, tests) runs in the *hub's* network namespace:
``python -m tests.lab shell``. Nothing of it touches the machine's own network, libvirt or SSH keys. ``up`` is
idempotent and repairs what a killed run left; several labs live side by side.

Traps that cost time: the first process of a PID namespace must reap; names must resolve without DNS; a Linux guest
needs at least 80 MiB to boot (one that stays paused needs nothing); the guest's clock stops with the VM, so pauses are
measured outside.
"""

from tests.lab.guest import Guest, GuestOptions
from tests.lab.host import Host
from tests.lab.lab import DomainSnapshot, Lab
from tests.lab.shell import LabError, LabUnavailable
from tests.lab.snapshot import Snapshot, check_unchanged, snapshot
from tests.lab.watch import GuestWatch, Tick

__all__ = [
    "DomainSnapshot",
    "Guest",
    "GuestOptions",
    "GuestWatch",
    "Host",
    "Lab",
    "LabError",
    "LabUnavailable",
    "Snapshot",
    "Tick",
    "check_unchanged",
    "snapshot",
]
