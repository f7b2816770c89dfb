"""``Hypervisor`` in memory, for tests of what stands above it. Thread-safe; faults are context managers."""

from __future__ import annotations

import hashlib
import re
import threading
import time
import uuid as uuid_module
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from tasks.model.disks import ChunkOrder, DiskSize, ImagePiece, Volume, VolumeOrder
from tasks.model.domain import NO_JOB, DomainState, DomainView, JobStats, Mark, Snapshot
from tasks.model.errors import HostUnreachable, HypervisorError, OperatorMustFix, OutcomeUnknown
from tasks.model.host import HostFacts, Pool
from tasks.model.mark_xml import parse_mark
from tasks.model.mentions import parse_mentions, same_path
from tasks.model.ports import TransferOrder
from tests.fakes.domain import (
    PAUSED_MIGRATION,
    PAUSED_USER,
    RUNNING_BOOTED,
    RUNNING_MIGRATED,
    SHUTOFF_DESTROYED,
    SHUTOFF_FAILED,
    SHUTOFF_MIGRATED,
    SHUTOFF_SAVED,
    SHUTOFF_SHUTDOWN,
    FakeDomain,
    disks_of,
    hash_pieces,
    identity,
)
from tests.fakes.networks import FakeNetwork, FakeNetworks
from tests.fakes.pools import FakePool, FakePools, Shelves, read_again
from tests.fakes.post_copy import POSTCOPY_FAILED, FakePostCopy

MEMORY = 64 * 1024 * 1024
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
RUNNING_JOB = JobStats(
    active=True, is_migration=True, elapsed_ms=1, memory_total=MEMORY, memory_processed=4096, memory_remaining=MEMORY
)
LAST_JOB = replace(RUNNING_JOB, active=False, elapsed_ms=20, memory_processed=MEMORY, memory_remaining=0, downtime_ms=2)
HELD_AT_MOST_S = 60.0
SAVE_DIRECTORY = "/var/lib/libvirt/qemu/save"


@dataclass
class FakeHost:
    """One fake host."""

    facts: HostFacts
    domains: dict[str, FakeDomain] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    """Paths that exist in the directories of its pools."""
    volumes: dict[str, dict[str, Volume]] = field(default_factory=dict)
    """Volumes by pool and name."""
    loose: dict[str, Volume] = field(default_factory=dict)
    """Files that no pool showed when they were made, by path."""
    contents: dict[str, bytearray] = field(default_factory=dict)
    """What is in them, by path."""
    below: dict[str, str] = field(default_factory=dict)
    """Path of a volume -> path of the file below it."""
    networks: dict[str, FakeNetwork] = field(default_factory=dict)
    """Definitions of networks, by name."""
    shelves: Shelves = field(default_factory=Shelves)
    """Pools' definitions, and directories."""
    reachable: bool = True


MISSING = "/gone/"
"""No host has files there."""


