"""What a move leaves on the source, and what keeps it from being deleted."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.model.disks import NVRAM, DiskCopy, FileCopy, Volume
from tasks.planning.leftovers import Leftover, leftovers_of, why_kept


def copy(**values: Any) -> DiskCopy:
    known: dict[str, Any] = {
        "target": "vda",
        "source": "/images/web.qcow2",
        "source_path": "/images/web.qcow2",
        "format": "qcow2",
        "capacity_bytes": 10,
        "allocation_bytes": 5,
        "pool": "images",
        "volume": "web.vmferry-1-1-1-vda.qcow2",
        "path": "/images/web.vmferry-1-1-1-vda.qcow2",
    }
    return DiskCopy(**(known | values))


def test_disks_and_variables() -> None:
    file = FileCopy(
        key=NVRAM, source_path="/nvram/web", length_bytes=1, modified="7.5", pool="p", volume="v", path="/nvram/v"
    )
    image = file.model_copy(update={"key": "memory", "source_path": "/save/web.save"})
    found = leftovers_of([copy(), copy(target="vdb", length_bytes=3, modified="6.1")], [image, file])
    assert [(left.what, left.path, left.modified) for left in found] == [
        ("vda", "/images/web.qcow2", ""),
        ("vdb", "/images/web.qcow2", "6.1"),
        (NVRAM, "/nvram/web", "7.5"),
    ]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, ""),
        ({"leftover": Leftover("/dev/vg/web", "vda", device=True)}, "never deleted"),
        ({"users": {"alpha": ("db", "mail"), "beta": ()}}, "in use by db, mail on alpha"),
        ({"overlays": ["/images/clone.qcow2"]}, "/images/clone.qcow2 lies on it"),
        ({"volume": None}, "no active pool"),
        ({"volume": Volume("v", "/images/web.qcow2", 10, 5, modified="8.0")}, "written to after"),
    ],
)
def test_what_keeps_it(values: dict[str, Any], reason: str) -> None:
    volume = Volume("v", "/images/web.qcow2", 10, 5, modified="7.5")
    known: dict[str, Any] = {
        "leftover": Leftover("/images/web.qcow2", "vda", "7.5"),
        "users": {},
        "overlays": (),
        "volume": volume,
    }
    found = why_kept(**(known | values))
    assert (reason in found) if reason else found == ""
