"""The destination gets what disks need that stay on shared storage, and loses it again when the VM does not come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tasks.model.domain import Mark
from tasks.model.run import RunRecord, State
from tasks.planning.object_mark import mark_uuid
from tests.lab import Guest, Host, Lab, Snapshot, check_unchanged, snapshot
from tests.lab.faults import pool_gone, pool_inactive
from tests.lab.host import SHARED_PATH
from tests.lab.spec import STORE_ADDRESS
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack

pytestmark = pytest.mark.lab

POINTS = [
    *(f"prepare.{when}-{kind}" for kind in ("destination_pool", "proof_volume") for when in ("journaled", "effected")),
    "prepare.effected-probe",
    "prepare.done",
    "transfer.claimed",
]


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(lab, tmp_path_factory.mktemp("prepare")) as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def off(lab: Lab) -> Iterator[Guest]:
    """Shut off, on shared storage, at alpha; tests that move it bring it back."""
    made = lab.guest("prepare-off", start="off", disk_format="raw", autostart=True)
    yield made
    made.remove()


@pytest.fixture
def without_pool(lab: Lab) -> Iterator[Snapshot]:
    """Beta has no shared pool; yields how everything is now."""
    with pool_gone(lab.host("beta"), "shared"):
        yield snapshot(lab)


def submit(running: Stack, guest: Guest, **asked: object) -> str:
    return running.client.submit({"vm": guest.name, "destination": "beta"} | asked).id


def move(running: Stack, guest: Guest, **asked: object) -> RunRecord:
    return running.wait_end(submit(running, guest, **asked))


def bring_back(running: Stack, guest: Guest) -> None:
    back = running.wait_end(running.client.submit({"vm": guest.name, "destination": "alpha"}).id)
    assert back.state is State.SUCCEEDED, running.diagnosis(back.id)


def code_of(record: RunRecord) -> str:
    assert record.error is not None
    assert record.error.hint
    return record.error.code


def pool_of(host: Host, name: str = "shared") -> tuple[str, bool, bool]:
    """UUID, whether it is active, whether it is started at boot."""
    with closing(host.connect()) as conn:
        pool = conn.storagePoolLookupByName(name)
        return pool.UUIDString(), bool(pool.isActive()), bool(pool.autostart())


@pytest.mark.parametrize("start", ["running", "off"])
def test_a_missing_pool_is_made_and_stays(
    running: Stack, lab: Lab, without_pool: Snapshot, make_guest: Callable[..., Guest], start: str
) -> None:
    guest = make_guest(f"made-{start}", start=start)
    if start == "running":
        guest.wait_ticking()
    plan = running.client.plan({"vm": guest.name, "destination": "beta"})
    words = f"pool shared on beta ({STORE_ADDRESS}:shared at {SHARED_PATH})"
    assert plan.allowed
    assert words in plan.creates
    assert "POOL_MADE" in [finding.code for finding in plan.findings]
    with guest.watch() as watch:
        record = move(running, guest)
        assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
        check_invariants(running, guest, record, was_running=start == "running", autostart=False, watch=watch)
    assert (record.storage, record.created[0]) == ("shared", words)
    made = next(entry for entry in record.journal if entry.kind == "destination_pool")
    fence = int(made.value.partition('"fence":')[2].partition(",")[0])
    assert pool_of(lab.host("beta")) == (mark_uuid(Mark(record.id, 1, fence), "pool/shared"), True, True)
    assert [e.kind for e in record.journal if "prob" in e.kind and not e.undone] == []
    if start == "running":
        guest.wait_ticking("beta")
    bring_back(running, guest)


@pytest.mark.parametrize("point", POINTS)
def test_what_breaks_leaves_nothing_behind(
    running: Stack, lab: Lab, off: Guest, without_pool: Snapshot, point: str
) -> None:
    running.fail(point)
    record = move(running, off)
    running.check_failed()
    assert record.state is State.FAILED, running.diagnosis(record.id)
    check_unchanged(lab, without_pool)


@pytest.mark.parametrize("point", POINTS)
def test_kill9_and_another_worker_goes_on(
    running: Stack, lab: Lab, off: Guest, without_pool: Snapshot, point: str
) -> None:
    running.hold(point)
    run_id = submit(running, off)
    running.wait_held()
    replace_worker(running)
    record = running.wait_end(run_id)
    assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
    check_invariants(running, off, record, was_running=False, autostart=True)
    assert pool_of(lab.host("beta"))[1:] == (True, True)
    assert [e.kind for e in record.journal if "prob" in e.kind and not e.undone] == []
    bring_back(running, off)


@pytest.mark.parametrize("point", POINTS)
def test_kill9_and_cancelled(running: Stack, lab: Lab, off: Guest, without_pool: Snapshot, point: str) -> None:
    running.hold(point)
    run_id = submit(running, off)
    running.wait_held()
    running.client.cancel(run_id)
    replace_worker(running)
    record = running.wait_end(run_id)
    assert record.state is State.CANCELLED, running.diagnosis(record.id)
    check_unchanged(lab, without_pool)


def test_kill9_while_it_is_undone(running: Stack, lab: Lab, off: Guest, without_pool: Snapshot) -> None:
    running.hold("prepare.done")
    run_id = submit(running, off)
    running.wait_held()
    running.client.cancel(run_id)
    running.hold("rollback.effected")
    running.wait_held()
    replace_worker(running)
    record = running.wait_end(run_id)
    assert record.state is State.CANCELLED, running.diagnosis(record.id)
    check_unchanged(lab, without_pool)


def replace_worker(running: Stack) -> None:
    """The steps worker dies hard, and there is another one."""
    running.workers.pop(1).kill9()
    running.steps_worker()


def test_an_inactive_pool_is_started(running: Stack, lab: Lab, off: Guest) -> None:
    beta = lab.host("beta")
    with pool_inactive(beta, "shared"):
        before = snapshot(lab)
        running.fail("prepare.done")
        failed = move(running, off)
        assert failed.state is State.FAILED, running.diagnosis(failed.id)
        check_unchanged(lab, before)
        moved = move(running, off)
        assert moved.state is State.SUCCEEDED, running.diagnosis(moved.id)
        assert "POOL_STARTED" in [finding.code for finding in moved.findings]
        assert pool_of(beta)[1]
        bring_back(running, off)
        beta.virsh("pool-destroy", "shared")


@contextmanager
def other_pool(host: Host, name: str, target: str) -> Iterator[None]:
    """A directory pool of the host's own."""
    host.virsh("pool-define-as", name, "dir", "--target", target)
    try:
        yield
    finally:
        host.virsh("pool-undefine", name)


