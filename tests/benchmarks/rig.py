"""What is measured: Redis, one control worker, one steps worker and beat as an installation has them, on the lab."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from celery import Celery

from config.settings import load_settings
from tasks.client import Client
from tests.lab import Lab
from tests.queue.harness import Beat, RedisServer, Worker
from tests.scenarios.stack import to_toml

STEP_CONCURRENCY = 32
"""Threads of the steps worker: the default of the settings."""


@dataclass(frozen=True, slots=True)
class Rig:
    """One running vmferry; all settings not named here have their defaults."""

    lab: Lab
    transport: str
    client: Client
    elsewhere: Celery
    """An app that knows two URLs and nothing of vmferry."""
    steps: Worker
    clock: redis.Redis

    def now(self) -> float:
        """Redis TIME, seconds since the epoch: the clock of the records."""
        seconds, microseconds = self.clock.time()
        return float(seconds) + float(microseconds) / 1e6


@contextmanager
def running_rig(lab: Lab, transport: str, *, limit: int = 2, out: int = 0, **settings: Any) -> Iterator[Rig]:
    """Start everything; ended and removed with the block. ``limit`` of each host, each way; ``out`` for what leaves."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vmferry-bench-")))
        server = stack.enter_context(RedisServer(folder / "redis"))
        hosts = lab.inventory(transport, max_outgoing=out or limit, max_incoming=limit)
        config = folder / "vmferry.toml"
        config.write_text(to_toml({"broker_url": server.url} | settings | {"hosts": hosts}))
        stack.enter_context(Worker(config, queues="vmferry", concurrency=4, name="control", folder=folder))
        steps = Worker(config, queues="vmferry.steps", concurrency=STEP_CONCURRENCY, name="steps", folder=folder)
        stack.enter_context(steps)
        stack.enter_context(Beat(config, folder))
        client = stack.enter_context(closing(Client(load_settings(config))))
        elsewhere = Celery("elsewhere", broker=server.url, backend=server.url, set_as_current=False)
        stack.callback(elsewhere.close)
        yield Rig(lab, transport, client, elsewhere, steps, server.client())
