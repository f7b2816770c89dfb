"""Every way a VM can go, each by the same tests: it arrives, and whatever breaks on the way leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tasks.model.run import RunRecord, State
from tests.lab import Guest, GuestWatch, Lab, check_unchanged, snapshot
from tests.lab.devices import DEVICES_PATH, add_device
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack, until

pytestmark = pytest.mark.lab

BUSY = {"disk": "local", "disk_mib": 32, "write_kib_s": 16384, "write_stop": 512}
"""A disk that only its host has, which the guest writes, and then reads again all the time."""


@dataclass(frozen=True, slots=True)
class Row:
    """One way."""

    name: str
    method: str
    storage: str
    start: str = "running"
    asked: dict[str, Any] = field(default_factory=dict)
    """The request beside VM and destination; nothing: both are chosen."""
    options: dict[str, Any] = field(default_factory=dict)
    """The guest."""
    devices: bool = False
    """Every host has a block device that the guest's disk is written to when it comes there."""

    @property
    def reboots(self) -> bool:
        """Whether it is shut down on the way."""
        return "shut_down" in self.asked

    @property
    def running(self) -> bool:
        """Whether the guest runs, before and after."""
        return self.start == "running"

    @property
    def active(self) -> bool:
        """Whether it has memory to be moved."""
        return self.start != "off"


ROWS = [
    Row("live-shared", "live", "shared"),
    Row("live-copy", "live", "copy", options=BUSY),
    Row("suspend-shared", "suspend", "shared", asked={"method": "suspend"}),
    Row("suspend-copy", "suspend", "copy", asked={"method": "suspend"}, options=BUSY),
    Row("suspend-paused", "suspend", "shared", "paused", asked={"method": "suspend"}),
    Row("offline-shared", "offline", "shared", "off"),
    Row("offline-copy", "offline", "copy", "off", options={"disk": "local", "disk_format": "raw", "disk_mib": 80}),
]
HOSTS = {"data_path": "hosts"}
OFF = {"disk": "local", "disk_mib": 80}
ROWS += [
    Row("offline-hosts", "offline", "copy", "off", HOSTS, OFF | {"disk_format": "raw"}),
    Row("offline-hosts-qcow2", "offline", "copy", "off", HOSTS, OFF | {"second_disk": "local"}),
]
NFS = {"disk": "nfs", "disk_mib": 32, "write_kib_s": 16384, "write_stop": 512}
"""A disk that QEMU reaches over the network by itself."""
ROWS += [
    Row("live-nfs", "live", "shared", options=NFS),
    Row("suspend-nfs", "suspend", "shared", asked={"method": "suspend"}, options=NFS),
    Row("offline-nfs", "offline", "shared", "off", options={"disk": "nfs"}),
]
SAVED = {"method": "saved"}
ROWS += [
    Row("saved-nfs", "saved", "shared", asked=SAVED, options=NFS),
    Row("saved-shared", "saved", "shared", asked=SAVED),
    Row("saved-copy", "saved", "copy", asked=SAVED, options=BUSY),
    Row("saved-paused", "saved", "shared", "paused", asked=SAVED),
]
CHAIN = {"below": ("qcow2", "raw")}
OFF_CHAIN = {"disk": "local", "disk_mib": 40, **CHAIN}
INCREMENTAL = {"storage": "incremental"}
ROWS += [
    Row("live-flattened", "live", "copy", options=BUSY | CHAIN),
    Row("live-incremental", "live", "incremental", asked=INCREMENTAL, options=BUSY | CHAIN),
    Row(
        "live-incremental-present",
        "live",
        "incremental",
        asked=INCREMENTAL,
        options=BUSY | CHAIN | {"below_everywhere": True},
    ),
    Row(
        "suspend-incremental",
        "suspend",
        "incremental",
        asked={"method": "suspend"} | INCREMENTAL,
        options=BUSY | CHAIN | {"below_everywhere": True},
    ),
    Row("offline-chain", "offline", "copy", "off", options=OFF_CHAIN),
    Row(
        "offline-incremental",
        "offline",
        "incremental",
        "off",
        asked=INCREMENTAL,
        options=OFF_CHAIN | {"below_everywhere": True},
    ),
]
RAW = {"disk_format": "raw", "disk_mib": 80}
BUSY_RAW = {"disk_format": "raw", "disk_mib": 32, "write_kib_s": 16384, "write_stop": 512}
ON_DEVICE = {"accept": ["DEVICE_NOT_EMPTY"]}
TO_FILE = {"pools": {"vda": "local"}}
ROWS += [
    Row("offline-devices", "offline", "copy", "off", ON_DEVICE, RAW | {"disk": "devices"}, devices=True),
    Row("offline-to-device", "offline", "copy", "off", ON_DEVICE, RAW | {"disk": "local"}, devices=True),
    Row("offline-to-file", "offline", "copy", "off", TO_FILE, RAW | {"disk": "devices"}),
    Row("live-devices", "live", "copy", "running", ON_DEVICE, BUSY_RAW | {"disk": "devices"}, devices=True),
    Row("live-to-device", "live", "copy", "running", ON_DEVICE, BUSY_RAW | {"disk": "local"}, devices=True),
    Row("live-to-file", "live", "copy", "running", TO_FILE, BUSY_RAW | {"disk": "devices"}),
]
SHUT_DOWN = {"method": "offline", "shut_down": "allowed"}
HEARS = {"button_ms": 200}
"""It heeds the power button."""
ROWS += [
    Row("shut-down-shared", "offline", "shared", asked=SHUT_DOWN, options=HEARS),
    Row("shut-down-copy", "offline", "copy", asked=SHUT_DOWN, options=HEARS | BUSY),
]
BREAKS = [
    "preflight.claimed",
    "prepare.effected",
    "prepare.done",
    "transfer.claimed",
    "transfer.moving",
    "transfer.done",
    "verify.claimed",
    "finish.claimed",
]


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(lab, tmp_path_factory.mktemp("methods"), policies={"slow": {"bandwidth_mib_s": 4}}) as made:
        made.start()
        yield made


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.name)
def row(request: pytest.FixtureRequest) -> Row:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def guest(lab: Lab, row: Row) -> Iterator[Guest]:
    """One for all tests of a row; it goes on from wherever the test before left it."""
    made = lab.guest(f"way-{row.name}", start=row.start, autostart=True, **row.options)
    if row.devices:
        for name in set(lab.spec.hosts) - ({"alpha"} if row.options["disk"] == "devices" else set()):
            add_device(lab.host(name), made.volume, row.options["disk_mib"])
    if not row.active and row.options.get("below"):
        made.visible = made.guest_visible("alpha")
    if row.start == "off" and row.options.get("disk_format") == "raw":
        made.fill_disk(((0, 2), (30, 1), (70, 2)))
    if row.running:
        made.wait_ticking()
    if row.running and row.options.get("write_kib_s"):
        made.wait_verified(1)
    yield made
    made.remove()


