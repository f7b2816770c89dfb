"""Faults as context managers: each is over when its block ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.lab.guest import Guest
from tests.lab.host import Host
from tests.lab.shell import LabError, run


@contextmanager
def link_down(host: Host) -> Iterator[None]:
    """The host's cable is unplugged at the hub: packets vanish, connections hang."""
    hub, cable = host.spec.netns("hub"), host.spec.veth(host.name)
    run("ip", "-n", hub, "link", "set", cable, "nomaster")
    try:
        yield
    finally:
        run("ip", "-n", hub, "link", "set", cable, "master", "br0")


@contextmanager
def link_shaped(host: Host, mbit: int) -> Iterator[None]:
    """What the host sends is limited, Mbit/s (10^6 bits)."""
    device = ["tc", "qdisc", "{verb}", "dev", "eth0", "root"]
    host.run(
        [word.format(verb="replace") for word in device]
        + ["tbf", "rate", f"{mbit}mbit", "burst", "128kb", "latency", "50ms"]
    )
    try:
        yield
    finally:
        host.run([word.format(verb="del") for word in device])


@contextmanager
def libvirtd_killed(host: Host) -> Iterator[None]:
    """The daemon is killed hard; its guests go on. Started again at the end."""
    host.stop_libvirtd()
    try:
        yield
    finally:
        host.start_libvirtd()


@contextmanager
def libvirtd_frozen(host: Host) -> Iterator[None]:
    """The daemon hangs: connections are accepted by the kernel, nothing answers."""
    pid = host.libvirtd_pid
    if pid is None:
        raise LabError(f"libvirtd of {host.name} does not run")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
        # nsenter, the daemon's parent, stops itself together with its child and has to be woken as well.
        os.kill(_parent(pid), signal.SIGCONT)


@contextmanager
def pool_inactive(host: Host, pool: str) -> Iterator[None]:
    """The host's libvirt has the pool stopped."""
    host.virsh("pool-destroy", pool)
    try:
        yield
    finally:
        host.virsh("pool-start", pool)


@contextmanager
def pool_gone(host: Host, pool: str) -> Iterator[str]:
    """The host has neither the pool nor its directory; yields the definition that it had.

    Whatever has come in its place is taken away at the end.
    """
    xml = host.virsh("pool-dumpxml", pool, "--inactive")
    target = xml.partition("<path>")[2].partition("</path>")[0]
    _remove_pool(host, pool, target)
    try:
        yield xml
    finally:
        _remove_pool(host, pool, target)
        _redefine_pool(host, xml)
        host.virsh("pool-start", pool)
        host.virsh("pool-autostart", pool)


def _remove_pool(host: Host, pool: str, target: str) -> None:
    host.virsh("pool-destroy", pool, check=False)
    host.virsh("pool-undefine", pool, check=False)
    host.run(["rmdir", target], check=False)


@contextmanager
def small_pool(host: Host, name: str, mib: int) -> Iterator[Path]:
    """A directory pool on a file system of its own; yields its directory as seen from outside."""
    image, inside = host.root / f"{name}.ext4", f"/var/lib/libvirt/{name}"
    with image.open("wb") as file:
        file.truncate(mib << 20)
    run("mkfs.ext4", "-q", "-m", "0", str(image))
    host.run(["mkdir", "-p", inside])
    host.run(["mount", "-o", "loop", str(image), inside])
    try:
        host.virsh("pool-create-as", name, "dir", "--target", inside)
        yield Path(f"/proc/{host.pid}/root{inside}")
        host.virsh("pool-destroy", name)
    finally:
        host.run(["umount", "--lazy", inside])
        image.unlink()


@contextmanager
def disk_full(folder: Path, leave_mib: int) -> Iterator[None]:
    """A file system has no more than so much space left."""
    seen = os.statvfs(folder)
    filler = folder / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, seen.f_bavail * seen.f_frsize - (leave_mib << 20)))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def pool_elsewhere(host: Host, pool: str, path: str) -> Iterator[None]:
    """The host has the pool's export mounted at another place."""
    xml = host.virsh("pool-dumpxml", pool, "--inactive")
    host.virsh("pool-destroy", pool)
    _redefine_pool(host, _with_target(xml, path))
    host.virsh("pool-start", pool)
    try:
        yield
    finally:
        host.virsh("pool-destroy", pool)
        _redefine_pool(host, xml)
        host.virsh("pool-start", pool)


def _with_target(xml: str, path: str) -> str:
    before, _, rest = xml.partition("<path>")
    return f"{before}<path>{path}{rest[rest.index('</path>') :]}"


def _redefine_pool(host: Host, xml: str) -> None:
    with closing(host.connect()) as conn:
        Path(host.root / "pool.xml").write_text(xml)
        conn.storagePoolDefineXML(xml).build(0)


@contextmanager
def migration_ports_swallowed(host: Host) -> Iterator[None]:
    """What the host's migration ports answer is dropped on its way out: whoever connects waits for ever."""
    rule = ["priority", "100", "ipproto", "tcp", "sport", "49152-49215", "blackhole"]
    host.run(["ip", "rule", "add", *rule])
    try:
        yield
    finally:
        host.run(["ip", "rule", "del", *rule])


@contextmanager
def migration_ports_unreachable(host: Host, peer: Host) -> Iterator[None]:
    """The host is told at once that the peer's migration ports cannot be reached, as a rejecting firewall does."""
    rule = ["priority", "100", "to", peer.address, "ipproto", "tcp", "dport", "49152-49215", "unreachable"]
    host.run(["ip", "rule", "add", *rule])
    try:
        yield
    finally:
        host.run(["ip", "rule", "del", *rule])


@contextmanager
def peers_unknown(host: Host) -> Iterator[None]:
    """The host's root has lost its list of known hosts."""
    known = host.root / "root/.ssh/known_hosts"
    before = known.read_text()
    known.write_text("")
    try:
        yield
    finally:
        known.write_text(before)


@contextmanager
def key_missing(host: Host) -> Iterator[None]:
    """The host's root has no SSH key."""
    key = host.root / "root/.ssh/id_ed25519"
    away = key.with_name("away")
    key.rename(away)
    try:
        yield
    finally:
        away.rename(key)


def kill_qemu(host: Host, guest: Guest) -> None:
    """The guest's QEMU on one host dies hard. Nothing brings it back."""
    with closing(host.connect()) as conn:
        conn.lookupByUUIDString(guest.uuid)  # must exist here
    inside = int(host.run(["cat", f"/run/libvirt/qemu/{guest.name}.pid"]).strip())
    os.kill(_outside(host, inside), signal.SIGKILL)


def _outside(host: Host, inside: int) -> int:
    """A pid of the host's PID namespace as seen from here."""
    namespace = Path(f"/proc/{host.pid}/ns/pid").readlink()
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if (status.parent / "ns/pid").readlink() != namespace:
                continue
            numbers = next(line for line in status.read_text().splitlines() if line.startswith("NSpid:")).split()
        except (OSError, StopIteration):
            continue
        if int(numbers[-1]) == inside:
            return int(numbers[1])
    raise LabError(f"no process {inside} on {host.name}")


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
