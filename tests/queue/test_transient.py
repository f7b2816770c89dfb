"""A transient VM leaves no definition on its source."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.model.errors import RetryLater
from tasks.model.run import State
from tests.fakes.hypervisor import FakeHypervisor, domain_xml
from tests.queue.workbench import UUID, Bench

pytestmark = pytest.mark.queue


def test_finish_goes_on_after_the_mark_was_removed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing on either host tells then whose migration it was: the journal does."""
    bench.fake.add_domain("alpha", domain_xml("web-7", UUID), running=True, persistent=False)
    bench.submit()
    for name in ("preflight", "prepare", "transfer", "verify"):
        bench.step(name)
    original, left = FakeHypervisor.remove_mark, [True]

    def remove(fake: FakeHypervisor, *args: Any) -> None:
        original(fake, *args)
        if left:
            left.pop()
            raise RetryLater("CONNECTION_LOST", "the connection broke", "")

    monkeypatch.setattr(FakeHypervisor, "remove_mark", remove)
    bench.step("finish")
    assert bench.where() == {"beta": (True, False, False)}
    bench.step("finish")
    assert bench.record().state is State.SUCCEEDED, bench.record().error
