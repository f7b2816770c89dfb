"""Everything that a host has, read without the product's code, so that before and after can be compared.

Left out is what changes by itself: logs, caches, free space, and what is in the files of VMs that run; and the empty
element that libvirt leaves where metadata were.
"""

from __future__ import annotations

import hashlib
import re
import stat
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import libvirt

from tests.lab.host import Host

if TYPE_CHECKING:
    from tests.lab.lab import Lab

FOLDERS = ("etc/libvirt", "var/lib/libvirt")
PASSING = {"ps", "sleep", "bash", "nsenter", "ssh", "sshd", "sshd-session", "virsh", "nc"}
"""What the lab itself runs for a moment, and what serves a connection."""
NO_METADATA = re.compile(r"\s*<metadata/>")
NUMBER = re.compile(r" index='[0-9]+'(?=/>|>)")
"""libvirt numbers what QEMU has open anew each time."""
MEASURED = re.compile(r"\s*<(capacity|allocation|available) [^>]*>[0-9]*</\1>")
LISTENING = "0A"
SETTLING_S = 5.0

Snapshot = dict[str, Any]
"""What it is -> everything about it that can be compared."""


def snapshot(lab: Lab, *hosts: str) -> Snapshot:
    """All hosts, or the named ones."""
    seen: Snapshot = {}
    busy = _definitions_of_active(lab)
    for name in hosts or lab.spec.hosts:
        host = lab.host(name)
        with closing(host.connect()) as conn:
            items = [*_domains(conn), *_pools(host, conn, busy), *_networks(conn), *_secrets(conn)]
        items += [*_files(host, busy), *_mounts(host), *_running(host)]
        seen |= {f"{name}: {what}": value for what, value in items}
    return seen


def check_unchanged(lab: Lab, before: Snapshot, *hosts: str) -> None:
    """Fail with what differs. Programs that end by themselves are given a moment."""
    end = time.monotonic() + SETTLING_S
    while (differing := differences(before, snapshot(lab, *hosts))) and time.monotonic() < end:
        time.sleep(0.2)
    assert not differing, "\n".join(differing)


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """What is not as it was, one line each, with both values."""
    return [
        f"{what}\n  before: {before.get(what, 'not there')!r}\n  after:  {after.get(what, 'not there')!r}"
        for what in sorted(before.keys() | after.keys())
        if before.get(what) != after.get(what)
    ]


def _domains(conn: libvirt.virConnect) -> Iterator[tuple[str, Any]]:
    for domain in conn.listAllDomains():
        persistent = bool(domain.isPersistent())
        flags = (domain.isActive(), persistent, persistent and domain.autostart())
        kept = (domain.hasManagedSaveImage(), sorted(domain.snapshotListNames()))
        xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
        live = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE) if domain.isActive() else ""
        xmls = [NUMBER.sub("", NO_METADATA.sub("", text)) for text in (xml, live)]
        yield f"domain {domain.UUIDString()}", (domain.name(), domain.state(), flags, kept, *xmls)


def _pools(host: Host, conn: libvirt.virConnect, busy: str) -> Iterator[tuple[str, Any]]:
    for pool in conn.listAllStoragePools():
        active, persistent = bool(pool.isActive()), bool(pool.isPersistent())
        if active:
            pool.refresh(0)
        xml = MEASURED.sub("", pool.XMLDesc(libvirt.VIR_STORAGE_XML_INACTIVE if persistent else 0))
        yield f"pool {pool.name()}", (pool.UUIDString(), active, persistent, persistent and pool.autostart(), xml)
        for volume in pool.listAllVolumes() if active else ():
            kind, capacity, _ = volume.info()
            file = Path(f"/proc/{host.pid}/root{volume.path()}")
            yield f"volume {pool.name()}/{volume.name()}", (volume.path(), kind, capacity, _digest(file, busy))


def _networks(conn: libvirt.virConnect) -> Iterator[tuple[str, Any]]:
    for network in conn.listAllNetworks():
        persistent = bool(network.isPersistent())
        flags = (network.isActive(), persistent, persistent and network.autostart())
        yield f"network {network.name()}", (network.UUIDString(), flags, network.XMLDesc())
    for filter_ in conn.listAllNWFilters():
        yield f"nwfilter {filter_.name()}", filter_.XMLDesc()


def _secrets(conn: libvirt.virConnect) -> Iterator[tuple[str, Any]]:
    for secret in conn.listAllSecrets():
        try:
            value = secret.value()
        except libvirt.libvirtError:
            value = None  # private, or without a value
        yield f"secret {secret.UUIDString()}", (secret.XMLDesc(), value)


def _files(host: Host, busy: str) -> Iterator[tuple[str, Any]]:
    """What is in the host's own folders, below whatever it has mounted there."""
    for folder in FOLDERS:
        for path in sorted((host.root / folder).rglob("*")):
            try:
                seen = path.lstat()
            except FileNotFoundError:
                continue
            if stat.S_ISSOCK(seen.st_mode):
                continue
            what = path.readlink() if path.is_symlink() else _contents(path, busy)
            yield f"file /{path.relative_to(host.root)}", (oct(seen.st_mode), seen.st_uid, seen.st_gid, what)


def _mounts(host: Host) -> Iterator[tuple[str, Any]]:
    for line in Path(f"/proc/{host.pid}/mounts").read_text().splitlines():
        device, place, kind = line.split()[:3]
        if kind != "nsfs":  # namespaces of other labs
            yield f"mount {place}", (device, kind)


def _running(host: Host) -> Iterator[tuple[str, Any]]:
    names = host.run(["ps", "-eo", "comm="]).split()
    yield "programs", sorted(Counter(name for name in names if name not in PASSING).items())
    ports = set()
    for table in ("tcp", "tcp6"):
        lines = Path(f"/proc/{host.pid}/net/{table}").read_text().splitlines()[1:]
        ports |= {line.split()[1] for line in lines if line.split()[3] == LISTENING}
    yield "listening", sorted(ports)


def _definitions_of_active(lab: Lab) -> str:
    """The running VMs of all hosts: what they name changes while one looks."""
    texts = []
    for name in lab.spec.hosts:
        with closing(lab.host(name).connect()) as conn:
            texts += [d.XMLDesc() for d in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)]
    return "\n".join(texts)


def _contents(path: Path, busy: str) -> str:
    return NO_METADATA.sub("", path.read_text()) if path.suffix == ".xml" else _digest(path, busy)


def _digest(path: Path, busy: str) -> str:
    if not path.is_file():
        return "no file"
    if f"/{path.name}'" in busy:
        return "in use"
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return f"{path.stat().st_size} {digest.hexdigest()}"