class FakeHypervisor(FakePools, FakeNetworks, FakePostCopy):
    """Hosts, domains and transfers in memory; ``calls`` has every call that changed something, in order."""

    def __init__(self, *hosts: str) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self.hosts = {name: FakeHost(default_facts(name, number)) for number, name in enumerate(hosts)}
        self.calls: list[tuple[str, str]] = []
        """(call, host)."""
        self.deaf: set[str] = set()
        """UUIDs of guests that do not shut down when they are asked."""
        self.bandwidths: dict[str, int] = {}
        """UUID -> limit of the transfer that runs, MiB/s; 0: none."""
        self.bandwidth_takes_s = 0.0
        """How long it takes until a changed limit is in force."""
        self._held = False
        self._gates: dict[bool, threading.Event] = {}
        self._abort_asked: set[str] = set()
        self._faults: dict[str, HypervisorError] = {}
        self._lose_reply = False

    # --- arranging -------------------------------------------------------------------------------------------------

    def add_domain(self, host: str, xml: str, *, running: bool = False, persistent: bool = True) -> FakeDomain:
        """Put a domain on a host; a transient one must run."""
        name, uuid = identity(xml)
        domain = FakeDomain(name=name, uuid=uuid, inactive_xml=xml, persistent=persistent)
        if running:
            domain.start()
        with self._lock:
            self.hosts[host].domains[uuid] = domain
        return domain

    @contextmanager
    def unreachable(self, host: str) -> Iterator[None]:
        """The host does not answer, neither to us nor to its peers."""
        with self._lock:
            self.hosts[host].reachable = False
        try:
            yield
        finally:
            with self._lock:
                self.hosts[host].reachable = True

    @contextmanager
    def transfers_held(self) -> Iterator[None]:
        """Transfers run, and do not end unless they are aborted."""
        with self._lock:
            self._held = True
        try:
            yield
        finally:
            with self._changed:
                self._held = False
                self._changed.notify_all()

    @contextmanager
    def transfers_late(self, *, sent: bool) -> Iterator[None]:
        """Transfers stand still before they begin: on their way to the source, or ``sent``, in its libvirt."""
        gate = self._gates[sent] = threading.Event()
        try:
            yield
        finally:
            del self._gates[sent]
            gate.set()

    @contextmanager
    def failing(self, call: str, error: HypervisorError) -> Iterator[None]:
        """The named call of the port raises ``error`` and does nothing; a transfer leaves the guest at the source."""
        with self._lock:
            self._faults[call] = error
        try:
            yield
        finally:
            with self._lock:
                del self._faults[call]

    @contextmanager
    def replies_lost(self) -> Iterator[None]:
        """A transfer succeeds, and its call says that the connection broke."""
        with self._lock:
            self._lose_reply = True
        try:
            yield
        finally:
            with self._lock:
                self._lose_reply = False

    # --- the port --------------------------------------------------------------------------------------------------

    def find_domain(self, host: str, vm: str) -> DomainView | None:
        """See the port."""
        with self._asked("find_domain", host) as there:
            domain = _by_uuid_or_name(there, vm)
            return None if domain is None else domain.view(host)

    def list_domains(self, host: str) -> Sequence[DomainView]:
        """See the port."""
        with self._asked("list_domains", host) as there:
            return sorted((d.view(host, bare=True) for d in there.domains.values()), key=lambda view: view.name)

    def fetch_facts(self, host: str, *, virt_type: str = "", arch: str = "", emulator: str = "") -> HostFacts:  # noqa: ARG002
        """See the port."""
        with self._asked("fetch_facts", host) as there:
            return there.facts

    def compare_cpu(
        self,
        host: str,
        cpu_xml: str,
        *,
        virt_type: str = "",  # noqa: ARG002
        arch: str = "",  # noqa: ARG002
        emulator: str = "",  # noqa: ARG002
        machine: str = "",  # noqa: ARG002
    ) -> bool | None:
        """See the port. Its hosts have every CPU but one."""
        with self._asked("compare_cpu", host):
            return "Skylake-Server" not in cpu_xml if "<model" in cpu_xml else None

    def fetch_hostname(self, host: str) -> str:
        """See the port."""
        with self._asked("fetch_hostname", host) as there:
            return there.facts.hostname

    def fetch_xml(
        self, host: str, uuid: str, *, inactive: bool = False, secure: bool = False, migratable: bool = False
    ) -> str:
        """See the port."""
        with self._asked("fetch_xml", host) as there:
            return _demand(there, host, uuid).xml(inactive=inactive, secure=secure or migratable)

    def file_exists(self, host: str, path: str) -> bool | None:
        """See the port."""
        with self._asked("file_exists", host) as there:
            targets = {pool.target for pool in there.facts.pools if pool.active}
            return path in there.files if str(PurePosixPath(path).parent) in targets else None

    def fetch_disk_sizes(self, host: str, uuid: str, targets: Sequence[str]) -> Mapping[str, DiskSize]:
        """See the port."""
        with self._asked("fetch_disk_sizes", host) as there:
            domain = _demand(there, host, uuid)
            disks = disks_of(domain.xml(inactive=not domain.active, secure=False))
            volumes = {v.path: v for made in there.volumes.values() for v in made.values()}
            found = {t: volumes[disks[t]] for t in targets if disks.get(t) in volumes}
            return {t: DiskSize(v.capacity_bytes, v.allocation_bytes) for t, v in found.items()}

    def refresh_pool(self, host: str, pool: str) -> Pool:
        """See the port."""
        with self._asked("refresh_pool", host) as there:
            return _active_pool(there, host, pool)

    def find_volume(self, host: str, pool: str, name: str) -> Volume | None:
        """See the port."""
        with self._asked("find_volume", host) as there:
            target = _active_pool(there, host, pool).target
            return there.volumes.get(pool, {}).get(name) or there.loose.get(f"{target}/{name}")

    def find_volume_at(self, host: str, path: str) -> Volume | None:
        """See the port."""
        with self._asked("find_volume_at", host) as there:
            return _visible(there).get(path)

    def copy_chunk(self, order: ChunkOrder, tick: Callable[[int], None]) -> str:
        """See the port."""
        with self._asked("copy_chunk", order.source) as source, self._asked("copy_chunk", order.destination) as there:
            volumes = _visible(there)
            if order.destination_path not in volumes:
                raise OperatorMustFix("NO_STORAGE_VOL", f"{order.destination}: no {order.destination_path}", "")
            target = volumes[order.destination_path]
            piece = source.contents[order.source_path][order.offset : order.offset + order.length]
            piece[: len(order.head)] = order.head
            tick(len(piece))
            contents = there.contents.setdefault(target.path, bytearray(target.capacity_bytes))
            contents[order.offset : order.offset + order.length] = piece
            return hashlib.sha256(piece).hexdigest()

    def read_piece(self, host: str, path: str, offset: int, length: int) -> bytes:
        """See the port."""
        with self._asked("read_piece", host) as there:
            return bytes(there.contents[path][offset : offset + length])

    def write_zeros(self, host: str, path: str, offset: int, length: int) -> None:
        """See the port."""
        with self._asked("write_zeros", host, effect=True) as there:
            there.contents[path][offset : offset + length] = bytes(length)

    def find_users(self, host: str, value: str) -> Sequence[str]:
        """See the port."""
        with self._asked("find_users", host) as there:
            texts = {d.name: filter(None, (d.live_xml, d.inactive_xml)) for d in there.domains.values()}
            return tuple(sorted(name for name, found in texts.items() if any(_names(there, t, value) for t in found)))

    def resize_disk(self, host: str, uuid: str, target: str, path: str, capacity_bytes: int) -> None:  # noqa: ARG002
        """See the port."""
        with self._asked("resize_disk", host, effect=True) as there:
            _demand(there, host, uuid)
            for made in there.volumes.values():
                for name, volume in made.items():
                    if volume.path == path and volume.capacity_bytes < capacity_bytes:
                        made[name] = replace(volume, capacity_bytes=capacity_bytes)

    def hash_chunk(self, host: str, path: str, offset: int, length: int, tick: Callable[[int], None]) -> str:
        """See the port."""
        with self._asked("hash_chunk", host) as there:
            if path in there.loose and path not in _visible(there):
                raise OperatorMustFix("NO_STORAGE_VOL", f"{host}: no {path}", "")
            tick(length)
            return hashlib.sha256(there.contents[path][offset : offset + length]).hexdigest()

    def hash_pieces(self, host: str, path: str, pieces: Sequence[ImagePiece], tick: Callable[[int], None]) -> str:
        """See the port."""
        with self._asked("hash_pieces", host) as there:
            return hash_pieces(there.contents[path], pieces, tick)

    def create_volume(self, host: str, order: VolumeOrder) -> Volume:
        """See the port."""
        with self._asked("create_volume", host, effect=True) as there:
            target = _active_pool(there, host, order.pool).target
            volumes = there.volumes.setdefault(order.pool, {})
            if order.name in volumes:
                raise OperatorMustFix("VOLUME_EXISTS", f"{host}: {order.pool} already has {order.name}", "")
            made = Volume(order.name, f"{target}/{order.name}", order.capacity_bytes, 0, order.format)
            volumes[order.name] = made
            if order.backing:
                there.below[made.path] = order.backing
            return made

    def delete_volume(self, host: str, pool: str, name: str) -> None:
        """See the port."""
        with self._asked("delete_volume", host, effect=True) as there:
            target = _active_pool(there, host, pool).target
            gone = there.volumes.get(pool, {}).pop(name, None) or there.loose.pop(f"{target}/{name}", None)
            if gone is not None:
                there.contents.pop(gone.path, None)

    def delete_file(self, host: str, path: str) -> None:
        """See the port."""
        with self._asked("delete_file", host, effect=True) as there:
            for made in there.volumes.values():
                for name in [name for name, volume in made.items() if volume.path == path]:
                    del made[name]

    def find_overlays(self, host: str, path: str) -> Sequence[str]:
        """See the port."""
        with self._asked("find_overlays", host) as there:
            return tuple(sorted(over for over, below in there.below.items() if same_path(below, path)))

    def fetch_job(self, host: str, uuid: str) -> JobStats:
        """See the port."""
        with self._asked("fetch_job", host) as there:
            domain = there.domains.get(uuid)
            return NO_JOB if domain is None else domain.job

    def fetch_completed_job(self, host: str, uuid: str) -> JobStats | None:
        """See the port."""
        with self._asked("fetch_completed_job", host) as there:
            domain = there.domains.get(uuid)
            return None if domain is None else domain.completed_job

    def set_autostart(self, host: str, uuid: str, *, enabled: bool) -> None:
        """See the port."""
        with self._asked("set_autostart", host, effect=True) as there:
            domain = _demand(there, host, uuid)
            if not domain.persistent:
                raise OperatorMustFix("OPERATION_INVALID", f"{host}: cannot set autostart for transient domain", "")
            domain.autostart = enabled

    def write_mark(self, host: str, uuid: str, mark: Mark) -> None:
        """See the port."""
        with self._asked("write_mark", host, effect=True) as there:
            _demand(there, host, uuid).set_mark(mark)

    def remove_mark(self, host: str, uuid: str) -> None:
        """See the port."""
        with self._asked("remove_mark", host, effect=True) as there:
            _demand(there, host, uuid).set_mark(None)

    def update_drive(self, host: str, uuid: str, drive: str, *, live: bool) -> None:
        """See the port."""
        with self._asked("update_drive", host, effect=True) as there:
            _demand(there, host, uuid).update_drive(host, drive, live=live)

    def define(self, host: str, xml: str) -> None:
        """See the port."""
        with self._asked("define", host, effect=True) as there:
            name, uuid = identity(xml)
            mark = parse_mark(xml)
            for domain in there.domains.values():
                if name != domain.name and uuid != domain.uuid:
                    continue
                same = (name, uuid) == (domain.name, domain.uuid)
                if not same or mark is None or domain.mark is None or domain.mark.id != mark.id:
                    raise OperatorMustFix("DOMAIN_EXISTS", f"{host} already has {domain.name} ({domain.uuid})", "")
            if uuid in there.domains:
                there.domains[uuid].inactive_xml, there.domains[uuid].persistent = xml, True
            else:
                there.domains[uuid] = FakeDomain(name=name, uuid=uuid, inactive_xml=xml)

    def fetch_snapshots(self, host: str, uuid: str) -> Sequence[Snapshot]:
        """See the port."""
        with self._asked("fetch_snapshots", host) as there:
            count = there.domains[uuid].snapshots if uuid in there.domains else 0
            names = [f"snapshot-{n}" for n in range(count)]
            return tuple(
                Snapshot(n, n == names[-1], f"<domainsnapshot><name>{n}</name></domainsnapshot>") for n in names
            )

    def redefine_snapshot(self, host: str, uuid: str, snapshot: Snapshot) -> None:  # noqa: ARG002
        """See the port."""
        with self._asked("redefine_snapshot", host, effect=True) as there:
            _demand(there, host, uuid).snapshots += 1

    def undefine(self, host: str, uuid: str, *, snapshots: bool = False) -> None:
        """See the port."""
        with self._asked("undefine", host, effect=True) as there:
            domain = there.domains.get(uuid)
            if domain is None:
                return
            for refused, code in (
                (domain.snapshots and not snapshots, "HAS_SNAPSHOTS"),
                (domain.managed_save, "HAS_MANAGED_SAVE"),
                (domain.active, "DOMAIN_ACTIVE"),
            ):
                if refused:
                    raise OperatorMustFix(code, f"{host}: {domain.name}", "")
            del there.domains[uuid]

    def transfer(self, order: TransferOrder, begin: Callable[[], None] = lambda: None) -> None:
        """See the port."""
        with self._asked("transfer", order.source, faults=False) as there:
            _demand(there, order.source, order.uuid)
        self._wait_at_gate(sent=False)
        begin()
        self._wait_at_gate(sent=True)
        with self._changed:
            with self._asked("transfer", order.source, effect=True, faults=False) as there:
                source = _demand(there, order.source, order.uuid)
                _check_transferable(source, order.source)
                self._incoming(order, source)
            source.job, source.order = replace(RUNNING_JOB, elapsed_ms=1), order
            self.bandwidths[order.uuid] = order.bandwidth_mib_s
            self._wait_for_the_end(order)

    def set_max_downtime(self, host: str, uuid: str, downtime_ms: int) -> bool:
        """See the port."""
        with self._asked("set_max_downtime", host) as there:
            domain = there.domains.get(uuid)
            if domain is None or not domain.job.active:
                return False
            domain.max_downtime_ms = downtime_ms
            return True

    def set_bandwidth(self, host: str, uuid: str, mib_s: int, disks: Sequence[str] = ()) -> bool:  # noqa: ARG002
        """See the port. What is in force stands in ``bandwidths``."""
        time.sleep(self.bandwidth_takes_s)
        with self._asked("set_bandwidth", host, effect=True) as there:
            domain = there.domains.get(uuid)
            if domain is None or not domain.job.active:
                return False
            self.bandwidths[uuid] = mib_s
            return True

    def abort_job(self, host: str, uuid: str) -> None:
        """See the port."""
        with self._changed, self._asked("abort_job", host, effect=True) as there:
            domain = there.domains.get(uuid)
            if domain is not None and domain.job.active:
                if domain.in_post_copy:
                    raise OperatorMustFix("OPERATION_INVALID", f"{host}: cannot abort migration in post-copy mode", "")
                self._abort_asked.add(uuid)
                self._changed.notify_all()

    def save(self, host: str, uuid: str) -> None:
        """See the port."""
        with self._asked("save", host, effect=True) as there:
            domain = _demand(there, host, uuid)
            if domain.active:
                domain.state, domain.reason, domain.managed_save = DomainState.SHUTOFF, SHUTOFF_SAVED, True
                image = bytearray(domain.live_xml.encode())
                path = f"{SAVE_DIRECTORY}/{domain.name}.save"
                there.contents[path], size = image, len(image)
                there.loose[path] = Volume(f"{domain.name}.save", path, size, size, "raw", size, "1.0")

    def shut_down(self, host: str, uuid: str) -> None:
        """See the port."""
        with self._asked("shut_down", host, effect=True) as there:
            domain = _demand(there, host, uuid)
            if domain.active and uuid not in self.deaf:
                domain.state, domain.reason = DomainState.SHUTOFF, SHUTOFF_SHUTDOWN

    def start(self, host: str, uuid: str) -> None:
        """See the port."""
        with self._asked("start", host, effect=True) as there:
            domain = _demand(there, host, uuid)
            if domain.active:
                return
            if any(path.startswith(MISSING) for path in disks_of(domain.inactive_xml).values()):
                domain.reason = SHUTOFF_FAILED
                raise OperatorMustFix("LIBVIRT_ERROR", f"{host}: Cannot access storage file", "")
            domain.start()

    def remove_save(self, host: str, uuid: str) -> None:
        """See the port."""
        with self._asked("remove_save", host, effect=True) as there:
            if uuid in there.domains:
                _drop_save(there, there.domains[uuid])

    def start_paused(self, host: str, xml: str) -> None:
        """See the port."""
        with self._asked("start_paused", host, effect=True) as there:
            domain = _demand(there, host, identity(xml)[1])
            if not domain.persistent:
                raise OperatorMustFix("NO_DOMAIN", f"{host}: {domain.name} is not defined", "")
            if domain.active:
                raise OperatorMustFix("OPERATION_INVALID", f"{host}: domain is already active", "")
            domain.start_paused(xml)

    def end_paused(self, host: str, uuid: str, mark: Mark) -> None:
        """See the port."""
        with self._asked("end_paused", host, effect=True) as there:
            domain = there.domains.get(uuid)
            if domain is None or not domain.active:
                return
            idle = domain.state is DomainState.PAUSED and domain.reason != PAUSED_MIGRATION and domain.never_ran
            if not idle or domain.instance_mark != mark:
                raise OperatorMustFix("NOT_OURS_TO_END", f"{host}: {domain.name} is another instance", "")
            domain.state, domain.reason, domain.never_ran = DomainState.SHUTOFF, SHUTOFF_DESTROYED, False
            if not domain.persistent:
                del there.domains[uuid]

    def start_saved(self, host: str, uuid: str, *, paused: bool) -> None:
        """See the port."""
        with self._asked("start_saved", host, effect=True) as there:
            domain = _demand(there, host, uuid)
            if not domain.active and domain.managed_save:
                domain.go_on(paused=paused)
                _drop_save(there, domain)

    def fetch_saved_xml(self, host: str, path: str) -> str:
        """See the port."""
        with self._asked("fetch_saved_xml", host) as there:
            return there.contents[path].decode()

    def restore(self, host: str, path: str, xml: str) -> None:
        """See the port."""
        with self._asked("restore", host, effect=True) as there:
            if path not in there.contents:
                raise OperatorMustFix("LIBVIRT_ERROR", f"{host}: Failed to open file '{path}'", "")
            name, uuid = identity(xml)
            domain = there.domains.setdefault(uuid, FakeDomain(name, uuid, xml, persistent=False))
            domain.go_on(paused=True)
            domain.live_xml = xml

    def find_pool_at(self, host: str, directory: str) -> str | None:
        """See the port."""
        with self._asked("find_pool_at", host) as there:
            return next((p.name for p in there.facts.pools if p.active and p.target == directory), None)

    def open_window(self, host: str, name: str, directory: str, *, build: bool = False) -> None:  # noqa: ARG002
        """See the port. Its directories are all there."""
        with self._asked("open_window", host, effect=True) as there:
            if any(p.name == name for p in there.facts.pools):
                return
            if any(p.type == "dir" and p.target == directory for p in there.facts.pools):
                raise OperatorMustFix("OPERATION_FAILED", f"{host}: storage source conflict", "")
            pool = Pool(name, "dir", active=True, target=directory)
            there.facts = replace(there.facts, pools=(*there.facts.pools, pool))
            there.shelves.pools[name] = FakePool(str(uuid_module.uuid4()), "<pool/>", persistent=False)

    def close_window(self, host: str, name: str) -> None:
        """See the port."""
        with self._asked("close_window", host, effect=True) as there:
            known = there.shelves.pools.get(name)
            if known is None or known.persistent:
                return
            del there.shelves.pools[name]
            there.facts = replace(there.facts, pools=tuple(p for p in there.facts.pools if p.name != name))
            there.loose |= {volume.path: volume for volume in there.volumes.pop(name, {}).values()}

    def ping_agent(self, host: str, uuid: str, timeout_s: int) -> bool:  # noqa: ARG002
        """See the port. No guest of its has an agent."""
        with self._asked("ping_agent", host) as there:
            _demand(there, host, uuid)
            return False

    def suspend(self, host: str, uuid: str) -> None:
        """See the port."""
        with self._asked("suspend", host, effect=True) as there:
            domain = _demand(there, host, uuid)
            if not domain.active:
                raise OperatorMustFix("OPERATION_INVALID", f"{host}: domain is not running", "")
            if domain.state is DomainState.RUNNING:
                domain.state, domain.reason = DomainState.PAUSED, PAUSED_USER

    def resume(self, host: str, uuid: str) -> None:
        """See the port."""
        with self._asked("resume", host, effect=True) as there:
            domain = _demand(there, host, uuid)
            if not domain.active:
                raise OperatorMustFix("OPERATION_INVALID", f"{host}: domain is not running", "")
            if domain.state is DomainState.PAUSED:
                domain.state, domain.reason = DomainState.RUNNING, RUNNING_BOOTED
                domain.never_ran = False

    def close(self) -> None:
        """See the port."""

    # --- inside ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _asked(self, call: str, host: str, *, effect: bool = False, faults: bool = True) -> Iterator[FakeHost]:
        with self._lock:
            if host not in self.hosts:
                raise OperatorMustFix("UNKNOWN_HOST", f"{host} is not in the inventory", "")
            if not self.hosts[host].reachable:
                raise HostUnreachable("HOST_UNREACHABLE", f"{host} cannot be reached", "")
            if faults and call in self._faults:
                raise self._faults[call]
            if effect:
                self.calls.append((call, host))
            yield self.hosts[host]

    def _wait_at_gate(self, *, sent: bool) -> None:
        gate = self._gates.get(sent)
        if gate is not None:
            gate.wait(HELD_AT_MOST_S)

    def _incoming(self, order: TransferOrder, source: FakeDomain) -> FakeDomain:
        """The paused guest that libvirt prepares on the destination before any memory is sent."""
        there = self.hosts[order.destination]
        if not there.reachable:
            message = f"{order.source} did not reach {order.destination}"
            raise OutcomeUnknown("PEER_UNREACHABLE", message, "")
        paths = {v.path for made in there.volumes.values() for v in made.values()}
        for target, path in disks_of(order.destination_xml).items():
            if target in order.disks and path not in paths:
                raise OperatorMustFix("LIBVIRT_ERROR", f"{order.destination}: Could not open '{path}'", "")
        for domain in there.domains.values():
            if domain.uuid == source.uuid and domain.active:
                raise OperatorMustFix("OPERATION_INVALID", f"{order.destination}: already active", "")
            if (domain.uuid == source.uuid) != (domain.name == source.name):
                raise OperatorMustFix("OPERATION_FAILED", f"{order.destination}: already exists", "")
        incoming = FakeDomain(
            name=source.name,
            uuid=source.uuid,
            inactive_xml=order.destination_xml,
            live_xml=order.destination_xml,
            state=DomainState.PAUSED,
            reason=PAUSED_MIGRATION,
            persistent=False,
        )
        there.domains[source.uuid] = incoming
        return incoming

    def _wait_for_the_end(self, order: TransferOrder) -> None:
        source = self.hosts[order.source].domains[order.uuid]
        self._changed.wait_for(lambda: self._may_end(source), HELD_AT_MOST_S)
        self.bandwidths.pop(order.uuid, None)
        if source.in_post_copy and source.reason == POSTCOPY_FAILED:
            raise OperatorMustFix("OPERATION_FAILED", f"{order.source}: job failed in post-copy phase", "")
        source.job, source.order = NO_JOB, None
        self._end(order, source, self.hosts[order.destination].domains[order.uuid])

    def _may_end(self, source: FakeDomain) -> bool:
        if source.in_post_copy:
            return not self._held or source.reason == POSTCOPY_FAILED
        return not self._held or source.uuid in self._abort_asked or "transfer" in self._faults

    def _mirror(self, order: TransferOrder, source: FakeDomain) -> None:
        """What is on the disks that the order names is on the destination's as well."""
        here, there = self.hosts[order.source], self.hosts[order.destination]
        paths = disks_of(source.live_xml), disks_of(order.destination_xml)
        for target in order.disks:
            if paths[0][target] in here.contents:
                there.contents[paths[1][target]] = bytearray(here.contents[paths[0][target]])

    def _end(self, order: TransferOrder, source: FakeDomain, destination: FakeDomain) -> None:
        aborted = order.uuid in self._abort_asked
        self._abort_asked.discard(order.uuid)
        if aborted or "transfer" in self._faults:
            del self.hosts[order.destination].domains[order.uuid]
            if aborted:
                raise OperatorMustFix("ABORTED", f"{order.source}: operation aborted: canceled by client", "")
            raise self._faults["transfer"]
        self._mirror(order, source)
        _switch_over(order, source, destination)
        if not source.persistent:
            del self.hosts[order.source].domains[order.uuid]
        if self._lose_reply:
            raise OutcomeUnknown("CONNECTION_LOST", f"the connection to {order.source} broke", "")