@pytest.fixture
def move(running: Stack, lab: Lab, row: Row, guest: Guest) -> Iterator[Callable[..., RunRecord]]:
    """Moves the guest on to the next host, and checks every promise at the end."""
    ended: list[RunRecord] = []

    def go(**more: Any) -> RunRecord:
        here, there = _host_of(lab, guest), _next_host(lab, guest)
        if row.devices:
            more["devices"] = {"vda": f"{DEVICES_PATH}/{guest.volume}"}
        if row.start == "paused":
            guest.blink(here)
        record = running.client.submit({"vm": guest.name, "destination": there, **row.asked, **more})
        ended.append(running.wait_end(record.id))
        return ended[-1]

    with guest.watch() as watch:
        yield go
        for record in ended:
            check_everything(running, row, guest, record, watch)


def _host_of(lab: Lab, guest: Guest) -> str:
    return next(host for host, seen in lab.states(guest.uuid).items() if seen is not None)


def _next_host(lab: Lab, guest: Guest) -> str:
    """Where it goes next."""
    return lab.spec.hosts[(lab.spec.hosts.index(_host_of(lab, guest)) + 1) % len(lab.spec.hosts)]


def check_everything(running: Stack, row: Row, guest: Guest, record: RunRecord, watch: GuestWatch) -> None:
    """Where it is, that it went on, and what is on its disks."""
    here = record.destination if record.state is State.SUCCEEDED else str(record.source)
    check_invariants(running, guest, record, was_running=row.active, autostart=True)
    watch.check_never_twice(rebooted=row.reboots)
    if row.reboots:
        until(lambda: watch.beats_on(here), 60, "it does not beat")
    elif row.running:
        guest.wait_ticking(here)
        watch.check_continued()
    else:
        assert watch.ticks() == [], "the guest ran, which it should not"
    if row.running and row.options.get("write_kib_s"):
        guest.wait_verified_anew(here)
    if guest.filled:
        guest.check_filled(here)
    if not row.active and row.options.get("below"):
        assert guest.guest_visible(here) == guest.visible


