"""A guest of the lab: defined, started, observed and removed by the tests, never by the product."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import uuid as uuid_module
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

import libvirt

from tests.lab.devices import DEVICES, DEVICES_PATH, add_device, remove_device
from tests.lab.shell import until
from tests.lab.spec import STORE_ADDRESS
from tests.lab.store import NFS, NFS_PATH
from tests.lab.watch import GuestWatch

if TYPE_CHECKING:
    from tests.lab.lab import Lab

LOGICAL = "vg0"
"""A volume group, which hosts of the nested lab have."""
SQUASHED = "squashed"
"""An NFS export of the nested lab that makes root nobody."""
POOL_PATHS = {
    "shared": "/var/lib/libvirt/shared",
    "local": "/var/lib/libvirt/images",
    DEVICES: DEVICES_PATH,
    LOGICAL: f"/dev/{LOGICAL}",
    SQUASHED: f"/var/lib/libvirt/{SQUASHED}",
    NFS: NFS_PATH,
}
CONSOLES = "/var/log/libvirt/qemu"
UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
)


@dataclass(frozen=True, slots=True)
class GuestOptions:
    """What the guest is and does; rates are what the guest aims at."""

    memory_mib: int = 96
    disk: str | None = "shared"
    """Pool of its disk, None for none."""
    disk_format: str = "qcow2"
    disk_mib: int = 64
    below: tuple[str, ...] = ()
    """Formats of the files below its disk, top first; they are in the same pool, each with data of its own."""
    below_everywhere: bool = False
    """Every host has the same files there."""
    second_disk: str | None = None
    """Pool of a second disk, which the guest leaves alone."""
    fill_mib: int = 0
    """Memory filled with data that cannot be compressed away."""
    dirty_mib_s: int = 0
    write_kib_s: int = 0
    write_stop: int = 0
    """Blocks of 4 KiB to write; the guest then reads them again and again (see ``GuestWatch.check_disk``)."""
    tick_ms: int = 5
    poweroff_s: int = 0
    button_ms: int = 0
    """It switches off so long after its power button was pressed; 0: it does not hear that."""
    network: bool = True
    agent: bool = False
    """It answers as a guest agent does."""
    agent_s: int = 0
    """Until so many seconds after its start; 0: always."""
    autostart: bool = False
    extra_xml: str = ""
    """Further devices."""
    os_xml: str = ""
    """Further parts of ``os``."""


@dataclass
class Guest:
    """One VM of the lab."""

    lab: Lab
    name: str
    host: str
    options: GuestOptions
    uuid: str = field(default_factory=lambda: str(uuid_module.uuid4()))
    address: str = ""
    filled: str = ""
    """Checksum of what ``fill_disk`` made of its disk."""
    visible: str = ""
    """What ``guest_visible`` said at first."""

    @property
    def volume(self) -> str:
        """Name of its disk's volume."""
        return f"{self.name}.{self.options.disk_format}"

    @property
    def disks(self) -> dict[str, tuple[str, str]]:
        """Guest-side name -> pool and volume."""
        options, made = self.options, {}
        if options.disk:
            made["vda"] = (options.disk, self.volume)
        if options.second_disk:
            made["vdb"] = (options.second_disk, f"{self.name}.second.{options.disk_format}")
        return made

    @property
    def xml(self) -> str:
        """Its definition as it was first made."""
        return _xml(self)

    def console(self, host: str) -> Path:
        """Where its ticks arrive when it runs on a host."""
        return self.lab.host(host).root / CONSOLES.lstrip("/") / f"{self.name}.console"

    # -- life ---------------------------------------------------------------------------------------------------------

    def create(self, start: str) -> None:
        """Make the disk, define, and start as asked: ``running``, ``paused`` or ``off``."""
        conn = self.lab.host(self.host).connect()
        with contextlib.closing(conn):
            self._make_below()
            for pool, volume in self.disks.values():
                self._create_volume(conn, pool, volume)
            domain = conn.defineXML(self.xml)
            domain.setAutostart(int(self.options.autostart))
            if start != "off":
                domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED if start == "paused" else 0)

    def _create_volume(self, conn: libvirt.virConnect, pool_name: str, volume: str) -> None:
        if pool_name == DEVICES:
            add_device(self.lab.host(self.host), volume, self.options.disk_mib)
            return
        if pool_name == NFS:
            url, size = f"nfs://{STORE_ADDRESS}{NFS_PATH}/{volume}", f"{self.options.disk_mib}M"
            self.lab.store.serve_nfs()
            self.lab.host(self.host).run(["qemu-img", "create", "-q", "-f", self.options.disk_format, url, size])
            return
        pool = conn.storagePoolLookupByName(pool_name)
        pool.refresh(0)
        below = ""
        if self.options.below and volume == self.volume:
            path, format_ = f"{POOL_PATHS[pool_name]}/{self.base(0)}", self.options.below[0]
            below = f"<backingStore><path>{path}</path><format type='{format_}'/></backingStore>"
        pool.createXML(
            f"<volume><name>{volume}</name><capacity unit='MiB'>{self.options.disk_mib}</capacity>"
            f"<allocation>0</allocation><target><format type='{self.options.disk_format}'/></target>{below}</volume>",
            0,
        )

    def base(self, number: int) -> str:
        """Name of a file below its disk, counted from the top."""
        return f"{self.name}.base{number}.{self.options.below[number]}"

    def _make_below(self) -> None:
        """The files below its disk, from the lowest up; each of the upper ones holds some data of its own."""
        host, below = self.lab.host(self.host), self.options.below
        folder = POOL_PATHS[self.options.disk or "local"]
        for number in reversed(range(len(below))):
            path = f"{folder}/{self.base(number)}"
            command = ["qemu-img", "create", "-q", "-f", below[number]]
            if number + 1 < len(below):
                command += ["-b", f"{folder}/{self.base(number + 1)}", "-F", below[number + 1]]
            host.run([*command, path, f"{self.options.disk_mib}M"])
            writes = [
                f"write -P {17 * (number + 1) + n} {(number * 3 + n * 9) % self.options.disk_mib}M 1M" for n in (0, 1)
            ]
            host.run(["qemu-io", "-f", below[number], *(w for one in writes for w in ("-c", one)), path])
        if self.options.below_everywhere:
            self._spread_below()

    def _spread_below(self) -> None:
        """The same files on all hosts."""
        folder = POOL_PATHS[self.options.disk or "local"].lstrip("/")
        for number in range(len(self.options.below)):
            here = self.lab.host(self.host).root / folder / self.base(number)
            for name in set(self.lab.spec.hosts) - {self.host}:
                shutil.copy(here, self.lab.host(name).root / folder / self.base(number))

    def guest_visible(self, host: str) -> str:
        """Checksum of what the guest would read of its first disk, which is shut off."""
        with contextlib.closing(self.lab.host(host).connect()) as conn:
            xml = conn.lookupByUUIDString(self.uuid).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        path = _first_disk(xml)
        node = self.lab.host(host)
        raw = f"/var/cache/libvirt/{self.name}.visible.raw"
        node.run(["qemu-img", "convert", "-f", self.options.disk_format, "-O", "raw", path, raw])
        seen = node.run(["sha256sum", raw]).split()[0]
        node.run(["rm", raw])
        return seen

    def start(self, host: str | None = None) -> None:
        """Start it where it is defined."""
        conn = self.lab.host(host or self.host).connect()
        with contextlib.closing(conn):
            conn.lookupByUUIDString(self.uuid).create()

    def blink(self, host: str) -> None:
        """Let it run for a moment: a guest that is paused and has run is not one that was only started paused."""
        conn = self.lab.host(host).connect()
        with contextlib.closing(conn):
            domain = conn.lookupByUUIDString(self.uuid)
            domain.resume()
            until(lambda: _has_run(domain), 20, f"{self.name} gets no time to run")
            domain.suspend()

    def fill_disk(self, pieces: Sequence[tuple[int, int]]) -> None:
        """Put random data into its raw disk, which is shut off and not shared: pieces of (offset, length), MiB."""
        file = self.lab.host(self.host).root / POOL_PATHS[self.options.disk or "local"].lstrip("/") / self.volume
        with file.open("r+b") as disk:
            for offset, length in pieces:
                disk.seek(offset << 20)
                disk.write(os.urandom(length << 20))
        self.filled = hashlib.sha256(file.read_bytes()).hexdigest()

    def check_filled(self, host: str) -> None:
        """What ``fill_disk`` put there is on this host, in the file that the definition names."""
        with contextlib.closing(self.lab.host(host).connect()) as conn:
            xml = conn.lookupByUUIDString(self.uuid).XMLDesc()
        path = _first_disk(xml)
        found = (self.lab.host(host).root / path.lstrip("/")).read_bytes()
        assert hashlib.sha256(found).hexdigest() == self.filled, f"{path} on {host} is not what was written"

    def stop(self, host: str | None = None) -> None:
        """Pull its plug."""
        conn = self.lab.host(host or self.host).connect()
        with contextlib.closing(conn):
            conn.lookupByUUIDString(self.uuid).destroy()

    def wait_ticking(self, host: str | None = None, timeout_s: float = 60.0) -> None:
        """Wait until its heartbeat arrives."""
        console = self.console(host or self.host)
        until(lambda: console.exists() and b"\ntick " in console.read_bytes(), timeout_s, f"{self.name} does not tick")

    def wait_verified(self, passes: int, host: str | None = None, timeout_s: float = 90.0) -> None:
        """Wait until it has read its whole disk so many times on a host, and found what it had written."""
        console = self.console(host or self.host)

        def verified() -> bool:
            said = console.read_bytes() if console.exists() else b""
            assert b"corrupt" not in said, said[said.index(b"corrupt") :][:300].decode()
            return said.count(b"\nverified ") >= passes

        until(verified, timeout_s, f"{self.name} does not verify its disk")

    def wait_written(self, blocks: int, host: str | None = None, timeout_s: float = 60.0) -> None:
        """Wait until it has written so many blocks on a host, and found all that it read back as it should be."""
        console = self.console(host or self.host)

        def written() -> bool:
            said = console.read_bytes() if console.exists() else b""
            assert b"corrupt" not in said, said[said.index(b"corrupt") :][:300].decode()
            assert b"write error" not in said
            return said.count(b"\nwrote ") >= blocks

        until(written, timeout_s, f"{self.name} does not write")

    def wait_verified_anew(self, host: str) -> None:
        """Wait until it has once more read its whole disk, on this host, from now on."""
        console = self.console(host)
        passes = console.read_bytes().count(b"\nverified ") if console.exists() else 0
        self.wait_verified(passes + 2, host)  # the first may have begun before

    def volumes(self) -> list[tuple[str, str]]:
        """The volumes that bear its name: (host, name), with ``shared`` for the host when it is the shared pool."""
        found = []
        for place in ("shared", *self.lab.spec.hosts):
            host = self.lab.spec.hosts[0] if place == "shared" else place
            with contextlib.closing(self.lab.host(host).connect()) as conn:
                names = _volume_names(conn, "shared" if place == "shared" else "local", f"{self.name}.")
            found += [(place, name) for name in sorted(names)]
        return found

    def watch(self) -> GuestWatch:
        """Observe its heartbeat on all hosts, as a context manager."""
        return GuestWatch({name: self.console(name) for name in self.lab.spec.hosts})

    def remove(self) -> None:
        """Take it off every host, with its disk; for the end of a test only."""
        for name in self.lab.spec.hosts:
            if not self.lab.host(name).is_up or self.lab.host(name).libvirtd_pid is None:
                continue
            with contextlib.closing(self.lab.host(name).connect()) as conn:
                _remove_domain(conn, self.uuid)
                for pool in ("shared", "local"):
                    _remove_volumes(conn, pool, f"{self.name}.")
                for _, volume in self.disks.values():
                    remove_device(self.lab.host(name), volume)
            self.console(name).unlink(missing_ok=True)
        for pool, volume in self.disks.values():
            if pool == NFS:
                (self.lab.store.root / NFS_PATH.lstrip("/") / volume).unlink(missing_ok=True)


