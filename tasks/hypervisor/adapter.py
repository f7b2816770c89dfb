"""``tasks.model.ports.Hypervisor`` on libvirt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import libvirt

from tasks.hypervisor import bandwidth, guest, job, paused, saves, streams, users, volumes
from tasks.hypervisor import snapshots as snapshot_calls
from tasks.hypervisor.address import HostAddress
from tasks.hypervisor.connection import Connection, HostPool, is_alive
from tasks.hypervisor.errors import translate, translate_transfer
from tasks.hypervisor.facts import StaticFacts, compare_cpu, read_facts, read_hostname
from tasks.hypervisor.network_calls import NetworkCalls
from tasks.hypervisor.pool_calls import PoolCalls
from tasks.hypervisor.storage import file_exists
from tasks.hypervisor.transfer import migrate, resume_post_copy
from tasks.model.disks import ChunkOrder, DiskSize, ImagePiece, Volume, VolumeOrder
from tasks.model.domain import NO_JOB, DomainView, JobStats, Mark, Snapshot
from tasks.model.errors import HostUnreachable, OperatorMustFix
from tasks.model.host import HostFacts, Pool
from tasks.model.ports import TransferOrder

T = TypeVar("T")

CONNECT_TIMEOUT_S = 10.0


class LibvirtHypervisor(PoolCalls, NetworkCalls):
    """Named calls on the inventory's hosts. Thread-safe; connections are opened when first needed.

    Make it in the process that uses it: libvirt's connections do not survive a fork.
    """

    def __init__(self, hosts: Mapping[str, HostAddress], *, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self._pools = {name: HostPool(name, address, connect_timeout_s) for name, address in hosts.items()}
        self._static = {name: StaticFacts() for name in hosts}

    def find_domain(self, host: str, vm: str) -> DomainView | None:
        """See the port."""
        return self._read(host, lambda connection: guest.find(connection, host, vm))

    def list_domains(self, host: str) -> Sequence[DomainView]:
        """See the port."""
        return self._read(host, lambda connection: guest.list_all(connection, host))

    def fetch_facts(self, host: str, *, virt_type: str = "", arch: str = "", emulator: str = "") -> HostFacts:
        """See the port. What cannot change while the daemon runs is asked for once."""
        pool = self._pool(host)

        def read(connection: Connection) -> HostFacts:
            kind = {"virt_type": virt_type, "arch": arch, "emulator": emulator}
            return read_facts(connection, host, self._static[host], pool.generation, **kind)

        return self._read(host, read)

    def compare_cpu(
        self, host: str, cpu_xml: str, *, virt_type: str = "", arch: str = "", emulator: str = "", machine: str = ""
    ) -> bool | None:
        """See the port."""
        return self._read(host, lambda c: compare_cpu(c, cpu_xml, emulator, arch, machine, virt_type))

    def fetch_hostname(self, host: str) -> str:
        """See the port. Asked for once, as long as the daemon runs."""
        pool = self._pool(host)
        return self._read(host, lambda connection: read_hostname(connection, self._static[host], pool.generation))

    def fetch_xml(
        self, host: str, uuid: str, *, inactive: bool = False, secure: bool = False, migratable: bool = False
    ) -> str:
        """See the port."""
        flags = (
            (libvirt.VIR_DOMAIN_XML_INACTIVE if inactive else 0)
            | (libvirt.VIR_DOMAIN_XML_SECURE if secure else 0)
            | (libvirt.VIR_DOMAIN_XML_MIGRATABLE if migratable else 0)
        )
        return self._read(host, lambda connection: str(guest.demand(connection, uuid).XMLDesc(flags)))

    def file_exists(self, host: str, path: str) -> bool | None:
        """See the port."""
        return self._read(host, lambda connection: file_exists(connection, host, path))

    def fetch_disk_sizes(self, host: str, uuid: str, targets: Sequence[str]) -> Mapping[str, DiskSize]:
        """See the port."""
        return self._read(host, lambda connection: volumes.read_sizes(connection, uuid, targets))

    def refresh_pool(self, host: str, pool: str) -> Pool:
        """See the port."""
        return self._read(host, lambda connection: volumes.refresh(connection, host, pool))

    def find_volume(self, host: str, pool: str, name: str) -> Volume | None:
        """See the port."""
        return self._read(host, lambda connection: volumes.find(connection, host, pool, name))

    def find_volume_at(self, host: str, path: str) -> Volume | None:
        """See the port."""
        return self._read(host, lambda connection: volumes.find_at(connection, host, path))

    def copy_chunk(self, order: ChunkOrder, tick: Callable[[int], None]) -> str:
        """See the port."""
        with self._pool(order.source).checkout() as source, self._pool(order.destination).checkout() as destination:
            try:
                return streams.copy_chunk(source, destination, order, tick)
            except streams.Broken as broken:
                host, connection = (order.source, source) if broken.reading else (order.destination, destination)
                # Written again as a whole when it is tried again: nothing depends on how much of it arrived.
                raise translate(broken.error, host, lost=not is_alive(connection), effect=False) from None

    def read_piece(self, host: str, path: str, offset: int, length: int) -> bytes:
        """See the port."""
        with self._reading(host) as connection:
            return streams.read_piece(connection, path, offset, length)

    def write_zeros(self, host: str, path: str, offset: int, length: int) -> None:
        """See the port."""
        with self._reading(host) as connection:
            streams.write_zeros(connection, path, offset, length)

    def find_users(self, host: str, value: str) -> tuple[str, ...]:
        """See the port."""
        return self._read(host, lambda connection: users.find_users(connection, value))

    def resize_disk(self, host: str, uuid: str, target: str, path: str, capacity_bytes: int) -> None:
        """See the port."""
        self._change(host, lambda connection: volumes.resize(connection, uuid, target, path, capacity_bytes))

    def hash_chunk(self, host: str, path: str, offset: int, length: int, tick: Callable[[int], None]) -> str:
        """See the port."""
        with self._reading(host) as connection:
            return streams.hash_chunk(connection, path, offset, length, tick)

    def hash_pieces(self, host: str, path: str, pieces: Sequence[ImagePiece], tick: Callable[[int], None]) -> str:
        """See the port."""
        with self._reading(host) as connection:
            return streams.hash_pieces(connection, path, pieces, tick)

    def create_volume(self, host: str, order: VolumeOrder) -> Volume:
        """See the port."""
        return self._change(host, lambda connection: volumes.create(connection, host, order))

    def delete_volume(self, host: str, pool: str, name: str) -> None:
        """See the port."""
        self._change(host, lambda connection: volumes.delete(connection, host, pool, name))

    def delete_file(self, host: str, path: str) -> None:
        """See the port."""
        self._change(host, lambda connection: volumes.delete_at(connection, host, path))

    def find_overlays(self, host: str, path: str) -> tuple[str, ...]:
        """See the port."""
        return self._read(host, lambda connection: volumes.find_overlays(connection, host, path))

    def fetch_job(self, host: str, uuid: str) -> JobStats:
        """See the port."""

        def read(connection: Connection) -> JobStats:
            domain = guest.look_up_uuid(connection, uuid)
            return NO_JOB if domain is None else job.read_job(domain)

        return self._read(host, read)

    def fetch_completed_job(self, host: str, uuid: str) -> JobStats | None:
        """See the port."""

        def read(connection: Connection) -> JobStats | None:
            domain = guest.look_up_uuid(connection, uuid)
            return None if domain is None else job.read_completed_job(domain)

        return self._read(host, read)

    def set_autostart(self, host: str, uuid: str, *, enabled: bool) -> None:
        """See the port."""
        self._change(host, lambda connection: guest.demand(connection, uuid).setAutostart(int(enabled)))

    def write_mark(self, host: str, uuid: str, mark: Mark) -> None:
        """See the port."""
        self._change(host, lambda connection: guest.write_mark(guest.demand(connection, uuid), mark))

    def remove_mark(self, host: str, uuid: str) -> None:
        """See the port."""
        self._change(host, lambda connection: guest.remove_mark(guest.demand(connection, uuid)))

    def update_drive(self, host: str, uuid: str, drive: str, *, live: bool) -> None:
        """See the port."""
        flags = libvirt.VIR_DOMAIN_AFFECT_LIVE if live else libvirt.VIR_DOMAIN_AFFECT_CONFIG
        self._change(host, lambda connection: guest.demand(connection, uuid).updateDeviceFlags(drive, flags))

    def define(self, host: str, xml: str) -> None:
        """See the port."""
        self._change(host, lambda connection: guest.define(connection, host, xml))

    def undefine(self, host: str, uuid: str, *, snapshots: bool = False) -> None:
        """See the port."""
        self._change(host, lambda connection: guest.undefine(connection, host, uuid, snapshots=snapshots))

    def fetch_snapshots(self, host: str, uuid: str) -> Sequence[Snapshot]:
        """See the port."""
        return self._read(host, lambda connection: snapshot_calls.fetch(connection, uuid))

    def redefine_snapshot(self, host: str, uuid: str, snapshot: Snapshot) -> None:
        """See the port."""
        self._change(host, lambda connection: snapshot_calls.redefine(connection, uuid, snapshot))

    def transfer(self, order: TransferOrder, begin: Callable[[], None] = lambda: None) -> None:
        """See the port. ``order.max_downtime_ms`` is no parameter of libvirt's call: it is said just before, which a
        libvirt may refuse; ``set_max_downtime`` says it to the running job."""
        self._drive(order, partial(migrate, begin=begin))

    def resume_post_copy(self, order: TransferOrder) -> None:
        """See the port."""
        self._drive(order, resume_post_copy)

    def _drive(self, order: TransferOrder, call: Callable[[Any, TransferOrder, HostAddress], None]) -> None:
        """One of the calls that last as long as a transfer does, on a connection of its own."""
        destination = self._pool(order.destination).address
        with self._pool(order.source).checkout() as connection:
            try:
                call(guest.demand(connection, order.uuid), order, destination)
            except libvirt.libvirtError as error:
                lost = not is_alive(connection)
                raise translate_transfer(error, order.source, order.destination, lost=lost) from None

    def set_max_downtime(self, host: str, uuid: str, downtime_ms: int) -> bool:
        """See the port."""

        def change(connection: Connection) -> bool:
            domain = guest.look_up_uuid(connection, uuid)
            return domain is not None and job.set_max_downtime(domain, downtime_ms)

        return self._change(host, change)

    def set_bandwidth(self, host: str, uuid: str, mib_s: int, disks: Sequence[str] = ()) -> bool:
        """See the port."""

        def change(connection: Connection) -> bool:
            domain = guest.look_up_uuid(connection, uuid)
            return domain is not None and bandwidth.set_bandwidth(domain, mib_s, disks)

        return self._change(host, change)

    def start_post_copy(self, host: str, uuid: str) -> bool:
        """See the port."""

        def change(connection: Connection) -> bool:
            domain = guest.look_up_uuid(connection, uuid)
            return domain is not None and job.start_post_copy(domain)

        return self._change(host, change)

    def break_post_copy(self, host: str, uuid: str) -> None:
        """See the port."""
        self._change(host, lambda connection: job.break_post_copy(guest.demand(connection, uuid)))

    def abort_job(self, host: str, uuid: str) -> None:
        """See the port."""

        def change(connection: Connection) -> None:
            domain = guest.look_up_uuid(connection, uuid)
            if domain is not None:
                job.abort_migration(domain)

        self._change(host, change)

    def shut_down(self, host: str, uuid: str) -> None:
        """See the port."""
        self._change(host, lambda connection: guest.shut_down(guest.demand(connection, uuid)))

    def start(self, host: str, uuid: str) -> None:
        """See the port."""
        self._change(host, lambda connection: guest.start(guest.demand(connection, uuid)))

    def start_paused(self, host: str, xml: str) -> None:
        """See the port."""
        self._change(host, lambda connection: paused.start(connection, host, xml))

    def end_paused(self, host: str, uuid: str, mark: Mark) -> None:
        """See the port."""
        self._change(host, lambda connection: paused.end(connection, host, uuid, mark))

    def save(self, host: str, uuid: str) -> None:
        """See the port."""
        self._change(host, lambda connection: saves.save(connection, uuid))

    def remove_save(self, host: str, uuid: str) -> None:
        """See the port."""
        self._change(host, lambda connection: saves.remove(connection, uuid))

    def start_saved(self, host: str, uuid: str, *, paused: bool) -> None:
        """See the port."""
        self._change(host, lambda connection: saves.start(connection, uuid, paused=paused))

    def fetch_saved_xml(self, host: str, path: str) -> str:
        """See the port."""
        return self._read(host, lambda connection: saves.read_xml(connection, path))

    def restore(self, host: str, path: str, xml: str) -> None:
        """See the port."""
        self._change(host, lambda connection: saves.restore(connection, path, xml))

    def find_pool_at(self, host: str, directory: str) -> str | None:
        """See the port."""
        return self._read(host, lambda connection: volumes.find_pool_at(connection, directory))

    def open_window(self, host: str, name: str, directory: str, *, build: bool = False) -> None:
        """See the port."""
        self._change(host, lambda connection: volumes.open_window(connection, name, directory, build=build))

    def close_window(self, host: str, name: str) -> None:
        """See the port."""
        self._change(host, lambda connection: volumes.close_window(connection, name))

    def ping_agent(self, host: str, uuid: str, timeout_s: int) -> bool:
        """See the port."""
        return self._read(host, lambda connection: guest.ping_agent(guest.demand(connection, uuid), timeout_s))

    def suspend(self, host: str, uuid: str) -> None:
        """See the port."""
        self._change(host, lambda connection: guest.suspend(guest.demand(connection, uuid)))

    def resume(self, host: str, uuid: str) -> None:
        """See the port."""
        self._change(host, lambda connection: guest.resume(guest.demand(connection, uuid)))

    def close(self) -> None:
        """See the port."""
        for pool in self._pools.values():
            pool.close()

    def _pool(self, host: str) -> HostPool:
        try:
            return self._pools[host]
        except KeyError:
            raise OperatorMustFix(
                "UNKNOWN_HOST", f"{host} is not in the inventory", f"add [hosts.{host}] to the configuration"
            ) from None

    def _read(self, host: str, read: Callable[[Connection], T]) -> T:
        """A call that changes nothing; once more, on a new connection, when an idle one turns out to be dead."""
        try:
            with self._call(host, effect=False) as connection:
                return read(connection)
        except HostUnreachable as error:
            if error.code != "CONNECTION_LOST":
                raise
        with self._call(host, effect=False, fresh=True) as connection:
            return read(connection)

    def _change(self, host: str, change: Callable[[Connection], T]) -> T:
        """A call with an effect: never tried again here."""
        with self._call(host, effect=True) as connection:
            return change(connection)

    @contextmanager
    def _reading(self, host: str) -> Iterator[Connection]:
        """A connection for a stream out of the host."""
        with self._pool(host).checkout() as connection:
            try:
                yield connection
            except streams.Broken as broken:
                raise translate(broken.error, host, lost=not is_alive(connection), effect=False) from None

    @contextmanager
    def _call(self, host: str, *, effect: bool, fresh: bool = False) -> Iterator[Connection]:
        with self._pool(host).checkout(fresh=fresh) as connection:
            try:
                yield connection
            except libvirt.libvirtError as error:
                raise translate(error, host, lost=not is_alive(connection), effect=effect) from None
