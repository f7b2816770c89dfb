"""The page of migrations when there are more than it shows."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from config.settings import load_settings
from tasks.client import Client
from tasks.monitor.pages import SHOWN
from tests.queue.harness import FlowerServer, RedisServer
from tests.scenarios.stack import to_toml

HOSTS = {name: {"uri": f"qemu+unix:///system?socket=/nonexistent/{name}"} for name in ("alpha", "beta")}


def test_what_was_asked_for_first_is_shown_although_many_came_later(tmp_path: Path) -> None:
    """In a drain of a whole host the ones under way are the oldest."""
    with RedisServer() as redis:
        config = tmp_path / "vmferry.toml"
        config.write_text(to_toml({"broker_url": redis.url, "hosts": HOSTS}))
        with closing(Client(load_settings(config))) as client:
            runtime = client._runtime
            for number in range(SHOWN + 20):
                runtime_submit(client, f"vm-{number:03}")
            for number in range(100, SHOWN + 20):
                client.cancel(f"vm-{number:03}")
            assert runtime.store.load("vm-000").state == "queued"
        with FlowerServer(config) as flower:
            page = flower.get("/migrations/table")[1]
    shown = [line.split('"')[1] for line in page.splitlines() if 'id="migration-' in line]
    assert len(shown) == SHOWN
    # What waits comes first, whatever is newer.
    assert {f"migration-vm-{number:03}" for number in range(100)} == set(shown[:100])
    assert len(set(shown)) == SHOWN
    # No step is linked to a task that Flower has never heard of.
    assert "/task/" not in page


def runtime_submit(client: Client, name: str) -> None:
    client.submit({"vm": name, "destination": "beta", "source": "alpha"}, run_id=name)