def _first_disk(xml: str) -> str:
    """The file or device that a definition names first."""
    return re.split(r"<source (?:file|dev)='", xml, maxsplit=1)[1].split("'", 1)[0]


def _has_run(domain: libvirt.virDomain) -> bool:
    """Whether its CPUs have used any time, as the kernel counts it."""
    ((_, stats),) = domain.connect().domainListGetStats([domain], libvirt.VIR_DOMAIN_STATS_VCPU)
    return any(value for key, value in stats.items() if key.startswith("vcpu.") and key.endswith(".time"))


def _remove_domain(conn: libvirt.virConnect, uuid: str) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        domain = conn.lookupByUUIDString(uuid)
        if domain.isActive():
            domain.destroy()
        if domain.isPersistent():
            domain.undefineFlags(UNDEFINE)


def _volume_names(conn: libvirt.virConnect, pool: str, prefix: str) -> list[str]:
    found = conn.storagePoolLookupByName(pool)
    found.refresh(0)
    return [volume.name() for volume in found.listAllVolumes() if volume.name().startswith(prefix)]


def _remove_volumes(conn: libvirt.virConnect, pool: str, prefix: str) -> None:
    """Its first disk, and all that migrations have made of it."""
    with contextlib.suppress(libvirt.libvirtError):
        found = conn.storagePoolLookupByName(pool)
        found.refresh(0)
        for name in _volume_names(conn, pool, prefix):
            found.storageVolLookupByName(name).delete(0)


