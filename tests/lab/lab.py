"""The lab: bring it up, take it down, find things in it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import libvirt

from tests.lab.devices import detach_loops
from tests.lab.guest import Guest, GuestOptions, guest_address
from tests.lab.host import Host
from tests.lab.image import build_image, choose_accelerator, image_folder, virt_type
from tests.lab.node import Node
from tests.lab.shell import LabError, LabUnavailable, recall, remember, run
from tests.lab.spec import HOSTS, HUB_ADDRESS, STORE_ADDRESS, Spec
from tests.lab.ssh import make_keys
from tests.lab.store import Store

CLONE_NEWNET = 0x40000000
PROGRAMS = ("ip", "unshare", "nsenter", "libvirtd", "qemu-system-x86_64", "qemu-img", "glusterd", "sshd", "gcc", "cpio")


@dataclass(frozen=True, slots=True)
class DomainSnapshot:
    """One domain on one host, read without the product's code."""

    state: int
    reason: int
    active: bool
    persistent: bool
    autostart: bool
    metadata: str
    """The metadata of the live and of the inactive definition."""
    xml: str
    """The inactive definition."""


class Lab:
    """Hosts in namespaces, a hub that reaches them all, and a storage server."""

    SPEC: ClassVar[type[Spec]] = Spec
    HOST: ClassVar[type[Host]] = Host
    STORE: ClassVar[type[Store]] = Store
    COMMAND: ClassVar[str] = "python -m tests.lab"

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._hosts = {name: self.HOST(spec, name, spec.address(name)) for name in spec.hosts}
        self._store = self.STORE(spec, spec.store, STORE_ADDRESS)

    # -- up and down --------------------------------------------------------------------------------------------------

    @classmethod
    def up(cls, name: str = "lab", hosts: Sequence[str] = (), *, owner: int | None = None) -> Self:
        """Bring a lab up; what is up already stays, what an earlier run left half done is made anew.

        No hosts named: all that it can have. Labs whose owner, a process, has died without doing so are taken down.

        Raises:
            LabUnavailable: this machine cannot have one.
            LabError: something did not start.
        """
        cls._check_machine()
        cls.sweep()
        if owner is not None:
            file = cls._owner_file(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            remember(owner, file)
        spec = cls.SPEC(name, tuple(hosts)) if hosts else cls.SPEC(name)
        spec.folder.mkdir(parents=True, exist_ok=True)
        lab = cls(spec)
        with lab._locked():
            lab._build()
            if not lab.is_up:
                lab._take_down()
                spec.folder.mkdir(parents=True, exist_ok=True)
                lab._make()
                lab._hosts_file.write_text(" ".join(spec.hosts))
            lab._start()
        return lab

    @classmethod
    def attach(cls, name: str = "lab") -> Self:
        """A lab that is up.

        Raises:
            LabError: it is not.
        """
        folder = cls.SPEC(name).folder
        try:
            hosts = tuple((folder / "hosts").read_text().split())
        except OSError:
            raise LabError(f"there is no lab {name}: {cls.COMMAND} up --name {name}") from None
        return cls(cls.SPEC(name, hosts))

    def down(self) -> None:
        """Take it down; harmless when it is down."""
        if self.spec.folder.exists():
            with self._locked():
                self._take_down()
        self._lock_file.unlink(missing_ok=True)
        self._owner_file(self.spec.name).unlink(missing_ok=True)

    @classmethod
    def sweep(cls) -> None:
        """Take down the labs whose owner has died; one without an owner belongs to whoever takes it down."""
        for file in cls._owner_file("any").parent.glob(".*.owner"):
            if recall(file) is None:
                cls(cls.SPEC(file.name[1:].removesuffix(".owner"))).down()

    @classmethod
    def _owner_file(cls, name: str) -> Path:
        spec = cls.SPEC(name)
        return spec.folder.with_name(f".{name}.owner")

    @property
    def is_up(self) -> bool:
        """Whether all namespaces live; their daemons may not."""
        hub = Path("/run/netns") / self.spec.netns("hub")
        return self._hosts_file.exists() and hub.exists() and all(node.is_up for node in self._nodes())

    @staticmethod
    def _check_machine() -> None:
        check_root_and_programs(PROGRAMS, "lab")

    def _build(self) -> None:
        choose_accelerator(build_image())

    def _make(self) -> None:
        hub = self.spec.netns("hub")
        run("ip", "netns", "add", hub)
        run("ip", "-n", hub, "link", "set", "lo", "up")
        bridge_options = ["address", self.spec.bridge_mac("hub"), "type", "bridge", "stp_state", "0"]
        run("ip", "-n", hub, "link", "add", "br0", *bridge_options, "forward_delay", "0")
        run("ip", "-n", hub, "link", "set", "br0", "up")
        run("ip", "-n", hub, "addr", "add", f"{HUB_ADDRESS}/16", "dev", "br0")
        self._store.up(bridge=False)
        for host in self._hosts.values():
            host.up(bridge=True)
            host.configure()
        make_keys(self.spec, list(self._hosts.values()))

    def _start(self) -> None:
        with ThreadPoolExecutor() as pool:
            store = pool.submit(self._store.start)
            list(pool.map(Host.start_libvirtd, self._hosts.values()))
            list(pool.map(Host.start_sshd, self._hosts.values()))
            store.result()
            list(pool.map(Host.define_resources, self._hosts.values()))

    def _take_down(self) -> None:
        for name in {*HOSTS, *self.spec.hosts, "store"}:  # an earlier run may have had other hosts
            Node(self.spec, name, "").down()
        subprocess.run(["ip", "netns", "delete", self.spec.netns("hub")], capture_output=True, check=False)
        detach_loops(self.spec.folder)
        shutil.rmtree(self.spec.folder, ignore_errors=True)

    def _nodes(self) -> list[Any]:
        return [*self._hosts.values(), self._store]

    @property
    def _hosts_file(self) -> Path:
        """Written last: an ``up`` that was killed half-way is not taken for a lab."""
        return self.spec.folder / "hosts"

    @property
    def _lock_file(self) -> Path:
        return self.spec.folder.parent / f".{self.spec.name}.lock"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock_file.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # -- going in -----------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """Move the calling thread, and all threads it starts later, into the hub's network namespace."""
        libc = ctypes.CDLL(None, use_errno=True)
        with (Path("/run/netns") / self.spec.netns("hub")).open() as namespace:
            if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                raise LabError(f"setns: {os.strerror(ctypes.get_errno())}")

    def command_prefix(self) -> list[str]:
        """What runs a command in the hub, from where all hosts can be reached."""
        return ["nsenter", f"--net=/run/netns/{self.spec.netns('hub')}", "--"]

    def desk_prefix(self) -> list[str]:
        """What runs a command as on a machine of the lab's network: hosts have names, and SSH works without questions.

        The user's own names and keys are covered, in a mount namespace of the command alone.
        """
        names = f"{self._store.root}/hosts", f"{self._store.root}/nsswitch"
        script = (
            f"mount --bind {names[0]} /etc/hosts && mount --bind {names[1]} /etc/nsswitch.conf && mkdir -p ~/.ssh"
            f' && mount --bind {self.spec.folder}/ssh/home ~/.ssh && exec "$@"'
        )
        return [*self.command_prefix(), "unshare", "--mount", "sh", "-c", script, "sh"]

    # -- what is in it ------------------------------------------------------------------------------------------------

    def host(self, name: str) -> Host:
        """One host."""
        return self._hosts[name]

    @property
    def store(self) -> Store:
        """The storage server."""
        return self._store

    @property
    def image(self) -> Path:
        """Folder of the guest's kernel and initramfs."""
        return image_folder()

    @property
    def virt_type(self) -> str:
        """``kvm`` where it works, else ``qemu`` (emulation)."""
        return virt_type()

    def inventory(self, transport: str = "tcp", **limits: int) -> dict[str, dict[str, Any]]:
        """The ``[hosts.*]`` of a configuration for this lab."""
        return {
            name: {"uri": host.uri(transport), "peer_uri": host.peer_uri("ssh" if transport == "ssh" else "tcp")}
            | {"migration_address": host.address}
            | limits
            for name, host in self._hosts.items()
        }

    def guest(self, name: str, host: str = "alpha", *, start: str = "running", **options: Any) -> Guest:
        """Make a guest: ``start`` is ``running``, ``paused`` or ``off``; for the options see ``GuestOptions``."""
        chosen = GuestOptions(**options)
        address = guest_address(self._next_number()) if chosen.network else ""
        guest = Guest(self, name, host, chosen, address=address)
        guest.create(start)
        return guest

    def _next_number(self) -> int:
        """Counts the lab's guests across all processes that use it."""
        with (self.spec.folder / "guests").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write("x")
            file.flush()
            return file.tell()

    def states(self, vm: str) -> dict[str, DomainSnapshot | None]:
        """One VM, by name or UUID, on every host."""
        return {name: _snapshot(host, vm) for name, host in self._hosts.items()}


def _snapshot(host: Host, vm: str) -> DomainSnapshot | None:
    with contextlib.closing(host.connect()) as conn:
        domain = next((d for d in conn.listAllDomains() if vm in (d.name(), d.UUIDString())), None)
        if domain is None:
            return None
        try:
            state, reason = domain.state()
            active, persistent = bool(domain.isActive()), bool(domain.isPersistent())
            xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
            texts = [xml, domain.XMLDesc(0)]
            autostart = bool(domain.autostart()) if persistent else False
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None  # it left while it was being read
            raise
    metadata = "".join(text.partition("<metadata")[2].partition("</metadata>")[0] for text in texts)
    return DomainSnapshot(state, reason, active, persistent, autostart, metadata, xml)


def check_root_and_programs(programs: Sequence[str], group: str) -> None:
    """Whether a lab can be had here.

    Raises:
        LabUnavailable: it cannot; ``group`` of packages.txt has what is missing.
    """
    if os.geteuid() != 0:
        raise LabUnavailable("the lab needs root (namespaces, bridges, libvirtd)")
    missing = [
        program
        for program in programs
        if shutil.which(program) is None and shutil.which(f"/usr/sbin/{program}") is None
    ]
    if missing:
        raise LabUnavailable(f"the lab needs {', '.join(missing)}: .ci/install-packages {group}")
    probe = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        raise LabUnavailable(f"the lab needs namespaces: {probe.stderr.decode().strip()}")
