"""A guest of the nested lab: one that KVM runs, in a host that is emulated."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import libvirt

from tests.lab.guest import CONSOLES, LOGICAL, POOL_PATHS, SQUASHED, Guest
from tests.lab.shell import LabError, until
from tests.lab.watch import GuestWatch, Tick

if TYPE_CHECKING:
    from tests.lab.nested.lab import NestedLab
    from tests.lab.nested.machine import NestedHost


class NestedWatch(GuestWatch):
    """Beats of a guest that moves once: what its source still had to tell when it had gone comes before the rest.

    Each host has a connection of its own, so that the order of arrival says little about beats of different hosts.
    """

    def ticks(self) -> list[Tick]:
        """All beats so far, in the order of each host; hosts in the order of their first beats."""
        found: dict[str, list[Tick]] = {}
        for tick in super().ticks():
            found.setdefault(tick.host, []).append(tick)
        return [tick for ticks in found.values() for tick in ticks]


@dataclass
class NestedGuest(Guest):
    """As in the ordinary lab, but that its hosts' files are not this machine's."""

    lab: NestedLab

    def create(self, start: str) -> None:
        """Make the disk, define, and start as asked; its consoles are followed from the start."""
        for host in self._hosts():
            host.follow(self._console_path)
        super().create(start)

    @property
    def _console_path(self) -> str:
        return f"{CONSOLES}/{self.name}.console"

    def _hosts(self) -> list[NestedHost]:
        return [self.lab.host(name) for name in self.lab.spec.hosts]

    def _create_volume(self, conn: libvirt.virConnect, pool_name: str, volume: str) -> None:
        if pool_name == SQUASHED:  # libvirt, being root, may not: somebody made it on the server
            path, owner = f"/srv/{SQUASHED}/{volume}", "libvirt-qemu:libvirt-qemu"
            size = f"{self.options.disk_mib}M"
            self.lab.server.shell(f"truncate -s {size} {path}; chown {owner} {path}")
            conn.storagePoolLookupByName(pool_name).refresh(0)
            return
        if pool_name != LOGICAL:
            super()._create_volume(conn, pool_name, volume)
            return
        size = f"unit='MiB'>{self.options.disk_mib}<"
        xml = f"<volume><name>{volume}</name><capacity {size}/capacity><allocation {size}/allocation></volume>"
        conn.storagePoolLookupByName(LOGICAL).createXML(xml, 0)

    def watch(self) -> NestedWatch:
        """Observe its heartbeat on both hosts, as a context manager."""
        return NestedWatch({name: self.console(name) for name in self.lab.spec.hosts})

    def wait_beats(self, watch: GuestWatch, host: str, many: int, timeout_s: float = 120.0) -> None:
        """Wait until so many beats of a host have been seen."""
        until(lambda: len(watch.ticks_by_host()[host]) >= many, timeout_s, f"{self.name} does not tick on {host}")

    def fill_disk(self, pieces: Sequence[tuple[int, int]]) -> None:
        """Put random data into its raw disks, which are shut off: pieces of (offset, length), MiB."""
        host = self.lab.host(self.host)
        paths = [f"{POOL_PATHS[pool]}/{volume}" for pool, volume in self.disks.values()]
        for path in paths:
            for offset, length in pieces:
                command = ["dd", "if=/dev/urandom", f"of={path}", "bs=1M", f"seek={offset}", f"count={length}"]
                host.run([*command, "conv=notrunc,fsync", "status=none"])
        self.filled = self._digests(host, paths)

    def check_filled(self, host: str) -> None:
        """What ``fill_disk`` put there is on this host, in the disks that the definition names."""
        with contextlib.closing(self.lab.host(host).connect()) as conn:
            xml = conn.lookupByUUIDString(self.uuid).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        lines = [line for line in xml.splitlines() if "<source file=" in line or "<source dev=" in line]
        paths = [line.split("'")[1] for line in lines]
        assert self._digests(self.lab.host(host), paths) == self.filled, f"{paths} on {host} are not what was written"

    def _digests(self, host: NestedHost, paths: Sequence[str]) -> str:
        return " ".join(line.split()[0] for line in host.run(["sha256sum", *paths]).splitlines())

    def volumes(self) -> list[tuple[str, str]]:
        """The volumes that bear its name: (host, name), with ``shared`` for the host when it is the shared pool."""
        found = super().volumes()
        for host in self._hosts():
            with contextlib.closing(host.connect()) as conn:
                pool = conn.storagePoolLookupByName(LOGICAL)
                pool.refresh(0)
                names = sorted(volume.name() for volume in pool.listAllVolumes())
            found += [(host.name, name) for name in names if name.startswith(f"{self.name}.")]
        return found

    def remove(self) -> None:
        """Take it off every host, with its disks and consoles; for the end of a test only."""
        super().remove()
        self.lab.server.shell(f"rm -f /srv/{SQUASHED}/{self.name}.*")
        for host in self._hosts():
            with contextlib.closing(host.connect()) as conn, contextlib.suppress(libvirt.libvirtError):
                pool = conn.storagePoolLookupByName(LOGICAL)
                for volume in pool.listAllVolumes():
                    if volume.name().startswith(f"{self.name}."):
                        volume.delete(0)
            with contextlib.suppress(LabError):
                host.unfollow(self._console_path)
