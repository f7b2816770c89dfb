"""What the contract tests arrange before they call the port: on the fake in memory, on the lab with virsh."""

from __future__ import annotations

import os
import subprocess
import threading
import time
import uuid as uuid_module
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from tasks.hypervisor.adapter import LibvirtHypervisor
from tasks.hypervisor.address import HostAddress
from tasks.model.disks import Volume
from tasks.model.domain import DomainState, Mark
from tasks.model.host import Pool
from tasks.model.ports import Hypervisor, TransferOrder
from tasks.planning.mark_xml import with_mark
from tests.contract.busy_guest import busy_disk
from tests.fakes.domain import PAUSED_USER, SHUTOFF_SHUTDOWN
from tests.fakes.hypervisor import FakeHypervisor, domain_xml

BLOCK = 64 * 1024
GONE = "gone"
"""A host of the inventory that never answers."""


LAB_DOMAIN = """<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='KiB'>65536</memory>
<vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type><boot dev='fd'/></os><devices>
<disk type='file' device='floppy'><driver name='qemu' type='raw'/><source file='{floppy}'/>
<target dev='fda' bus='fdc'/><readonly/></disk>
<controller type='usb' model='none'/><memballoon model='none'/>{inside}</devices></domain>"""
SNAPSHOT = """<domainsnapshot><name>one</name><state>shutoff</state><creationTime>1700000000</creationTime>
{xml}</domainsnapshot>"""


def new_identity() -> tuple[str, str]:
    """A name and a UUID that no other test uses."""
    uuid = str(uuid_module.uuid4())
    return f"contract-{uuid[:8]}", uuid


class Rig(Protocol):
    """Two hosts under test, and what is done to them behind the port's back."""

    hypervisor: Hypervisor
    source: str
    destination: str

    def xml(self, name: str, uuid: str, inside: str = "") -> str:
        """A definition that both hosts can run."""

    def make(
        self, host: str, *, running: bool, persistent: bool = True, mark: Mark | None = None, inside: str = ""
    ) -> str:
        """A domain with a new name; returns its UUID. When it runs, it changes its memory all the time."""

    def suspend(self, host: str, uuid: str) -> None:
        """An operator pauses the guest."""

    def make_deaf(self, uuid: str) -> None:
        """The guest does not shut down when it is asked."""

    def let_run(self, host: str, uuid: str) -> None:
        """Wait until a running guest has used a CPU for long enough to be counted."""

    def make_snapshot(self, host: str, uuid: str) -> None:
        """An operator takes a snapshot."""

    def make_managed_save(self, host: str, uuid: str) -> None:
        """An operator saves the running guest, which shuts it off."""

    def make_pool(self, host: str) -> Path:
        """An active directory pool, as its directory."""

    def put_directory(self, host: str, path: Path) -> None:
        """There is a directory that no pool shows."""

    def unreadable(self, host: str, path: Path) -> AbstractContextManager[None]:
        """Meanwhile the directory of a pool cannot be read."""

    def unreadable_for_a_moment(self, host: str, path: Path) -> AbstractContextManager[None]:
        """Until a quarter of a second has passed."""

    def put_file(self, host: str, path: Path) -> None:
        """A file appears behind libvirt's back."""

    def remove_file(self, host: str, path: Path) -> None:
        """And goes again."""

    def write_file(self, host: str, path: Path, contents: bytes) -> None:
        """A file has these contents, behind libvirt's back; zeros are holes where a file can have some."""

    def read_file(self, host: str, path: Path) -> bytes:
        """What is in a file."""

    def without_end(self, order: TransferOrder) -> TransferOrder:
        """The order, so that its transfer lasts until it is aborted."""

    def make_big(self) -> str:
        """A guest that runs on the source, and changes so much memory that sending it takes seconds."""

    def big_without_end(self, order: TransferOrder) -> TransferOrder:
        """The same for a big guest, over the slow link, so that all of its memory is soon sent once."""

    def wait_sent_once(self, uuid: str) -> None:
        """Until all of a guest's memory was sent once."""

    def wait_warm(self, uuid: str) -> None:
        """Until a guest in post-copy has what it needs all the time: emulation that waits for a page while it handles
        an interrupt answers nobody."""

    def let_end(self) -> None:
        """What lasted without an end may come to one; post-copy does so by itself."""

    def slow_link(self) -> AbstractContextManager[None]:
        """What the source sends takes its time."""

    def close(self) -> None:
        """Remove everything that was made."""


