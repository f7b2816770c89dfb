"""Copies that take up more than what they are copies of."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.model.disks import DiskCopy, DiskSize
from tasks.planning.allocation import check_allocation

MIB = 1024**2


def copy(**changes: Any) -> DiskCopy:
    values: dict[str, Any] = {
        "target": "vda",
        "source": "/srv/a.qcow2",
        "format": "qcow2",
        "capacity_bytes": 4096 * MIB,
        "allocation_bytes": 300 * MIB,
        "pool": "local",
        "volume": "a.vmferry-m.1.1.qcow2",
        "path": "/srv/a.vmferry-m.1.1.qcow2",
    }
    return DiskCopy(**(values | changes))


def sizes(mib: int) -> dict[str, DiskSize]:
    return {"vda": DiskSize(4096 * MIB, mib * MIB)}


def test_a_copy_that_lost_its_holes_is_said() -> None:
    (found,) = check_allocation([copy()], sizes(4096))
    assert found.code == "COPY_NOT_SPARSE"
    assert "4096 MiB" in found.message
    assert "300 MiB" in found.message


@pytest.mark.parametrize(
    ("one", "mib"),
    [
        (copy(), 301),
        (copy(), 430),
        (copy(kind="block", pool="vg0", path="/dev/vg0/a"), 4096),
        (copy(source="/dev/vg0/a"), 4096),
        (copy(grow_bytes=8192 * MIB), 4096),
        (copy(allocation_bytes=0), 4096),
    ],
)
def test_what_is_as_it_must_be_is_not(one: DiskCopy, mib: int) -> None:
    assert check_allocation([one], sizes(mib)) == []


def test_what_was_not_measured_is_not_judged() -> None:
    assert check_allocation([copy()], {}) == []
