"""The pool, on libvirt's own in-process driver and on a socket that never answers."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import libvirt
import pytest

from tasks.hypervisor import connection
from tasks.hypervisor.address import HostAddress
from tasks.hypervisor.connection import HostPool
from tasks.hypervisor.eventloop import start_event_loop
from tasks.model.errors import HostUnreachable


@pytest.fixture
def pool() -> Iterator[HostPool]:
    made = HostPool("alpha", HostAddress("test:///default"), 5)
    yield made
    made.close()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Takes connections and says nothing, as a frozen daemon does."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield server.getsockname()[1]


def test_an_idle_connection_is_used_again(pool: HostPool) -> None:
    with pool.checkout() as first:
        pass
    with pool.checkout() as second:
        assert second is first
    with pool.checkout(fresh=True) as third:
        assert third is not first


def test_two_callers_never_share_a_connection(pool: HostPool) -> None:
    with ExitStack() as stack:
        taken = [stack.enter_context(pool.checkout()) for _ in range(connection.MAX_IDLE + 2)]
        assert len({id(one) for one in taken}) == len(taken)
        assert all(one.isAlive() for one in taken)
    assert sum(connection.is_alive(one) for one in taken) == connection.MAX_IDLE


def test_a_dead_connection_is_not_handed_out(pool: HostPool) -> None:
    with pool.checkout() as first:
        pass
    first.close()
    generation = pool.generation
    with pool.checkout() as second:
        assert second is not first
        assert second.isAlive()
    assert pool.generation > generation


def test_a_closed_pool_keeps_nothing(pool: HostPool) -> None:
    with pool.checkout() as late, pool.checkout() as early:
        pass
    pool.close()
    assert not connection.is_alive(early)
    assert not connection.is_alive(late)
    with pool.checkout() as last:
        assert last.isAlive()
    assert not connection.is_alive(last)


def test_while_the_last_idle_one_is_used_a_spare_is_opened(pool: HostPool) -> None:
    with pool.checkout() as first:
        pass
    with pool.checkout() as again:
        assert again is first
        until = time.monotonic() + 5
        while not pool._idle and time.monotonic() < until:
            time.sleep(0.005)
        assert len(pool._idle) == 1
        assert pool._idle[0] is not first


def test_nothing_listens() -> None:
    pool = HostPool("alpha", HostAddress("qemu+tcp://me:secret@127.0.0.1:1/system"), 5)
    with pytest.raises(HostUnreachable) as caught, pool.checkout():
        pass
    assert caught.value.code == "HOST_UNREACHABLE"
    assert "Connection refused" in caught.value.message
    assert "secret" not in str(caught.value)


def test_a_silent_host_costs_the_connect_timeout_and_no_more(silent_port: int) -> None:
    pool = HostPool("alpha", HostAddress(f"qemu+tcp://127.0.0.1:{silent_port}/system"), 0.5)
    took, errors = [], []

    def attempt() -> None:
        began = time.monotonic()
        try:
            with pool.checkout():
                pass
        except HostUnreachable as error:
            errors.append(error.code)
        took.append(time.monotonic() - began)

    threads = [threading.Thread(target=attempt) for _ in range(3 * connection.MAX_OPENING)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert errors == ["HOST_UNREACHABLE"] * len(threads)
    assert max(took) < 1.5
    hanging = [thread for thread in threading.enumerate() if thread.name == "libvirt-open-alpha"]
    assert 0 < len(hanging) <= connection.MAX_OPENING + connection.MAX_HANGING


def test_a_connection_that_opens_too_late_is_kept_for_the_next(monkeypatch: pytest.MonkeyPatch, pool: HostPool) -> None:
    opened: list[object] = []
    go = threading.Event()

    def slow(uri: str) -> object:
        go.wait(10)
        opened.append(real(uri))
        return opened[-1]

    real = libvirt.open
    monkeypatch.setattr(libvirt, "open", slow)
    late = HostPool("alpha", HostAddress("test:///default"), 0.2)
    with pytest.raises(HostUnreachable), late.checkout():
        pass
    go.set()
    until = time.monotonic() + 5
    while not late._idle and time.monotonic() < until:
        time.sleep(0.01)
    with late.checkout() as kept:
        assert opened[0] is kept
    late.close()


def test_a_forked_child_is_told_to_open_its_own_before_the_fork(pool: HostPool) -> None:
    with pool.checkout():
        pass
    child = os.fork()
    if child == 0:
        try:
            start_event_loop()
        except RuntimeError:
            os._exit(42)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