def _cmdline(guest: Guest) -> str:
    options = guest.options
    words = ["console=ttyS0", "quiet", "mitigations=off", "no_timer_check", "nokaslr", "tsc=reliable", "panic=-1"]
    words += [
        f"vm.tick_us={options.tick_ms * 1000}",
        f"vm.fill_mib={options.fill_mib}",
        f"vm.dirty_mib_s={options.dirty_mib_s}",
    ]
    words += [f"vm.write_kib_s={options.write_kib_s}", f"vm.write_stop={options.write_stop}"]
    words += [f"vm.poweroff_s={options.poweroff_s}", f"vm.agent={int(options.agent)}"]
    words += [f"vm.button={options.button_ms}"] if options.button_ms else []
    words += [f"vm.agent_s={options.agent_s}"]
    return " ".join(words + ([f"vm.ip={guest.address}"] if guest.address else []))


def _xml(guest: Guest) -> str:
    options, devices = guest.options, []
    for target, (pool, volume) in guest.disks.items():
        type_, source = _source(pool, f"{POOL_PATHS[pool]}/{volume}")
        devices.append(
            f"<disk type='{type_}' device='disk'><driver name='qemu' type='{options.disk_format}' cache='none'/>"
            f"{source}<target dev='{target}' bus='virtio'/></disk>"
        )
    if options.network:
        devices.append("<interface type='network'><source network='lab'/><model type='virtio'/></interface>")
    if options.agent:
        devices.append(
            "<channel type='unix'><source mode='bind'/><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
        )
    boot = f"<kernel>{guest.lab.image}/vmlinuz</kernel><initrd>{guest.lab.image}/initrd</initrd>"
    boot += f"<cmdline>{quoteattr(_cmdline(guest))[1:-1]}</cmdline>{options.os_xml}"
    return f"""<domain type='{guest.lab.virt_type}'><name>{guest.name}</name><uuid>{guest.uuid}</uuid>
<memory unit='MiB'>{options.memory_mib}</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type>{boot}</os>
<features><acpi/></features><cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model></cpu>
<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{"".join(devices)}
<serial type='file'><source path='{CONSOLES}/{guest.name}.console' append='on'/><target port='0'/></serial>
<memballoon model='none'/>{options.extra_xml}</devices></domain>"""


def _source(pool: str, path: str) -> tuple[str, str]:
    """Type and source of a disk."""
    if pool == NFS:
        return "network", f"<source protocol='nfs' name='{path}'><host name='{STORE_ADDRESS}'/></source>"
    if pool in (DEVICES, LOGICAL):
        return "block", f"<source dev='{path}'/>"
    return "file", f"<source file='{path}'/>"


def guest_address(number: int) -> str:
    """Address of the lab's n-th guest."""
    return f"10.88.{7 + number // 250}.{1 + number % 250}"
