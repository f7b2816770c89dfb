"""What contract tests do with a rig: orders, waiting, a transfer that runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tasks.model.domain import Mark
from tasks.model.errors import HypervisorError
from tasks.model.ports import TransferOrder
from tasks.planning.mark_xml import with_mark
from tests.contract.rigs import Rig

MARK = Mark("contract", 2, 7)


def order_for(rig: Rig, uuid: str, destination: str | None = None, *, paused: bool = False) -> TransferOrder:
    fetch = rig.hypervisor.fetch_xml
    live = with_mark(fetch(rig.source, uuid, secure=True, migratable=True), MARK)
    inactive = with_mark(fetch(rig.source, uuid, secure=True, inactive=True), MARK)
    return TransferOrder(
        uuid=uuid,
        source=rig.source,
        destination=destination or rig.destination,
        destination_xml=live,
        persistent_xml=inactive,
        paused=paused,
    )


def code_of(call: Callable[[], object], kind: type[HypervisorError]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.message
    return caught.value.code


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "not within the time"
        time.sleep(0.02)


@contextmanager
def transfer_running(rig: Rig, uuid: str) -> Iterator[list[HypervisorError]]:
    """A transfer that does not end by itself; what its call raised is in the list once it was aborted."""
    raised: list[HypervisorError] = []
    order = rig.without_end(order_for(rig, uuid))

    def run() -> None:
        try:
            rig.hypervisor.transfer(order)
        except HypervisorError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_until(lambda: rig.hypervisor.fetch_job(rig.source, uuid).active)
        wait_until(lambda: rig.hypervisor.find_domain(rig.destination, uuid) is not None)
        yield raised
    finally:
        rig.hypervisor.abort_job(rig.source, uuid)
        thread.join(30)
        assert not thread.is_alive()
