"""Windows that several migrations use: nobody's is ended under another one's hands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tasks.model.errors import OperatorMustFix
from tasks.model.run import State
from tests.fakes.hypervisor import FakeHypervisor, domain_xml
from tests.queue.workbench import Bench

pytestmark = pytest.mark.queue

SAVES = "/var/lib/libvirt/qemu/save"
UUIDS = {"a": "aaaaaaaa-2222-3333-4444-555555555555", "b": "bbbbbbbb-2222-3333-4444-555555555555"}


@pytest.fixture
def two(bench: Bench) -> Bench:
    """Two VMs that go saved from alpha to beta at the same time."""
    for name, uuid in UUIDS.items():
        bench.fake.add_domain("alpha", domain_xml(name, uuid), running=True)
        bench.submit(name, vm=name, method="saved")
        for step in ("preflight", "prepare"):
            bench.step(step, name)
    return bench


def windows(bench: Bench) -> list[tuple[str, str]]:
    hosts = bench.fake.hosts.items()
    return [(name, pool.target or "") for name, host in hosts for pool in host.facts.pools]


def between(bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str, other: Callable[[], Any]) -> None:
    """Once, right before the next call of this name has its effect."""
    original, left = getattr(FakeHypervisor, call), [other]

    def slow(*args: Any, **kwargs: Any) -> Any:
        if left:
            left.pop()()
        return original(*args, **kwargs)

    monkeypatch.setattr(FakeHypervisor, call, slow)


def finish(bench: Bench, *names: str) -> None:
    for name in names:
        for step in ("verify", "finish"):
            bench.step(step, name)
        record = bench.record(name)
        assert record.state is State.SUCCEEDED, record.error


def test_the_last_one_ends_it(two: Bench) -> None:
    for name in UUIDS:
        two.step("transfer", name)
    assert windows(two) == [("alpha", SAVES), ("beta", SAVES)]
    finish(two, "a")
    assert windows(two) == [("alpha", SAVES), ("beta", SAVES)]
    finish(two, "b")
    assert windows(two) == []


def test_a_rollback_leaves_it_to_another(two: Bench) -> None:
    two.step("transfer", "a")
    with two.fake.failing("restore", OperatorMustFix("X", "no")):
        two.step("transfer", "b")
    two.step("rollback", "b")
    assert two.record("b").state is State.FAILED, two.record("b").error
    assert windows(two) == [("alpha", SAVES), ("beta", SAVES)]
    finish(two, "a")
    assert windows(two) == []


@pytest.mark.parametrize("undone", [("a", "b"), ("b", "a")])
def test_two_rollbacks(two: Bench, undone: tuple[str, str]) -> None:
    with two.fake.failing("restore", OperatorMustFix("X", "no")):
        for name in UUIDS:
            two.step("transfer", name)
    for name in undone:
        two.step("rollback", name)
        assert two.record(name).state is State.FAILED, two.record(name).error
    assert windows(two) == []
    assert not any(two.fake.hosts["beta"].volumes.values())
    assert not two.fake.hosts["beta"].loose
    assert all(two.fake.hosts["alpha"].domains[uuid].active for uuid in UUIDS.values())


def test_two_begin_at_the_same_moment(two: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    between(two, monkeypatch, "open_window", lambda: two.step("transfer", "b"))
    two.step("transfer", "a")
    finish(two, "a", "b")
    assert windows(two) == []


def test_one_begins_while_another_ends_it(two: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits until that has been done, and opens one of its own then."""
    two.step("transfer", "a")
    between(two, monkeypatch, "close_window", lambda: two.step("transfer", "b"))
    finish(two, "a")
    waiting = two.record("b")
    assert waiting.waiting_for is not None
    assert "a is just ending pool" in waiting.waiting_for
    assert waiting.error is None
    two.step("transfer", "b")
    finish(two, "b")
    assert windows(two) == []


def test_an_owner_that_dies_while_it_ends_it(two: Bench) -> None:
    """Its intent stands: who opens it waits, and whoever adopts it goes on there."""
    two.step("transfer", "a")
    two.step("verify", "a")
    with two.fake.failing("close_window", OperatorMustFix("X", "no")):
        two.step("finish", "a")
    assert any(e.kind == "window_close" and not e.undone for e in two.record("a").journal)
    two.step("transfer", "b")
    assert two.record("b").waiting_for is not None
    two.step("rollback", "a")  # it has moved: forward
    finish(two, "a")
    two.step("transfer", "b")
    finish(two, "b")
    assert windows(two) == []


def test_a_window_that_a_restart_took_is_opened_again(two: Bench) -> None:
    two.step("transfer", "a")
    for host in ("alpha", "beta"):
        for pool in two.fake.hosts[host].facts.pools:
            two.fake.close_window(host, pool.name)
    finish(two, "a")
    assert two.fake.hosts["beta"].domains[UUIDS["a"]].active


def test_a_pool_of_that_directory_is_used_as_it_is(bench: Bench) -> None:
    bench.fake.add_domain("alpha", domain_xml("a", UUIDS["a"]), running=True)
    for host in ("alpha", "beta"):
        pool = (
            f"<pool type='dir'><name>saves</name><uuid>{UUIDS['b']}</uuid><target><path>{SAVES}</path></target></pool>"
        )
        bench.fake.define_pool(host, pool)
        bench.fake.start_pool(host, UUIDS["b"], build=True)
    bench.submit("a", vm="a", method="saved")
    record = bench.deliver_all("a")
    assert record.state is State.SUCCEEDED, record.error
    assert windows(bench) == [("alpha", SAVES), ("beta", SAVES)]