@pytest.mark.parametrize("point", BREAKS)
def test_what_breaks_leaves_nothing_behind(
    running: Stack, lab: Lab, row: Row, guest: Guest, move: Callable[..., RunRecord], point: str
) -> None:
    """Before the VM has moved everything is undone, to the last file; afterwards the only way is forward."""
    if point == "transfer.moving" and (row.method, row.storage) == ("offline", "shared"):
        pytest.skip("nothing moves there but the definition")
    there = _next_host(lab, guest)
    before = snapshot(lab, there)
    running.fail(point)
    record = move(policy="slow" if point == "transfer.moving" else "default")
    running.check_failed()
    moved = row.method != "offline" and point.startswith(("transfer.done", "verify", "finish"))
    expected = State.SUCCEEDED if moved else State.FAILED
    assert record.state is expected, running.diagnosis(record.id)
    if not moved:
        check_unchanged(lab, before, there)


def test_it_arrives(running: Stack, row: Row, move: Callable[..., RunRecord]) -> None:
    record = move()
    assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
    assert (record.method, record.storage) == (row.method, row.storage)


@pytest.mark.parametrize(
    "point",
    [
        *("transfer.journaled-source_start", "transfer.effected-source_start"),
        *("transfer.journaled-destination_end", "transfer.effected-destination_end"),
        *("verify.done", "finish.journaled-source_undefine"),
    ],
)
def test_started_paused_and_broken(running: Stack, make_guest: Callable[..., Guest], point: str) -> None:
    """Wherever it breaks, it is shut off where it was, and nothing is left of it on the destination."""
    guest = make_guest("way-paused", start="off", autostart=True, **OFF, disk_format="raw")
    guest.fill_disk(((0, 2), (30, 1), (70, 2)))
    running.fail(point)
    with guest.watch() as watch:
        record = running.wait_end(running.client.submit({"vm": guest.name, "destination": "beta", **HOSTS}).id)
        running.check_failed()
        assert record.state is State.FAILED, running.diagnosis(record.id)
        assert record.error is not None
        assert record.error.code == "INJECTED"
        check_invariants(running, guest, record, was_running=False, autostart=True, watch=watch)
        assert watch.ticks() == [], "the guest ran, which it must not"
    guest.check_filled("alpha")


@pytest.mark.parametrize("point", ["finish.effected-source_save_remove", "finish.effected-destination_resume"])
def test_saved_and_broken_when_it_goes_on_already(running: Stack, make_guest: Callable[..., Guest], point: str) -> None:
    """Its images are gone and its disks change: what was compared before is not compared again."""
    guest = make_guest("way-on", **BUSY)
    guest.wait_verified(1)
    running.fail(point)
    with guest.watch() as watch:
        record = running.wait_end(
            running.client.submit({"vm": guest.name, "destination": "beta", "method": "saved"}).id
        )
        running.check_failed()
        assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
        assert record.forwards == 1
        guest.wait_verified_anew("beta")
        check_invariants(running, guest, record, was_running=True, autostart=False, watch=watch)
        watch.check_continued()


@pytest.mark.parametrize("point", ["verify.claimed", "finish.claimed"])
def test_saved_and_lost_before_it_goes_on(
    running: Stack, lab: Lab, make_guest: Callable[..., Guest], point: str
) -> None:
    """Somebody destroys it while it stands paused on the destination: its memory is taken up again where it was."""
    guest = make_guest("way-lost", **BUSY)
    guest.wait_verified(1)
    running.hold(point)
    with guest.watch() as watch:
        asked = running.client.submit({"vm": guest.name, "destination": "beta", "method": "saved"})
        running.wait_held()
        lab.host("beta").virsh("destroy", guest.name)
        running.release()
        record = running.wait_end(asked.id)
        assert record.state is State.FAILED, running.diagnosis(record.id)
        assert record.error is not None
        assert record.error.code == "VERIFY_FAILED"
        guest.wait_verified_anew("alpha")
        check_invariants(running, guest, record, was_running=True, autostart=False, watch=watch)
        watch.check_continued()


def test_paused_and_moved_again_without_having_run(running: Stack, lab: Lab, make_guest: Callable[..., Guest]) -> None:
    """QEMU 7.2 would die of it: observed, and refused."""
    guest = make_guest("never-ran", start="paused")
    refused = running.wait_end(running.client.submit({"vm": guest.name, "destination": "beta"}).id)
    assert [f.code for f in refused.findings if f.severity == "blocker"] == ["PAUSED_SINCE_START"]
    request = {"vm": guest.name, "destination": "beta", "accept": ["PAUSED_SINCE_START"]}
    arrived = running.wait_end(running.client.submit(request).id)
    assert arrived.state is State.SUCCEEDED, running.diagnosis(arrived.id)
    again = running.wait_end(running.client.submit({"vm": guest.name, "destination": "gamma"}).id)
    assert again.state is State.REFUSED
    guest.blink("beta")
    moved = running.wait_end(running.client.submit({"vm": guest.name, "destination": "gamma"}).id)
    assert moved.state is State.SUCCEEDED, running.diagnosis(moved.id)
    check_invariants(running, guest, moved, was_running=True, autostart=False)