def domain_xml(name: str, uuid: str, *, inside: str = "") -> str:
    """A small definition; ``inside`` goes into its devices."""
    return (
        f"<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='KiB'>65536</memory><vcpu>1</vcpu>"
        f"<os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os><devices>{inside}</devices></domain>"
    )


def default_facts(name: str, number: int) -> HostFacts:
    """A host that can run ``domain_xml`` and has nothing else."""
    return HostFacts(
        name=name,
        hostname=name,
        uuid=f"00000000-0000-4000-8000-{number:012d}",
        libvirt_version=9_000_000,
        hypervisor_version=7_002_000,
        arch="x86_64",
        cpus=2,
        memory_total_kib=4 * 1024 * 1024,
        memory_free_kib=3 * 1024 * 1024,
        nwfilters=frozenset(),
        secrets={},
        machines=frozenset({"pc-i440fx-7.2"}),
        virt_types=frozenset({"qemu"}),
        emulators=frozenset({"/usr/bin/qemu-system-x86_64"}),
    )


def _by_uuid_or_name(host: FakeHost, vm: str) -> FakeDomain | None:
    if vm in host.domains or _UUID.fullmatch(vm):
        return host.domains.get(vm)
    return next((d for d in host.domains.values() if d.name == vm), None)


def _demand(there: FakeHost, host: str, uuid: str) -> FakeDomain:
    try:
        return there.domains[uuid]
    except KeyError:
        raise OperatorMustFix("NO_DOMAIN", f"{host}: no domain {uuid}", "") from None


