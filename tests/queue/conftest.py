"""A redis-server for each test, or one for all of a module; a plain client; workers of the facts' app."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from config.celery import celery_url
from tests.queue.harness import RedisServer, Worker, wait_for
from tests.queue.workbench import Bench


class Facts:
    """The facts' app on one Redis: workers, a plain client, notes."""

    def __init__(self, server: RedisServer, url: str | None = None) -> None:
        self.server = server
        self.url = url or server.url
        self.store = server.client()
        self.client = Celery(
            "plain", broker=celery_url(server.url), backend=celery_url(server.url), set_as_current=False
        )
        """What another system has: Celery, the URL, nothing of ours."""

    def worker(
        self, *, concurrency: int = 4, name: str = "facts", override_revoke: bool = False, **changed: Any
    ) -> Worker:
        """A worker of the facts' app, with Celery settings changed."""
        env = {"FACTS_BROKER": self.url, "FACTS_SETTINGS": json.dumps(changed)}
        if override_revoke:
            env["FACTS_OVERRIDE_REVOKE"] = "1"
        return Worker(app="tests.queue.factsapp", concurrency=concurrency, name=name, env=env)

    def send(self, task: str, *args: object, **options: Any) -> Any:
        """Send a task to the steps' queue, as a plain client; its AsyncResult."""
        return self.client.send_task(task, args=args, queue="vmferry.steps", **options)

    def notes(self) -> list[str]:
        """What the tasks noted so far."""
        return [bytes(line).decode() for line in self.store.lrange("notes", 0, -1)]  # type: ignore[arg-type]

    def wait_note(self, text: str, *, timeout_s: float = 10.0) -> None:
        """Wait until a task noted ``text``."""
        wait_for(lambda: text in self.notes(), f"note {text!r}", timeout_s=timeout_s)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """One Redis for all tests of a module."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def facts() -> Iterator[Facts]:
    """A fresh Redis for the test."""
    with RedisServer() as server:
        context = Facts(server)
        yield context
        context.client.close()


@pytest.fixture
def bench(redis_server: RedisServer) -> Bench:
    """The workflow with messages delivered by hand."""
    return Bench(redis_server.url)
