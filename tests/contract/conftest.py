"""The rigs: the fake always, real libvirt hosts when the lab's tests are wanted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.hypervisor.address import HostAddress
from tests.contract.rigs import FakeRig, LibvirtRig, Rig
from tests.lab import Lab, LabUnavailable

EXISTING_LAB = "VMFERRY_LAB"
"""Names a lab that is up and stays so; without it one is made for these tests."""


@pytest.fixture(scope="session")
def contract_lab() -> Iterator[Lab]:
    """A lab of two hosts, with the test's thread in its hub."""
    name = os.environ.get(EXISTING_LAB)
    try:
        lab = Lab.up(name or f"c{os.getpid()}", ("alpha", "beta"))
    except LabUnavailable as error:
        pytest.skip(str(error))
    lab.enter()
    try:
        yield lab
    finally:
        if name is None:
            lab.down()


@pytest.fixture(params=["fake", pytest.param("lab", marks=pytest.mark.lab)])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """Two hosts and their hypervisor."""
    made: Rig
    if request.param == "fake":
        made = FakeRig()
    else:
        made = LibvirtRig(addresses(request.getfixturevalue("contract_lab")), tmp_path)
    try:
        yield made
    finally:
        made.close()


def addresses(lab: Lab, transport: str = "tcp") -> dict[str, HostAddress]:
    """The lab's hosts as the adapter takes them."""
    return {name: HostAddress(**entry) for name, entry in lab.inventory(transport).items()}
