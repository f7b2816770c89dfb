"""A drain looks at its VMs with what it will ask of their migrations."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks import workflow
from tasks.model.disks import Volume
from tasks.model.drain import Fate
from tasks.model.host import Pool
from tests.fakes.hypervisor import domain_xml
from tests.queue.workbench import HOSTS, UUID, Bench

pytestmark = pytest.mark.queue

MIB = 1 << 20
DISK = "<disk type='file' device='disk'><driver type='raw'/><source file='/images/web.raw'/><target dev='vda'/></disk>"
STATEFUL = DISK + "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"


def add(bench: Bench, inside: str, *, running: bool) -> None:
    for name in HOSTS:
        pool = Pool("images", "dir", active=True, target="/images", available_bytes=1 << 40)
        bench.fake.hosts[name].facts = replace(bench.fake.hosts[name].facts, pools=(pool,))
        bench.fake.hosts[name].volumes["images"] = {}
    volume = Volume("web.raw", "/images/web.raw", MIB, MIB, "raw", MIB, modified="1")
    bench.fake.hosts["alpha"].volumes["images"][volume.name] = volume
    bench.fake.add_domain("alpha", domain_xml("web", UUID, inside=inside), running=running)


def fate(bench: Bench, **values: str) -> tuple[Fate, str]:
    plan = workflow.plan_drain(bench.runtime, {"host": "alpha", "shut_off": "move", "to": ["beta"], **values})
    return plan.vms[0].fate, " ".join(plan.vms[0].others.values())


def test_a_way_that_is_unfit_for_one_is_said_before_anything_starts(bench: Bench) -> None:
    add(bench, STATEFUL, running=False)
    stays, why = fate(bench, data_path="hosts")
    assert stays is Fate.STAYS
    assert "an emulated TPM would be started with it" in why


@pytest.mark.parametrize("data_path", ["auto", "hosts"])
def test_a_way_that_fits_is_taken(bench: Bench, data_path: str) -> None:
    add(bench, DISK, running=False)
    assert fate(bench, data_path=data_path)[0] is Fate.WAITING


@pytest.mark.parametrize("data_path", ["hosts", "worker"])
def test_one_that_runs_goes_its_own_way(bench: Bench, data_path: str) -> None:
    add(bench, DISK, running=True)
    assert fate(bench, data_path=data_path)[0] is Fate.WAITING
