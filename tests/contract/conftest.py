"""The rigs: the fake always, real libvirt hosts when the lab's tests are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.hypervisor.address import HostAddress
from tests.contract.rigs import FakeRig, LibvirtRig, Rig
from tests.lab import Lab


@pytest.fixture(params=["fake", pytest.param("lab", marks=pytest.mark.lab)])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """Two hosts and their hypervisor."""
    made = FakeRig() if request.param == "fake" else LibvirtRig(addresses(request.getfixturevalue("lab")), tmp_path)
    try:
        yield made
    finally:
        made.close()


def addresses(lab: Lab, transport: str = "tcp") -> dict[str, HostAddress]:
    """The lab's hosts as the adapter takes them."""
    return {name: HostAddress(**entry) for name, entry in lab.inventory(transport).items()}
