"""Live, with disks that only the source has: copied while the VM runs, and still the guest's own disk afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.model.run import State
from tests.lab import Guest, Lab
from tests.scenarios.invariants import check_invariants
from tests.scenarios.stack import stack

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("transport", ["tcp", "ssh"])
def test_live_copy(lab: Lab, tmp_path: Path, make_guest: Callable[..., Guest], transport: str) -> None:
    guest = make_guest("files-1", disk="local", disk_mib=256, write_kib_s=16384, write_stop=16 * 256)
    guest.wait_verified(1)
    with stack(lab, tmp_path, transport=transport) as running, guest.watch() as watch:
        running.start()
        record = running.wait_end(running.client.submit({"vm": guest.name, "destination": "beta"}).id)
        assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
        assert (record.method, record.storage) == ("live", "copy")
        print(record.model_dump_json(indent=1))
        guest.wait_verified(2, "beta")
        check_invariants(running, guest, record, was_running=True, autostart=False, watch=watch)
        watch.check_continued()