class FakeRig:
    """On the fake."""

    source = "alpha"
    destination = "beta"

    def __init__(self) -> None:
        self._fake = FakeHypervisor("alpha", "beta", GONE)
        self._fake.hosts[GONE].reachable = False
        self.hypervisor: Hypervisor = self._fake
        self._exits: list[Callable[[], object]] = []

    def xml(self, name: str, uuid: str, inside: str = "") -> str:
        return domain_xml(name, uuid, inside=inside)

    def make(
        self, host: str, *, running: bool, persistent: bool = True, mark: Mark | None = None, inside: str = ""
    ) -> str:
        name, uuid = new_identity()
        xml = self.xml(name, uuid, inside)
        xml = xml if mark is None else with_mark(xml, mark)
        self._fake.add_domain(host, xml, running=running, persistent=persistent)
        return uuid

    def suspend(self, host: str, uuid: str) -> None:
        domain = self._fake.hosts[host].domains[uuid]
        domain.state, domain.reason = DomainState.PAUSED, PAUSED_USER

    def make_deaf(self, uuid: str) -> None:
        self._fake.deaf.add(uuid)

    def let_run(self, host: str, uuid: str) -> None:
        assert self._fake.hosts[host].domains[uuid].state is DomainState.RUNNING

    def make_snapshot(self, host: str, uuid: str) -> None:
        self._fake.hosts[host].domains[uuid].snapshots += 1

    def make_managed_save(self, host: str, uuid: str) -> None:
        domain = self._fake.hosts[host].domains[uuid]
        domain.state, domain.reason, domain.managed_save = DomainState.SHUTOFF, SHUTOFF_SHUTDOWN, True

    def make_pool(self, host: str) -> Path:
        there = self._fake.hosts[host]
        there.facts = replace(there.facts, pools=(Pool("images", "dir", active=True, target="/images"),))
        return Path("/images")

    def put_directory(self, host: str, path: Path) -> None:
        self._fake.hosts[host].shelves.directories.add(str(path))

    @contextmanager
    def unreadable(self, host: str, path: Path) -> Iterator[None]:
        shelves = self._fake.hosts[host].shelves
        shelves.unreadable.add(str(path))
        yield
        shelves.unreadable.remove(str(path))

    def unreadable_for_a_moment(self, host: str, path: Path) -> AbstractContextManager[None]:  # noqa: ARG002
        return nullcontext()  # no time passes here

    def put_file(self, host: str, path: Path) -> None:
        self._fake.hosts[host].files.add(str(path))
        self.write_file(host, path, bytes(512))

    def remove_file(self, host: str, path: Path) -> None:
        self._fake.hosts[host].files.remove(str(path))
        del self._fake.hosts[host].volumes["images"][path.name]

    def write_file(self, host: str, path: Path, contents: bytes) -> None:
        there, size = self._fake.hosts[host], len(contents)
        there.volumes.setdefault("images", {})[path.name] = Volume(path.name, str(path), size, size, "raw", size)
        there.contents[str(path)] = bytearray(contents)

    def read_file(self, host: str, path: Path) -> bytes:
        return bytes(self._fake.hosts[host].contents[str(path)])

    def without_end(self, order: TransferOrder) -> TransferOrder:
        held = self._fake.transfers_held()
        held.__enter__()
        self._exits.append(lambda: held.__exit__(None, None, None))
        return order

    def make_big(self) -> str:
        return self.make(self.source, running=True)

    def big_without_end(self, order: TransferOrder) -> TransferOrder:
        return self.without_end(order)

    def wait_sent_once(self, uuid: str) -> None:
        pass

    def wait_warm(self, uuid: str) -> None:
        pass

    def let_end(self) -> None:
        while self._exits:
            self._exits.pop()()

    def slow_link(self) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None:
        self.let_end()


