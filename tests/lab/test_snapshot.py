"""The comparison that rollback is judged by sees every kind of thing that a migration could leave behind."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import libvirt
import pytest

from tests.lab import Lab, snapshot
from tests.lab.host import Host
from tests.lab.shell import until
from tests.lab.snapshot import differences

pytestmark = pytest.mark.lab

UUID = "7d1c0f6e-0000-4000-8000-0000000000b1"
DOMAIN = (
    f"<domain type='qemu'><name>seen</name><uuid>{UUID}</uuid><memory>{{}}</memory><os><type>hvm</type></os></domain>"
)
SECRET = f"<secret><uuid>{UUID}</uuid><usage type='ceph'><name>seen</name></usage></secret>"
POOL = (
    f"<pool type='dir'><name>seen</name><uuid>{UUID}</uuid><target><path>/var/lib/libvirt/seen</path></target></pool>"
)
NETWORK = f"<network><name>seen</name><uuid>{UUID}</uuid><bridge name='{{}}'/></network>"
NAMES = {"var/lib/libvirt/qemu/nvram/seen_VARS.fd", f"var/lib/libvirt/swtpm/{UUID}/tpm2/tpm2-00.permall"}
NAMES |= {"var/lib/libvirt/qemu/save/seen.save"}


@contextmanager
def _domain(conn: libvirt.virConnect, host: Host) -> Iterator[Callable[[], object]]:
    conn.defineXML(DOMAIN.format(32768))
    yield lambda: conn.defineXML(DOMAIN.format(65536))
    conn.lookupByName("seen").undefine()


@contextmanager
def _autostart(conn: libvirt.virConnect, host: Host) -> Iterator[Callable[[], object]]:
    domain = conn.defineXML(DOMAIN.format(32768))
    yield lambda: domain.setAutostart(1)
    domain.undefine()


@contextmanager
def _secret(conn: libvirt.virConnect, host: Host) -> Iterator[Callable[[], object]]:
    secret = conn.secretDefineXML(SECRET)
    yield lambda: secret.setValue(b"another")
    secret.undefine()


@contextmanager
def _network(conn: libvirt.virConnect, host: Host) -> Iterator[Callable[[], object]]:
    conn.networkDefineXML(NETWORK.format("seen0"))
    yield lambda: conn.networkDefineXML(NETWORK.format("seen1"))
    conn.networkLookupByName("seen").undefine()


@contextmanager
def _pool(conn: libvirt.virConnect, host: Host) -> Iterator[Callable[[], object]]:
    conn.storagePoolDefineXML(POOL)
    yield lambda: conn.storagePoolDefineXML(POOL.replace("libvirt/seen", "libvirt/elsewhere"))
    conn.storagePoolLookupByName("seen").undefine()


@contextmanager
def _volume(conn: libvirt.virConnect, host: Host) -> Iterator[Callable[[], object]]:
    pool = conn.storagePoolLookupByName("local")
    volume = pool.createXML("<volume><name>seen</name><capacity unit='MiB'>1</capacity></volume>")
    yield lambda: volume.resize(2 << 20)
    volume.delete()


@contextmanager
def _contents(conn: libvirt.virConnect, host: Host) -> Iterator[Callable[[], object]]:
    pool = conn.storagePoolLookupByName("local")
    volume = pool.createXML("<volume><name>seen</name><capacity unit='MiB'>1</capacity></volume>")
    yield lambda: _write(host.root / volume.path().lstrip("/"))
    volume.delete()


def _write(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.write(b"x")


def _file(name: str) -> Callable[[libvirt.virConnect, Host], AbstractContextManager[Callable[[], object]]]:
    @contextmanager
    def make(conn: libvirt.virConnect, host: Host) -> Iterator[Callable[[], object]]:
        file = host.root / name
        made = (
            next(parent for parent in reversed(file.parents) if not parent.exists())
            if not file.parent.exists()
            else file
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"one")
        yield lambda: file.write_bytes(b"two")
        if made.is_dir():
            shutil.rmtree(made)
        else:
            file.unlink()

    return make


@contextmanager
def _listener(conn: libvirt.virConnect, host: Host) -> Iterator[Callable[[], object]]:
    code = "import socket, time; s = socket.create_server(('', 5986)); print(1, flush=True); time.sleep(60)"
    log, pids = host.root / "seen.log", list[int]()

    def start() -> None:
        pids.append(host.start_daemon([sys.executable, "-c", code], log))
        until(lambda: log.read_text().strip() == "1", 5, "it does not listen")

    yield start
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


CHANGES = {
    "domain": _domain,
    "autostart": _autostart,
    "secret": _secret,
    "network": _network,
    "pool": _pool,
    "volume": _volume,
    "contents": _contents,
    "listening": _listener,
    **{Path(name).suffix: _file(name) for name in sorted(NAMES)},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_seen(
    lab: Lab, change: Callable[[libvirt.virConnect, Host], AbstractContextManager[Callable[[], object]]]
) -> None:
    """That the thing is there at all, and that it is another one than before."""
    host = lab.host("beta")
    (host.root / "etc/libvirt/qemu/autostart").mkdir(exist_ok=True)  # libvirt makes it once, and keeps it
    with closing(host.connect()) as conn:
        before = snapshot(lab, "beta")
        with change(conn, host) as alter:
            there = snapshot(lab, "beta")
            alter()
            altered = snapshot(lab, "beta")
        assert differences(there, altered) != []
        assert change is _listener or differences(before, there) != []
        assert differences(before, altered) != []
        until(lambda: not differences(before, snapshot(lab, "beta")), 5, "it is not as it was")
