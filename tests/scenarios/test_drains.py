"""A host of the lab is emptied: by the command line, with real guests, and with workers that die on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By

from tasks.model.drain import DrainRecord, DrainState, Fate
from tasks.model.run import State
from tests.flower.browser import browser
from tests.lab import Guest, Lab
from tests.queue.harness import Beat
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack, until

pytestmark = pytest.mark.lab

ISO = "/var/lib/libvirt/images/drain.iso"
CDROM = f"<disk type='file' device='cdrom'><source file='{ISO}'/><target dev='sda' bus='sata'/><readonly/></disk>"
TIMEOUT_S = 120.0


@pytest.fixture
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(lab, tmp_path_factory.mktemp("drains")) as made:
        made.start()
        yield made


@pytest.fixture
def guests(lab: Lab, make_guest: Callable[..., Guest]) -> dict[str, Guest]:
    """Three that run, one of them on a disk that only alpha has; one that is shut off."""
    made = {
        "plain": make_guest("drain-plain"),
        "copied": make_guest("drain-copied", disk="local", disk_mib=32),
        "small": make_guest("drain-small", disk=None, memory_mib=80, autostart=True),
        "off": make_guest("drain-off", start="off"),
    }
    for name in ("plain", "copied", "small"):
        made[name].wait_ticking()
    return made


def drained(running: Stack, drain_id: str = "d") -> DrainRecord:
    record = running.client.find_drain(drain_id)
    assert record is not None
    return record


def wait_drained(running: Stack, drain_id: str = "d") -> DrainRecord:
    until(lambda: drained(running, drain_id).is_ended, TIMEOUT_S, running.logs)
    return drained(running, drain_id)


def check_moved(running: Stack, guest: Guest, record: DrainRecord, *, active: bool = True) -> None:
    vm = next(vm for vm in record.vms if vm.uuid == guest.uuid)
    assert vm.fate is Fate.MOVED, vm
    run = running.client.show(vm.migration)
    assert run.state is State.SUCCEEDED
    assert run.destination == vm.destination
    check_invariants(running, guest, run, was_running=active, autostart=guest.options.autostart)


def test_the_command_line_empties_a_host(running: Stack, lab: Lab, guests: dict[str, Guest]) -> None:
    plan = running.cli("drain", "alpha", "--dry-run", "--json")
    fates = {vm["name"]: vm["fate"] for vm in json.loads(plan.stdout)["vms"]}
    assert fates == {
        "drain-plain": "waiting",
        "drain-copied": "waiting",
        "drain-small": "waiting",
        "drain-off": "stays",
    }
    assert plan.returncode == 3, "one would stay"
    shown = running.cli("drain", "alpha", "--dry-run")
    assert "drain-off" in shown.stdout
    assert running.client.list_drains() == []

    done = running.cli("drain", "alpha", "--shut-off", "move", "--id", "d", "--wait", timeout_s=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr + running.logs()
    record = drained(running)
    assert record.state is DrainState.EMPTY
    for name, guest in guests.items():
        check_moved(running, guest, record, active=name != "off")
        assert lab.states(guest.uuid)["alpha"] is None
    refused = running.cli("migrate", guests["plain"].name, "--to", "alpha", "--wait")
    assert refused.returncode == 3, "it stays cordoned"
    assert "d\talpha\tempty" in running.cli("drains").stdout
    assert "drain-plain" in running.cli("show", "d").stdout
    assert running.cli("retry", "d").returncode == 0
    assert wait_drained(running).state is DrainState.EMPTY
    assert running.cli("uncordon", "alpha").returncode == 0


def test_what_cannot_move_stays_and_keeps_the_host_from_being_empty(
    running: Stack, lab: Lab, guests: dict[str, Guest], make_guest: Callable[..., Guest], tmp_path: Path
) -> None:
    image = lab.host("alpha").root / ISO.lstrip("/")
    image.write_bytes(bytes(1 << 20))
    try:
        stuck = make_guest("drain-stuck", extra_xml=CDROM)
        stuck.wait_ticking()
        strict = running.cli("drain", "alpha", "--strict", "--id", "s", "--wait", timeout_s=TIMEOUT_S)
        assert strict.returncode == 3
        assert "drain-stuck" in running.cli("show", "s").stdout
        assert running.client.list_runs() == []
        done = running.cli("drain", "alpha", "--id", "d", "--wait", timeout_s=TIMEOUT_S)
        assert done.returncode == 1, done.stdout + done.stderr
        record = drained(running)
        assert record.state is DrainState.PARTIAL
        assert record.left == ("drain-stuck is running",)
        for name in ("plain", "copied", "small"):
            check_moved(running, guests[name], record)
        check_report(running, tmp_path / "report.html")
        # With a remedy the rest goes as well.
        again = running.cli("drain", "alpha", "--id", "e", "--remedy", "eject-media", "--wait", timeout_s=TIMEOUT_S)
        assert again.returncode == 0, again.stdout + again.stderr
    finally:
        image.unlink()


def check_report(running: Stack, file: Path) -> None:
    """What a person sees who opens it in a browser that reaches nothing else."""
    made = running.cli("report", "d", "--html", str(file))
    assert made.returncode == 0, made.stderr
    with browser() as driver:
        driver.get(f"file://{file}")
        assert driver.find_element(By.TAG_NAME, "h1").text == "alpha is not empty"
        shown = {row.text.split()[0]: row.text for row in driver.find_elements(By.CSS_SELECTOR, "#vms tbody tr")}
        assert set(shown) == {"drain-plain", "drain-copied", "drain-small", "drain-stuck", "drain-off"}
        assert "moved live, shared" in shown["drain-plain"]
        assert "stays" in shown["drain-stuck"]
        assert ISO in driver.find_element(By.ID, "troubles").text
        figure = driver.find_element(By.ID, "chart")
        bars = figure.find_elements(By.CSS_SELECTOR, ".barlayer .point path")
        curves = figure.find_elements(By.CSS_SELECTOR, ".scatterlayer .trace path.js-line")
        assert len(bars) >= 3 * 5, "five steps of three VMs"
        assert len(curves) == 3 * 3, "three curves of three VMs"
        assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []  # type: ignore[no-untyped-call]


def test_workers_that_die_lose_nothing(running: Stack, guests: dict[str, Guest]) -> None:
    """Whatever moves drains on is killed again and again, and so is whoever transfers."""
    running.client.drain({"host": "alpha"}, drain_id="d")
    for _ in range(3):
        until(lambda: drained(running).state is not DrainState.PLANNING, 30, running.logs)
        for worker in running.steps_workers:
            worker.kill9()
        running.steps_worker()
        for worker in running.workers:
            if worker.running and worker.queues == "vmferry":
                worker.kill9()
        running.control_worker()
    record = wait_drained(running)
    assert record.state is DrainState.EMPTY, record
    for name in ("plain", "copied", "small"):
        check_moved(running, guests[name], record)
    assert len(running.client.list_runs()) == 3


def test_cancelled_on_the_way(running: Stack, guests: dict[str, Guest]) -> None:
    running.hold("transfer.claimed")
    running.client.drain({"host": "alpha"}, drain_id="d")
    running.wait_held()
    running.client.cancel_drain("d")
    running.release()
    record = wait_drained(running)
    assert record.state is DrainState.CANCELLED
    assert running.cli("show", "d").returncode == 0
    runs = {run.uuid: run for run in running.client.list_runs()}
    for name in ("plain", "copied", "small"):
        run = runs.get(guests[name].uuid)
        if run is not None:
            assert run.state in (State.CANCELLED, State.SUCCEEDED)
            check_invariants(running, guests[name], run, was_running=True, autostart=guests[name].options.autostart)
    assert running.client.hosts()[0].cordon == ""


SHMEM = "<shmem name='{name}'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem>"
"""What libvirt refuses to move live."""


def test_only_vms_that_are_named_are_shut_down(lab: Lab, make_guest: Callable[..., Guest], tmp_path: Path) -> None:
    """One hears its power button, one does not, one may not be asked at all."""
    guests = {
        name: make_guest(f"drain-{name}", extra_xml=SHMEM.format(name=f"frames-{name}"), button_ms=button_ms)
        for name, button_ms in (("hears", 100), ("deaf", 0), ("unnamed", 100))
    }
    for guest in guests.values():
        guest.wait_ticking()
    with stack(lab, tmp_path, policies={"default": {"shut_down_timeout_s": 15.0}}) as own:
        own.start()
        asked = ("drain", "alpha", "--may-shut-off", "drain-hears", "--may-shut-off", guests["deaf"].uuid)
        plan = own.cli(*asked, "--dry-run")
        assert "it is shut down for it, since it cannot move live: " in plan.stdout
        assert plan.returncode == 3, "one would stay"
        with guests["hears"].watch() as watch, guests["deaf"].watch() as deaf:
            done = own.cli(*asked, "--id", "d", "--wait", timeout_s=TIMEOUT_S)
            assert done.returncode == 1, done.stdout + done.stderr + own.logs()
            record = drained(own)
            until(lambda: watch.beats_on(place_of(record, guests["hears"])), 60, "it was not started again")
            watch.check_never_twice(rebooted=True)
            deaf.check_continued()
        fates = {vm.name: (vm.fate, vm.shut_down) for vm in record.vms}
        assert fates == {
            "drain-hears": (Fate.MOVED, True),
            "drain-deaf": (Fate.FAILED, True),
            "drain-unnamed": (Fate.STAYS, False),
        }
        assert sorted(record.left) == ["drain-deaf is running", "drain-unnamed is running"]
        check_moved(own, guests["hears"], record)
        for name in ("deaf", "unnamed"):
            seen = lab.states(guests[name].uuid)["alpha"]
            assert seen is not None
            assert seen.active
            assert "urn:vmferry" not in seen.metadata


def place_of(record: DrainRecord, guest: Guest) -> str:
    return str(next(vm.destination for vm in record.vms if vm.uuid == guest.uuid))


def test_a_drain_of_the_configuration_begins_by_itself(
    lab: Lab, make_guest: Callable[..., Guest], tmp_path: Path
) -> None:
    """At the next full minute, by an ordinary beat; two of them run."""
    guest = make_guest("drain-night", autostart=True)
    guest.wait_ticking()
    due = (datetime.now(UTC) + timedelta(seconds=75)).replace(second=0, microsecond=0)
    night = {"host": "alpha", "at": f"{due:%H:%M}", "until": f"{due + timedelta(hours=1):%H:%M}"}
    with stack(lab, tmp_path, recurring_drains={"night": night}) as own:
        own.start()
        with Beat(own.config, tmp_path / "second"):
            name = f"night-{due:%Y%m%dT%H%MZ}"
            assert name in own.cli("drains", "--recurring", "--json").stdout
            until(lambda: own.client.find_drain(name) is not None, 90, own.logs)
            record = wait_drained(own, name)
        assert record.state is DrainState.EMPTY, record
        assert record.request.deadline == (due + timedelta(hours=1)).timestamp()
        check_moved(own, guest, record)
        assert [one.id for one in own.client.list_drains()] == [name]
        assert len(own.client.list_runs()) == 1