class LibvirtRig:
    """On two real hosts, arranged with virsh; domains are diskless but for a read-only floppy."""

    def __init__(
        self,
        hosts: Mapping[str, HostAddress],
        folder: Path,
        *,
        slow_link: Callable[[], AbstractContextManager[None]] = nullcontext,
        make_big: Callable[[], str] = str,
    ) -> None:
        self._slow_link, self._make_big = slow_link, make_big
        self.source, self.destination = list(hosts)[:2]
        gone = HostAddress("qemu+tcp://127.0.0.1:1/system")
        self.hypervisor: Hypervisor = LibvirtHypervisor({**hosts, GONE: gone}, connect_timeout_s=10)
        self._folder = folder
        self._uris = {name: address.uri for name, address in hosts.items()}
        self._made: list[str] = []
        self._pools: list[str] = []
        self._floppy = busy_disk(folder / "busy.img")

    def xml(self, name: str, uuid: str, inside: str = "") -> str:
        return LAB_DOMAIN.format(name=name, uuid=uuid, floppy=self._floppy, inside=inside)

    def make(
        self, host: str, *, running: bool, persistent: bool = True, mark: Mark | None = None, inside: str = ""
    ) -> str:
        name, uuid = new_identity()
        self._made.append(uuid)
        path = self._folder / f"{name}.xml"
        xml = self.xml(name, uuid, inside)
        path.write_text(xml if mark is None else with_mark(xml, mark), encoding="utf-8")
        if persistent:
            self._virsh(host, "define", str(path))
        if running:
            self._virsh(host, *(("start", name) if persistent else ("create", str(path))))
        return uuid

    def suspend(self, host: str, uuid: str) -> None:
        self._virsh(host, "suspend", uuid)

    def make_deaf(self, uuid: str) -> None:
        """It has no system that could hear."""

    def let_run(self, host: str, uuid: str) -> None:
        until = time.monotonic() + 20
        while "vcpu.0.time=0" in self._virsh(host, "domstats", "--vcpu", uuid).split():
            assert time.monotonic() < until, "the guest gets no time to run"
            time.sleep(0.05)

    def make_snapshot(self, host: str, uuid: str) -> None:
        path = self._folder / "snapshot.xml"
        # Metadata alone: the guest has no disk to keep a snapshot in.
        path.write_text(SNAPSHOT.format(xml=self._virsh(host, "dumpxml", "--inactive", uuid)), encoding="utf-8")
        self._virsh(host, "snapshot-create", uuid, str(path), "--redefine")

    def make_managed_save(self, host: str, uuid: str) -> None:
        self._virsh(host, "managedsave", uuid)

    def make_pool(self, host: str) -> Path:
        name = f"pool-{uuid_module.uuid4().hex[:8]}"
        folder = self._folder / name
        folder.mkdir()
        self._virsh(host, "pool-create-as", name, "dir", "--target", str(folder))
        self._pools.append(name)
        return folder

    def put_directory(self, host: str, path: Path) -> None:  # noqa: ARG002 - both hosts see the folder
        path.mkdir(exist_ok=True)

    @contextmanager
    def unreadable(self, host: str, path: Path) -> Iterator[None]:  # noqa: ARG002
        away = path.rename(path.with_name(f"{path.name}.away"))
        yield
        away.rename(path)

    @contextmanager
    def unreadable_for_a_moment(self, host: str, path: Path) -> Iterator[None]:  # noqa: ARG002
        away = path.rename(path.with_name(f"{path.name}.away"))
        back = threading.Timer(0.25, lambda: away.rename(path))
        back.start()
        yield
        back.join()

    def put_file(self, host: str, path: Path) -> None:  # noqa: ARG002 - both hosts see the folder
        path.write_bytes(b"\0" * 512)

    def remove_file(self, host: str, path: Path) -> None:  # noqa: ARG002
        path.unlink()

    def write_file(self, host: str, path: Path, contents: bytes) -> None:  # noqa: ARG002
        with path.open("wb") as file:
            file.truncate(len(contents))
            for start in range(0, len(contents), BLOCK):
                if any(block := contents[start : start + BLOCK]):
                    os.pwrite(file.fileno(), block, start)

    def read_file(self, host: str, path: Path) -> bytes:  # noqa: ARG002
        return path.read_bytes()

    def without_end(self, order: TransferOrder) -> TransferOrder:
        # The guest rewrites its memory much faster than one MiB a second.
        time.sleep(1.0)
        return replace(order, bandwidth_mib_s=1, max_downtime_ms=1)

    def make_big(self) -> str:
        return self._make_big()

    def big_without_end(self, order: TransferOrder) -> TransferOrder:
        return replace(order, max_downtime_ms=1)

    def wait_sent_once(self, uuid: str) -> None:
        until = time.monotonic() + 60
        while self.hypervisor.fetch_job(self.source, uuid).memory_iteration < 2:
            assert time.monotonic() < until
            time.sleep(0.1)

    def wait_warm(self, uuid: str) -> None:  # noqa: ARG002
        time.sleep(3)

    def let_end(self) -> None:
        pass

    def slow_link(self) -> AbstractContextManager[None]:
        return self._slow_link()

    def close(self) -> None:
        self.hypervisor.close()
        for uuid in self._made:
            for host in (self.source, self.destination):
                for command in (("destroy", uuid), ("undefine", uuid, "--managed-save", "--snapshots-metadata")):
                    self._try(host, *command)
        for name in self._pools:
            for host in (self.source, self.destination):
                self._try(host, "pool-destroy", name)

    def _virsh(self, host: str, *arguments: str) -> str:
        command = ["virsh", "-q", "-c", self._uris[host], *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    def _try(self, host: str, *arguments: str) -> None:
        try:
            self._virsh(host, *arguments)
        except subprocess.CalledProcessError:
            pass  # not there any more, or never
