"""Connections to one host's libvirt daemon: one for each call that runs, a few kept for the next.

libvirtd serves five requests at a time on one connection (``max_client_requests``), and any call may wait 30 s for a
domain's job lock: calls that share a connection would wait for each other.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import libvirt

from tasks.hypervisor.address import HostAddress, without_password, worker_uri
from tasks.hypervisor.errors import translate_open
from tasks.hypervisor.eventloop import start_event_loop
from tasks.model.errors import HostUnreachable
from tasks.parallel import make_thread

log = logging.getLogger(__name__)

MAX_IDLE = 8
"""Kept for the next call: two each (one blocks, one reads) for the four migrations of a host with default limits."""
MAX_OPENING = 5
"""sshd drops connections at random once ten are not yet authenticated (MaxStartups 10:30:100); two workers fit."""
MAX_HANGING = 20
"""Attempts that were given up and have not ended; a new one must wait for one of them then, so that a host that
swallows packets costs a bounded number of threads and ssh processes."""
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 3
"""A peer that went silent is noticed after about 20 s."""
CLOSE_TIMEOUT_S = 2.0

Connection = Any
"""libvirt.virConnect: libvirt-python has no types."""


class HostPool:
    """Connections to one host. Thread-safe; a connection belongs to one caller at a time."""

    def __init__(self, host: str, address: HostAddress, connect_timeout_s: float) -> None:
        self.host = host
        self.address = address
        self.generation = 0
        """Grows when a connection was found dead: what was cached about the daemon may be outdated since."""
        self._uri = worker_uri(address)
        self._connect_timeout_s = connect_timeout_s
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._opening = threading.BoundedSemaphore(MAX_OPENING)
        self._hanging = threading.BoundedSemaphore(MAX_OPENING + MAX_HANGING)
        self._pid = os.getpid()
        self._closed = False
        self._opening_spare = False

    @property
    def shown_uri(self) -> str:
        """The URI for messages."""
        return without_password(self._uri)

    @contextmanager
    def checkout(self, *, fresh: bool = False) -> Iterator[Connection]:
        """A connection for the caller alone; ``fresh`` takes no idle one.

        Raises:
            HostUnreachable: none could be opened within the connect timeout.
        """
        connection = None if fresh else self._take_idle()
        if connection is None:
            connection = self._open()
        else:
            self._keep_a_spare()
        try:
            yield connection
        finally:
            self._give_back(connection)

    def close(self) -> None:
        """Close the idle connections; one in use is closed when its caller is done. Takes two seconds at most."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        closers = [threading.Thread(target=_close, args=(c,), daemon=True) for c in idle]
        for closer in closers:
            closer.start()
        until = time.monotonic() + CLOSE_TIMEOUT_S
        for closer in closers:
            closer.join(max(0.0, until - time.monotonic()))

    def _take_idle(self) -> Connection | None:
        self._forget_after_fork()
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if is_alive(connection):
                return connection
            self._discard(connection)

    def _keep_a_spare(self) -> None:
        """Open the next one while the last idle one is in use.

        Over ssh a connection takes half a second: whoever watches a transfer must not begin with that.
        """
        with self._lock:
            if self._idle or self._opening_spare or self._closed:
                return
            self._opening_spare = True
        make_thread(self._open_spare, f"libvirt-spare-{self.host}").start()

    def _open_spare(self) -> None:
        try:
            self._give_back(self._open())
        except HostUnreachable as error:
            log.debug("no spare connection: %s", error)
        finally:
            self._opening_spare = False

    def _give_back(self, connection: Connection) -> None:
        if not is_alive(connection):
            self._discard(connection)
            return
        with self._lock:
            if not self._closed and len(self._idle) < MAX_IDLE:
                self._idle.append(connection)
                return
        _close(connection)

    def _discard(self, connection: Connection) -> None:
        with self._lock:
            self.generation += 1
        _close(connection)

    def _open(self) -> Connection:
        """Open in a thread: a host that drops packets keeps the call for about 127 s."""
        start_event_loop()
        until = time.monotonic() + self._connect_timeout_s
        if not self._opening.acquire(timeout=self._connect_timeout_s):
            raise self._timed_out()
        try:
            if not self._hanging.acquire(timeout=max(0.0, until - time.monotonic())):
                raise self._timed_out()
            opening = _Opening(self)
            make_thread(opening.run, f"libvirt-open-{self.host}").start()
            return opening.wait(until)
        finally:
            self._opening.release()

    def _timed_out(self) -> HostUnreachable:
        return HostUnreachable(
            "HOST_UNREACHABLE",
            f"{self.host} ({self.shown_uri}) did not answer within {self._connect_timeout_s:g} s",
            f"is it up, and is this right? virsh -c '{self.shown_uri}' version",
        )

    def _forget_after_fork(self) -> None:
        """A forked child must neither use nor close its parent's sockets."""
        if self._pid == os.getpid():
            return
        _FORSAKEN.extend(self._idle)
        self._idle, self._pid, self._lock = [], os.getpid(), threading.Lock()


class _Opening:
    """One attempt to open a connection, which its caller may give up on."""

    def __init__(self, pool: HostPool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._given_up = False
        self._connection: Connection | None = None
        self._error: HostUnreachable | None = None

    def run(self) -> None:
        """The thread: open, then hand over, or keep for later when nobody waits any more."""
        pool = self._pool
        try:
            self._connection = _open(pool._uri)
        except libvirt.libvirtError as error:
            self._error = translate_open(error, pool.host, pool.shown_uri)
        finally:
            pool._hanging.release()
        with self._lock:
            self._done.set()
            late = self._given_up and self._connection is not None
        if late:
            pool._give_back(self._connection)

    def wait(self, until: float) -> Connection:
        """The connection.

        Raises:
            HostUnreachable: it failed, or took too long.
        """
        self._done.wait(max(0.0, until - time.monotonic()))
        with self._lock:
            self._given_up = not self._done.is_set()
        if self._given_up:
            raise self._pool._timed_out()
        if self._connection is None:
            raise self._error or self._pool._timed_out()
        return self._connection


_FORSAKEN: list[Connection] = []
"""Keeps a parent's connections from being closed, over the parent's own sockets, when they are collected."""


def is_alive(connection: Connection) -> bool:
    """Whether libvirt still holds the connection open; looks at local state only."""
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def _open(uri: str) -> Connection:
    connection = libvirt.open(uri)
    # Drivers inside the process (test:///) have no peer to keep alive.
    with suppress(libvirt.libvirtError):
        connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
    return connection


def _close(connection: Connection) -> None:
    try:
        connection.close()
    except libvirt.libvirtError as error:
        log.debug("closing a connection: %s", error)
