"""Many calls at once: in order, with an end, and in the caller's context."""

from __future__ import annotations

import contextvars
import threading

import pytest

from tasks.parallel import ContextPool, gather, make_thread

name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")


def test_a_call_that_never_returns_is_left_out() -> None:
    never = threading.Event()
    calls = {n: (never.wait if n == 3 else lambda n=n: n * n) for n in range(10)}
    found = gather(calls, at_once=4, timeout_s=1.0)
    assert found == {n: n * n for n in range(10) if n != 3}
    assert list(found) == [n for n in range(10) if n != 3]
    never.set()


def test_an_error_is_raised() -> None:
    def fail() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        gather({"a": fail}, at_once=1, timeout_s=10.0)


def test_nothing_to_do() -> None:
    assert gather({}, at_once=4, timeout_s=10.0) == {}


def test_threads_have_the_context_of_whoever_made_them() -> None:
    token = name.set("web-7")
    heard: list[str] = []
    thread = make_thread(lambda: heard.append(name.get()), "t")
    with ContextPool(2) as pool:
        futures = [pool.submit(name.get), pool.submit(name.get)]
        mapped = list(pool.map(lambda _: name.get(), range(2)))
    found = gather({1: name.get}, at_once=1, timeout_s=10.0)
    name.reset(token)
    thread.start()
    thread.join()
    assert heard == ["web-7"]
    assert [f.result() for f in futures] + mapped + list(found.values()) == ["web-7"] * 5
