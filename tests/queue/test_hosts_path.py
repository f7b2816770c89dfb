"""A VM that is shut off and goes from host to host, on a fake hypervisor that keeps nobody from resuming it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from tasks import workflow
from tasks.model.disks import Volume
from tasks.model.domain import DomainState
from tasks.model.errors import OperatorMustFix
from tasks.model.host import Pool
from tasks.model.run import State
from tests.fakes.hypervisor import FakeHost, domain_xml
from tests.queue.workbench import HOSTS, UUID, Bench

pytestmark = pytest.mark.queue

PATH = "/images/web.raw"
CONTENTS = b"boot" + bytes(4092)
DISK = f"<disk type='file' device='disk'><source file='{PATH}'/><target dev='vda'/></disk>"
OFF = {"alpha": (False, True, False)}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.01)


@pytest.fixture
def off(bench: Bench) -> Bench:
    """A shut-off VM with a disk, and a migration of it that has been prepared."""
    for name in HOSTS:
        host: FakeHost = bench.fake.hosts[name]
        pool = Pool("images", "dir", active=True, target="/images", available_bytes=1 << 30)
        host.facts = replace(host.facts, pools=(pool,))
    here = bench.fake.hosts["alpha"]
    here.volumes["images"] = {"web.raw": Volume("web.raw", PATH, 4096, 4096, "raw", 4096, "7.5")}
    here.contents[PATH] = bytearray(CONTENTS)
    bench.fake.add_domain("alpha", domain_xml("web-7", UUID, inside=DISK))
    bench.fake.set_autostart("alpha", UUID, enabled=True)
    bench.submit(data_path="hosts")
    bench.step("preflight")
    bench.step("prepare")
    return bench


def ends(bench: Bench) -> list[str]:
    """Hosts on which an instance was ended, in order."""
    return [host for call, host in bench.fake.calls if call == "end_paused"]


def nothing_on_beta(bench: Bench) -> bool:
    beta = bench.fake.hosts["beta"]
    return not beta.domains and not any(beta.volumes.values())


def test_it_arrives_and_is_shut_off(off: Bench) -> None:
    record = off.deliver_all()
    assert record.state is State.SUCCEEDED, record.error
    assert off.where() == {"beta": (False, True, False)}
    assert [call for call in off.fake.calls if call[0] in ("start_paused", "transfer", "end_paused", "resume")] == [
        ("start_paused", "alpha"),
        ("transfer", "alpha"),
        ("end_paused", "beta"),
    ]
    assert off.fake.hosts["beta"].contents[record.copies[0].path] == CONTENTS
    assert off.fake.hosts["beta"].domains[UUID].started == 0


def test_the_intent_is_written_before_it_is_started(off: Bench) -> None:
    with off.fake.failing("start_paused", OperatorMustFix("X", "no")):
        off.step("transfer")
    (entry,) = [e for e in off.record().journal if e.kind == "source_start"]
    assert not entry.done
    assert entry.value == f"1.{off.record().fence}"
    off.step("rollback")
    assert (off.record().state, off.where(), ends(off)) == (State.FAILED, OFF, [])


def test_a_transfer_that_fails_leaves_it_shut_off(off: Bench) -> None:
    with off.fake.failing("transfer", OperatorMustFix("MIGRATION_UNSAFE", "no")):
        record = off.deliver_all()
    assert (record.state, off.where(), ends(off)) == (State.FAILED, OFF, ["alpha"])
    assert nothing_on_beta(off)


@pytest.mark.parametrize("paused_again", [False, True])
def test_one_that_somebody_resumes_is_aborted_and_left_alone(off: Bench, paused_again: bool) -> None:
    """libvirt 9.0 would keep them from it while it moves; another hypervisor may not."""
    with off.fake.transfers_held():
        step = threading.Thread(target=off.step, args=("transfer",))
        step.start()
        until(lambda: off.fake.fetch_job("alpha", UUID).active)
        off.fake.resume("alpha", UUID)
        if paused_again:
            off.fake.suspend("alpha", UUID)
        step.join(10)
    assert ("abort_job", "alpha") in off.fake.calls
    off.step("rollback")
    record = off.record()
    assert (record.state, record.error and record.error.code) == (State.FAILED, "VM_STARTED")
    assert off.where() == {"alpha": (True, True, False)}
    assert off.fake.hosts["alpha"].domains[UUID].state is (DomainState.PAUSED if paused_again else DomainState.RUNNING)
    assert ends(off) == []
    assert nothing_on_beta(off)
    assert any("left alone" in words for words in record.kept)


def test_one_that_ran_and_has_arrived_is_left_to_a_person(off: Bench) -> None:
    """The abort came too late: what stands there has memory that its source did not have when it was started."""
    with off.fake.transfers_held(), off.fake.failing("abort_job", OperatorMustFix("X", "too late")):
        step = threading.Thread(target=off.step, args=("transfer",))
        step.start()
        until(lambda: off.fake.fetch_job("alpha", UUID).active)
        off.fake.resume("alpha", UUID)
        step.join(10)
    until(lambda: not off.fake.fetch_job("alpha", UUID).active)
    off.step("rollback")
    record = off.record()
    assert record.state is State.NEEDS_ATTENTION, record.error
    assert ends(off) == []
    assert off.fake.hosts["beta"].domains[UUID].state is DomainState.PAUSED
    assert off.fake.hosts["beta"].contents[record.copies[0].path] == CONTENTS


def test_contents_that_differ_end_it(off: Bench) -> None:
    off.step("transfer")
    off.fake.hosts["beta"].contents[off.record().copies[0].path][0] ^= 1
    record = off.deliver_all()
    assert (record.state, record.error and record.error.code) == (State.FAILED, "VERIFY_FAILED")
    assert off.where() == OFF
    assert nothing_on_beta(off)


def test_retry_begins_with_an_instance_of_its_own(off: Bench) -> None:
    with off.fake.failing("transfer", OperatorMustFix("X", "no")):
        off.deliver_all()
    workflow.retry(off.runtime, "m")
    workflow.dispatch(off.runtime)
    assert off.deliver_all().state is State.SUCCEEDED
    values = [e.value for e in off.record().journal if e.kind == "source_start"]
    assert len(set(values)) == len(values)
    assert off.where() == {"beta": (False, True, False)}
