"""Existing block devices that a disk is written to: what is refused, what is undone, and disks that grow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.model.run import RunRecord, State
from tests.lab import Guest, Lab
from tests.lab.devices import add_device
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack

pytestmark = pytest.mark.lab

MIB = 1024**2


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(lab, tmp_path_factory.mktemp("devices"), policies={"slow": {"bandwidth_mib_s": 8}}) as made:
        made.start()
        yield made


@pytest.fixture
def guest(make_guest: Callable[..., Guest], request: pytest.FixtureRequest) -> Guest:
    """Shut off, on a raw file of its host."""
    made = make_guest(f"dev-{request.node.name[5:25].strip('_')}", start="off", disk="local", disk_format="raw")
    made.fill_disk(((0, 1), (60, 1)))
    return made


def device(lab: Lab, guest: Guest, size_mib: int = 64) -> tuple[str, Path]:
    """A device on beta that bears the guest's name; its path there, and seen from here."""
    path = add_device(lab.host("beta"), guest.volume, size_mib)
    return path, lab.host("beta").root / path.lstrip("/")


def to_device(running: Stack, guest: Guest, path: str, **more: object) -> RunRecord:
    request = {"vm": guest.name, "destination": "beta", "devices": {"vda": path}, **more}
    return running.wait_end(running.client.submit(request).id)


def codes(record: RunRecord) -> set[str]:
    return {finding.code for finding in record.findings if finding.severity == "blocker"}


@pytest.mark.parametrize("live", [False, True])
def test_what_is_refused(running: Stack, lab: Lab, make_guest: Callable[..., Guest], guest: Guest, live: bool) -> None:
    """Before anything is written: too small, too large for a mirror, not empty, in use, not there."""
    if live:
        guest.start()
        guest.wait_ticking()
    small = add_device(lab.host("beta"), f"{guest.name}.small", 32)
    assert codes(to_device(running, guest, small)) == {"DEVICE_TOO_SMALL"}
    large = add_device(lab.host("beta"), f"{guest.name}.large", 80)
    assert ("DEVICE_SIZE_DIFFERS" in codes(to_device(running, guest, large, method="live"))) is live
    assert codes(to_device(running, guest, "/dev/none")) == {"DEVICE_UNSEEN"}
    path, node = device(lab, guest)
    with node.open("r+b") as file:
        file.seek(1080)
        file.write(b"\x53\xef")  # what makes an ext4 file system one
    before = node.read_bytes()
    assert codes(to_device(running, guest, path)) == {"DEVICE_NOT_EMPTY"}
    with lab.host("beta").connect() as conn:
        other = f"<domain type='qemu'><name>{guest.name}-other</name><memory>32768</memory><os><type>hvm</type></os>"
        other += f"<devices><disk type='block'><source dev='{path}'/><target dev='vda'/></disk></devices></domain>"
        domain = conn.defineXML(other)
        refused = to_device(running, guest, path, accept=["DEVICE_NOT_EMPTY"])
        domain.undefine()
    assert codes(refused) == {"DEVICE_IN_USE"}
    assert node.read_bytes() == before
    if not live:
        return
    shared = make_guest(f"{guest.name}-q", disk="local")
    assert codes(to_device(running, shared, path, accept=["DEVICE_NOT_EMPTY"])) == {"DEVICE_NEEDS_RAW"}


@pytest.mark.parametrize("point", ["transfer.moving", "verify.claimed"])
def test_an_empty_device_looks_empty_again(running: Stack, lab: Lab, guest: Guest, point: str) -> None:
    """Nothing that was copied there can be taken for a disk, and the next attempt finds it as this one did."""
    path, node = device(lab, guest)
    running.fail(point)
    record = to_device(running, guest, path)
    assert record.state is State.FAILED, running.diagnosis(record.id)
    check_invariants(running, guest, record, was_running=False, autostart=False)
    seen = node.read_bytes()
    assert not any(seen[:MIB])
    assert not any(seen[-MIB:])
    running.client.retry(record.id)
    again = running.wait_end(record.id)
    assert again.state is State.SUCCEEDED, running.diagnosis(record.id)
    assert again.attempt == 2
    guest.check_filled("beta")


def test_a_larger_device_offline(running: Stack, lab: Lab, guest: Guest) -> None:
    path, node = device(lab, guest, 100)
    record = to_device(running, guest, path)
    assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
    source = (lab.host("alpha").root / "var/lib/libvirt/images" / guest.volume).read_bytes()
    assert node.read_bytes()[: len(source)] == source


def test_two_migrations_never_write_to_one_device(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest], guest: Guest
) -> None:
    """The one that claims it first gets it, whatever the other's preflight saw; none is lost."""
    other = make_guest("dev-rival", start="off", disk="local", disk_format="raw")
    other.fill_disk(((3, 1),))
    path, _ = device(lab, guest)
    running.hold("transfer.claimed")
    first = running.client.submit({"vm": guest.name, "destination": "beta", "devices": {"vda": path}})
    running.wait_held()
    second = to_device(running, other, path)
    running.release()
    ended = running.wait_end(first.id)
    assert ended.state is State.SUCCEEDED, running.diagnosis(first.id)
    assert second.state is State.FAILED, running.diagnosis(second.id)
    assert second.error is not None
    assert second.error.code == "DEVICE_CLAIMED"
    guest.check_filled("beta")
    other.check_filled("alpha")


@pytest.mark.parametrize("start", ["off", "running"])
def test_a_disk_grows_when_it_has_arrived(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest], start: str
) -> None:
    guest = make_guest(f"grow-{start}", start=start, disk="local", disk_mib=40)
    if start == "running":
        guest.wait_ticking()
    request = {"vm": guest.name, "destination": "beta", "sizes": {"vda": 80 * MIB}}
    record = running.wait_end(running.client.submit(request).id)
    assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
    check_invariants(running, guest, record, was_running=start == "running", autostart=False)
    assert record.left_to_do == ()
    with lab.host("beta").connect() as conn:
        assert conn.lookupByUUIDString(guest.uuid).blockInfo("vda")[0] == 80 * MIB
