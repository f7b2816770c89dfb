"""The rigs: the fake always, real libvirt hosts when the lab's tests are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.hypervisor.address import HostAddress
from tests.contract.rigs import FakeRig, LibvirtRig, Rig
from tests.lab import Lab
from tests.lab.faults import link_shaped

SLOW_MBIT = 1
"""The guest's half a megabyte takes four seconds."""


@pytest.fixture(params=["fake", pytest.param("lab", marks=pytest.mark.lab)])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """Two hosts and their hypervisor."""
    made: Rig = FakeRig()
    if request.param != "fake":
        lab: Lab = request.getfixturevalue("lab")
        made = LibvirtRig(addresses(lab), tmp_path, lambda: link_shaped(lab.host(lab.spec.hosts[0]), SLOW_MBIT))
    try:
        yield made
    finally:
        made.close()


def addresses(lab: Lab, transport: str = "tcp") -> dict[str, HostAddress]:
    """The lab's hosts as the adapter takes them."""
    return {name: HostAddress(**entry) for name, entry in lab.inventory(transport).items()}
