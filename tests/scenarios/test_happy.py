"""A VM moves and everything is as it should be."""

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
def test_live_shared(lab: Lab, tmp_path: Path, make_guest: Callable[..., Guest], transport: str) -> None:
    guest = make_guest("web-1", autostart=True, fill_mib=16)
    guest.wait_ticking()
    with stack(lab, tmp_path, transport=transport) as running, guest.watch() as watch:
        running.start()
        record = running.client.submit({"vm": "web-1", "destination": "beta"})
        record = running.wait_end(record.id)
        assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
        assert (record.method, record.storage, record.source) == ("live", "shared", "alpha")
        assert record.progress.memory.total_bytes >= 96 << 20
        guest.wait_ticking("beta")
        check_invariants(running, guest, record, was_running=True, autostart=True, watch=watch)
        watch.check_continued()


def test_offline_shared(lab: Lab, tmp_path: Path, make_guest: Callable[..., Guest]) -> None:
    guest = make_guest("db-1", start="off", autostart=True)
    with stack(lab, tmp_path) as running:
        running.start()
        record = running.wait_end(running.client.submit({"vm": "db-1", "destination": "gamma"}).id)
        assert record.state is State.SUCCEEDED, running.diagnosis(record.id)
        assert (record.method, record.storage) == ("offline", "shared")
        check_invariants(running, guest, record, was_running=False, autostart=True)
        guest.start("gamma")
        guest.wait_ticking("gamma")
