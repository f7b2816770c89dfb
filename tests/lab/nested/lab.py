"""The nested lab: two libvirt hosts and an NFS server, each a machine with a kernel of its own."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

from tests.lab.guest import GuestOptions, guest_address
from tests.lab.host import Host
from tests.lab.image import build_image
from tests.lab.lab import Lab, check_root_and_programs
from tests.lab.nested.guest import NestedGuest
from tests.lab.nested.machine import GUEST_IMAGE, Machine, NestedHost, NfsServer
from tests.lab.nested.rootfs import build_base
from tests.lab.nested.spec import NestedSpec
from tests.lab.spec import Spec
from tests.lab.ssh import make_keys
from tests.lab.store import Store

PROGRAMS = ("ip", "nsenter", "qemu-system-x86_64", "qemu-img", "debootstrap", "lz4", "mke2fs", "cpio", "gcc", "nc")

TICK_MS = 50
"""A beat costs an emulated processor that emulates another one much."""


class NestedLab(Lab):
    """Machines instead of namespaces; everything else is as in the ordinary lab."""

    SPEC: ClassVar[type[Spec]] = NestedSpec
    HOST: ClassVar[type[Host]] = NestedHost
    STORE: ClassVar[type[Store]] = NfsServer
    COMMAND: ClassVar[str] = "python -m tests.lab.nested"

    @staticmethod
    def _check_machine() -> None:
        check_root_and_programs(PROGRAMS, "lab nested")

    def _build(self) -> None:
        build_image()
        build_base()

    def _make(self) -> None:
        super()._make()
        self.server.configure()
        make_keys(self.spec, self.machines)

    def _start(self) -> None:
        for machine in self.machines:
            if not machine.is_up:
                machine.boot()
        with ThreadPoolExecutor() as pool:
            list(pool.map(Machine.wait_booted, self.machines))
            list(pool.map(NestedHost.define_resources, [self.host(name) for name in self.spec.hosts]))

    def _take_down(self) -> None:
        for machine in self.machines:
            machine.down()
        subprocess.run(["ip", "netns", "delete", self.spec.netns("hub")], capture_output=True, check=False)
        shutil.rmtree(self.spec.folder, ignore_errors=True)

    # -- what is in it ------------------------------------------------------------------------------------------------

    @property
    def image(self) -> Path:
        """Folder of the guest's kernel and initramfs, on the hosts."""
        return GUEST_IMAGE

    @property
    def virt_type(self) -> str:
        """The hosts emulate a processor that can virtualize."""
        return "kvm"

    @property
    def server(self) -> NfsServer:
        """The NFS server."""
        assert isinstance(self._store, NfsServer)
        return self._store

    @property
    def machines(self) -> list[Machine]:
        """All three, the server first."""
        return [self.server, *(self.host(name) for name in self.spec.hosts)]

    def guest(self, name: str, host: str = "one", *, start: str = "running", **options: Any) -> NestedGuest:
        """Make a guest: ``start`` is ``running``, ``paused`` or ``off``; for the options see ``GuestOptions``."""
        chosen = GuestOptions(**({"memory_mib": 128, "tick_ms": TICK_MS} | options))
        address = guest_address(self._next_number()) if chosen.network else ""
        guest = NestedGuest(self, name, host, chosen, address=address)
        guest.create(start)
        return guest

    def host(self, name: str) -> NestedHost:
        """One host."""
        host = self._hosts[name]
        assert isinstance(host, NestedHost)
        return host
