"""Shut off, with disks that go from host to host: started paused, mirrored, ended there, and compared."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.model.run import RunRecord, State
from tests.lab import Guest, Lab
from tests.lab.host import LOCAL_PATH
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import Stack, stack

pytestmark = pytest.mark.lab

HOSTS = {"data_path": "hosts"}
OFF = {"start": "off", "disk": "local", "disk_format": "raw", "disk_mib": 160}
PIECES = ((0, 2), (70, 2), (140, 2))


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("hosts-path")
    with stack(lab, folder, policies={"slow": {"bandwidth_mib_s": 4}}) as made:
        made.start()
        yield made


def image(lab: Lab, host: str, path: str) -> Path:
    return lab.host(host).root / path.lstrip("/")


def state_of(file: Path) -> tuple[str, int]:
    """Checksum and time of the last change."""
    return hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns


def move(running: Stack, guest: Guest, **more: Any) -> RunRecord:
    request = {"vm": guest.name, "destination": "beta", **HOSTS, **more}
    return running.wait_end(running.client.submit(request).id)


@pytest.mark.parametrize("format_", ["qcow2", "raw"])
def test_what_the_guest_sees_arrives(running: Stack, lab: Lab, make_guest: Callable[..., Guest], format_: str) -> None:
    guest = make_guest(
        f"hosts-{format_}",
        disk="local",
        second_disk="local",
        disk_format=format_,
        disk_mib=200,
        write_kib_s=8192,
        write_stop=512,
        network=True,
        autostart=True,
    )
    guest.wait_verified(1)
    guest.stop()
    source = image(lab, "alpha", f"{LOCAL_PATH}/{guest.volume}")
    before, visible = state_of(source), guest.guest_visible("alpha")
    with guest.watch() as watch:
        record = move(running, guest)
        assert watch.ticks() == [], "the guest ran, which it must not"
    assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
    assert (record.method, record.storage, record.data_path) == ("offline", "copy", "hosts")
    assert [e.kind for e in record.journal if e.kind in ("source_start", "transfer", "destination_end")] == [
        "source_start",
        "transfer",
        "destination_end",
    ]
    assert state_of(source) == before, "the source's disk was touched"
    assert guest.guest_visible("beta") == visible
    there = image(lab, "beta", record.copies[0].path)
    assert there.stat().st_blocks <= source.stat().st_blocks * 1.1 + 512
    check_invariants(running, guest, record, was_running=False, autostart=True)
    guest.start("beta")
    guest.wait_verified(1, "beta")