def _visible(there: FakeHost) -> dict[str, Volume]:
    """Volumes of active pools, by path."""
    targets = {pool.target for pool in there.facts.pools if pool.active}
    shown = {path: volume for path, volume in there.loose.items() if str(PurePosixPath(path).parent) in targets}
    return shown | {v.path: v for made in there.volumes.values() for v in made.values()}


def _names(there: FakeHost, xml: str, value: str) -> bool:
    """Whether a definition names something, by whatever name."""
    mentions, targets = parse_mentions(xml), {pool.name: pool.target for pool in there.facts.pools}
    paths = {f"{targets[pool]}/{volume}" for pool, volume in mentions.volumes if pool in targets}
    return any(same_path(found, value) for found in mentions.values | paths)


def _active_pool(there: FakeHost, host: str, name: str) -> Pool:
    pool = next((p for p in there.facts.pools if p.name == name), None)
    if pool is None:
        raise OperatorMustFix("NO_STORAGE_POOL", f"{host}: no pool {name}", "")
    if not pool.active:
        raise OperatorMustFix("POOL_INACTIVE", f"{host}: pool {name} is not active", "")
    return read_again(there, host, pool)


def _drop_save(there: FakeHost, domain: FakeDomain) -> None:
    domain.managed_save, path = False, f"{SAVE_DIRECTORY}/{domain.name}.save"
    there.loose.pop(path, None)
    there.contents.pop(path, None)


def _check_transferable(source: FakeDomain, host: str) -> None:
    if not source.active:
        raise OperatorMustFix("OPERATION_INVALID", f"{host}: domain is not running", "")
    if source.job.active:
        raise OperatorMustFix("OPERATION_INVALID", f"{host}: another migration job is already running", "")


def _switch_over(order: TransferOrder, source: FakeDomain, destination: FakeDomain) -> None:
    if order.paused or (source.state is DomainState.PAUSED and not source.in_post_copy):
        destination.state, destination.reason = DomainState.PAUSED, PAUSED_USER
        destination.never_ran = True  # its hypervisor there is a new one
    else:
        destination.state, destination.reason = DomainState.RUNNING, RUNNING_MIGRATED
    if source.persistent:
        destination.persistent, destination.inactive_xml = True, order.persistent_xml
    source.state, source.reason = DomainState.SHUTOFF, SHUTOFF_MIGRATED
    source.completed_job = destination.completed_job = LAST_JOB