@pytest.mark.parametrize(
    ("name", "target", "code"),
    [
        ("shared", "/var/lib/libvirt/other", "POOL_NAME_TAKEN"),
        ("other", SHARED_PATH, "POOL_TARGET_TAKEN"),
        ("other", f"{SHARED_PATH}/below", "POOL_TARGET_TAKEN"),
    ],
)
def test_nothing_is_made_over_what_is_there(
    running: Stack, lab: Lab, off: Guest, without_pool: Snapshot, name: str, target: str, code: str
) -> None:
    with other_pool(lab.host("beta"), name, target):
        before = snapshot(lab)
        record = move(running, off, storage="shared")
        assert record.state is State.REFUSED
        blockers = {finding.code: finding.hint for finding in record.findings if finding.severity == "blocker"}
        assert blockers[code]
        check_unchanged(lab, before)


def test_nothing_is_mounted_over_files(running: Stack, lab: Lab, off: Guest, without_pool: Snapshot) -> None:
    """libvirt would hide them without a word."""
    folder = lab.host("beta").root / SHARED_PATH.lstrip("/")
    folder.mkdir()
    (folder / "somebodys.raw").write_text("data")
    try:
        before = snapshot(lab)
        record = move(running, off)
        assert (record.state, code_of(record)) == (State.FAILED, "MOUNT_POINT_NOT_EMPTY"), running.diagnosis(record.id)
        check_unchanged(lab, before)
    finally:
        (folder / "somebodys.raw").unlink()


def test_a_directory_that_was_there_stays(running: Stack, lab: Lab, off: Guest, without_pool: Snapshot) -> None:
    folder = lab.host("beta").root / SHARED_PATH.lstrip("/")
    folder.mkdir(mode=0o750)
    before = snapshot(lab)
    running.fail("prepare.done")
    record = move(running, off)
    assert record.state is State.FAILED, running.diagnosis(record.id)
    check_unchanged(lab, before)


@contextmanager
def another_file_system(host: Host, guest: Guest) -> Iterator[None]:
    """Something else is mounted above the pool's directory, with a file like the guest's disk in it."""
    host.run(["mount", "-t", "tmpfs", "tmpfs", SHARED_PATH])
    try:
        Path(f"/proc/{host.pid}/root{SHARED_PATH}/{guest.volume}").write_bytes(bytes(1 << 20))
        yield
    finally:
        host.run(["umount", SHARED_PATH])
        host.virsh("pool-refresh", "shared")


@pytest.mark.parametrize("start", ["running", "off"])
def test_a_file_system_that_only_looks_the_same(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest], start: str
) -> None:
    """Name, export and path are as they should be; live, libvirt itself would believe it as well."""
    guest = make_guest(f"feigned-{start}", start=start)
    with another_file_system(lab.host("beta"), guest):
        before = snapshot(lab)
        record = move(running, guest)
        assert (record.state, code_of(record)) == (State.FAILED, "SHARE_NOT_PROVEN"), running.diagnosis(record.id)
        check_unchanged(lab, before)
    check_invariants(running, guest, record, was_running=start == "running", autostart=False)


