"""The contract of ``tasks.model.ports.Hypervisor``: windows on directories that no pool shows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.model.disks import VolumeOrder
from tasks.model.errors import HypervisorError
from tests.contract.rigs import Rig


def directory(rig: Rig, host: str) -> Path:
    """One that a pool showed until now."""
    folder = rig.make_pool(host)
    pool = rig.hypervisor.find_pool(host, folder.name)
    assert pool is not None
    rig.hypervisor.stop_pool(host, pool.uuid)
    if rig.hypervisor.find_pool(host, folder.name) is not None:
        rig.hypervisor.undefine_pool(host, pool.uuid)
    assert rig.hypervisor.find_pool_at(host, str(folder)) is None
    return folder


def test_what_was_made_in_it_stays_when_it_is_closed(rig: Rig) -> None:
    folder, host = directory(rig, rig.destination), rig.destination
    name = f"vmferry.{folder.name}"
    for _ in range(2):
        rig.hypervisor.open_window(host, name, str(folder))
    assert rig.hypervisor.find_pool_at(host, str(folder)) == name
    made = rig.hypervisor.create_volume(host, VolumeOrder(name, "v.raw", "raw", 65536))
    assert rig.hypervisor.find_volume_at(host, made.path) is not None
    for _ in range(2):
        rig.hypervisor.close_window(host, name)
    assert rig.hypervisor.find_pool_at(host, str(folder)) is None
    assert rig.hypervisor.find_volume_at(host, made.path) is None
    with pytest.raises(HypervisorError) as refused:
        rig.hypervisor.delete_volume(host, name, "v.raw")
    assert refused.value.code == "NO_STORAGE_POOL"
    rig.hypervisor.open_window(host, name, str(folder))
    assert rig.hypervisor.find_volume(host, name, "v.raw") is not None
    rig.hypervisor.delete_volume(host, name, "v.raw")
    assert rig.hypervisor.find_volume(host, name, "v.raw") is None
    rig.hypervisor.close_window(host, name)


def test_a_directory_has_one_pool(rig: Rig) -> None:
    folder, host = directory(rig, rig.destination), rig.destination
    name = f"vmferry.{folder.name}"
    rig.hypervisor.open_window(host, name, str(folder))
    with pytest.raises(HypervisorError):
        rig.hypervisor.open_window(host, f"{name}.other", str(folder))
    assert rig.hypervisor.find_pool_at(host, str(folder)) == name
    rig.hypervisor.close_window(host, name)


def test_many_open_and_close_one_at_the_same_moment(rig: Rig) -> None:
    folder, host = directory(rig, rig.destination), rig.destination
    name = f"vmferry.{folder.name}"
    with ThreadPoolExecutor(4) as threads:
        for _ in range(5):
            list(threads.map(lambda _: rig.hypervisor.open_window(host, name, str(folder)), range(4)))
            assert rig.hypervisor.find_pool_at(host, str(folder)) == name
            list(threads.map(lambda _: rig.hypervisor.close_window(host, name), range(4)))
            assert rig.hypervisor.find_pool_at(host, str(folder)) is None


def test_a_pool_that_is_there_to_stay_is_not_closed(rig: Rig) -> None:
    folder, host = directory(rig, rig.destination), rig.destination
    uuid = "77777777-2222-4333-8444-555555555555"
    target = f"<target><path>{folder}</path></target>"
    rig.hypervisor.define_pool(host, f"<pool type='dir'><name>stays</name><uuid>{uuid}</uuid>{target}</pool>")
    try:
        rig.hypervisor.start_pool(host, uuid, build=True)
        rig.hypervisor.close_window(host, "stays")
        assert rig.hypervisor.find_pool_at(host, str(folder)) == "stays"
    finally:
        rig.hypervisor.stop_pool(host, uuid)
        rig.hypervisor.undefine_pool(host, uuid)
