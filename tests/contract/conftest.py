"""The rigs: the fake always, real libvirt hosts when the lab's tests are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.hypervisor.address import HostAddress
from tests.contract.rigs import FakeRig, LibvirtRig, Rig
from tests.lab import Guest, Lab
from tests.lab.faults import link_shaped

SLOW_MBIT = 40
"""What a big guest changes meanwhile takes ten seconds."""


@pytest.fixture(params=["fake", pytest.param("lab", marks=pytest.mark.lab)])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """Two hosts and their hypervisor."""
    guests: list[Guest] = []
    made = FakeRig() if request.param == "fake" else _on_lab(request.getfixturevalue("lab"), tmp_path, guests)
    try:
        yield made
    finally:
        made.close()
        for guest in guests:
            guest.remove()


def _on_lab(lab: Lab, folder: Path, guests: list[Guest]) -> Rig:
    source = lab.spec.hosts[0]

    def make_big() -> str:
        guests.append(guest := lab.guest("contract-big", source, memory_mib=128, fill_mib=48, dirty_mib_s=48))
        guest.wait_ticking()
        return guest.uuid

    return LibvirtRig(
        addresses(lab), folder, slow_link=lambda: link_shaped(lab.host(source), SLOW_MBIT), make_big=make_big
    )


def addresses(lab: Lab, transport: str = "tcp") -> dict[str, HostAddress]:
    """The lab's hosts as the adapter takes them."""
    return {name: HostAddress(**entry) for name, entry in lab.inventory(transport).items()}