@pytest.mark.parametrize("side", ["alpha", "beta"])
def test_one_that_cannot_be_written_to(running: Stack, lab: Lab, off: Guest, side: str) -> None:
    lab.host(side).run(["mount", "-o", "remount,bind,ro", SHARED_PATH])
    try:
        record = move(running, off)
    finally:
        lab.host(side).run(["mount", "-o", "remount,bind,rw", SHARED_PATH])
    assert (record.state, code_of(record)) == (State.FAILED, "SHARE_NOT_PROVEN"), running.diagnosis(record.id)
    check_invariants(running, off, record, was_running=False, autostart=True)


def test_a_pool_that_another_vm_has_come_to_use_is_left(
    running: Stack, lab: Lab, off: Guest, without_pool: Snapshot, make_guest: Callable[..., Guest]
) -> None:
    second = make_guest("second-1")
    second.wait_ticking()
    running.hold("prepare.done")
    first_id = submit(running, off)
    running.wait_held()
    moved = move(running, second)
    assert moved.state is State.SUCCEEDED, running.diagnosis(moved.id)
    assert [e for e in moved.journal if e.kind == "destination_pool"] == []
    running.client.cancel(first_id)
    running.release()
    first = running.wait_end(first_id)
    assert first.state is State.CANCELLED, running.diagnosis(first.id)
    assert ["second-1" in kept and "pool shared on beta" in kept for kept in first.kept] == [True]
    assert pool_of(lab.host("beta"))[1]
    second.wait_ticking("beta")
    check_invariants(running, off, first, was_running=False, autostart=True)
    bring_back(running, second)


def test_two_at_once_make_one_pool(
    running: Stack, lab: Lab, off: Guest, without_pool: Snapshot, make_guest: Callable[..., Guest]
) -> None:
    """Both saw that there was none; one of them makes it, and neither fails for the other."""
    second = make_guest("twin-1", start="off", disk_format="raw")
    running.hold("prepare.journaled-destination_pool")
    first_id = submit(running, off)
    running.wait_held()
    moved = move(running, second)
    assert moved.state is State.SUCCEEDED, running.diagnosis(moved.id)
    running.release()
    first = running.wait_end(first_id)
    assert first.state is State.SUCCEEDED, running.diagnosis(first.id)
    assert [e.undone for e in first.journal if e.kind == "destination_pool"] == [True]
    bring_back(running, off)
    bring_back(running, second)


DEEP = "/var/lib/libvirt/deep/er/pool"
DEEP_POOL = f"""<pool type='netfs'><name>deep</name>
<source><host name='{STORE_ADDRESS}'/><dir path='/shared'/><format type='glusterfs'/></source>
<target><path>{DEEP}</path></target></pool>"""
DEEP_DISK = "<disk type='volume' device='disk'><source pool='deep' volume='{}'/><target dev='vdd' bus='virtio'/></disk>"


@contextmanager
def deep_pool(host: Host) -> Iterator[None]:
    """A netfs pool in a directory some levels down."""
    with closing(host.connect()) as conn:
        pool = conn.storagePoolDefineXML(DEEP_POOL)
        pool.build(0)
        pool.create(0)
        try:
            yield
        finally:
            pool.destroy()
            pool.undefine()
            host.run(["rmdir", DEEP, str(Path(DEEP).parent), str(Path(DEEP).parents[1])])


def test_directories_above_it_go_as_well(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    """A volume is looked up by its pool's name; no autostart on the source, none on the destination."""
    with deep_pool(lab.host("alpha")):
        guest = make_guest("deep-1", start="off", disk=None, extra_xml=DEEP_DISK.format("deep-1.raw"))
        lab.host("alpha").virsh("vol-create-as", "deep", "deep-1.raw", "1M")
        before = snapshot(lab)
        running.fail("prepare.done")
        failed = move(running, guest)
        assert failed.state is State.FAILED, running.diagnosis(failed.id)
        check_unchanged(lab, before)
        moved = move(running, guest)
        assert moved.state is State.SUCCEEDED, running.diagnosis(moved.id)
        assert pool_of(lab.host("beta"), "deep")[1:] == (True, False)
        lab.host("alpha").virsh("vol-delete", "deep-1.raw", "--pool", "deep")
        guest.remove()
        for command in ("pool-destroy", "pool-undefine"):
            lab.host("beta").virsh(command, "deep")
        lab.host("beta").run(["rmdir", DEEP, str(Path(DEEP).parent), str(Path(DEEP).parents[1])])
