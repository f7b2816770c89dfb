"""Pages that Flower does not have: migrations, and why each one waits."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, TypeVar

from flower.views import BaseHandler
from tornado.ioloop import IOLoop
from tornado.web import HTTPError, authenticated, url

from tasks.client import Client
from tasks.model.errors import StoreUnavailable, VmferryError
from tasks.model.request import ID_PATTERN
from tasks.model.run import RunRecord, State
from tasks.planning.progress_text import describe_progress

T = TypeVar("T")

SHOWN = 300
"""Migrations on the page, at most."""


def handlers() -> list[Any]:
    """Our pages, in Tornado's form."""
    identifier = ID_PATTERN.strip("^$")
    return [
        url(r"/migrations", Migrations, name="migrations"),
        url(r"/migrations/table", MigrationsTable, name="migrations-table"),
        url(rf"/migrations/cancel/({identifier})", CancelMigration, name="migrations-cancel"),
    ]


class Page(BaseHandler):
    """Base of our pages."""

    @property
    def client(self) -> Client:
        """The client of the queue, shared by all pages."""
        return self.application.vmferry_client  # type: ignore[no-any-return]

    async def blocking(self, call: Callable[[], T]) -> T:
        """Run something that waits for Redis beside the loop."""
        return await IOLoop.current().run_in_executor(None, call)


class Migrations(Page):
    """The page itself; its table is fetched by it, and again every two seconds."""

    @authenticated
    async def get(self) -> None:
        """The page."""
        self.render("migrations.html", **await table_of(self))


class MigrationsTable(Page):
    """The table alone."""

    @authenticated
    async def get(self) -> None:
        """The table's rows."""
        self.render("migrations_table.html", **await table_of(self))


class CancelMigration(Page):
    """Cancel a migration, also one that is queued and has no task that could be revoked."""

    @authenticated
    async def post(self, run_id: str) -> None:
        """Cancel it; the answer is one line."""
        if self.application.options.read_only:
            raise HTTPError(403, "Flower is in read-only mode")
        try:
            record = await self.blocking(lambda: self.client.cancel(run_id))
        except VmferryError as error:
            raise HTTPError(409, f"{error.code}: {error.message}") from None
        self.write({"message": f"{record.vm}: being cancelled"})


async def table_of(page: Page) -> dict[str, Any]:
    """What the templates need."""
    try:
        records = await page.blocking(lambda: page.client.current_runs(limit=SHOWN))
    except StoreUnavailable as error:
        return {"rows": [], "problem": error.message, "read_only": True}
    known = page.application.events.state.tasks
    rows = [row_of(record, known) for record in in_order(records)[:SHOWN]]
    return {"rows": rows, "problem": "", "read_only": page.application.options.read_only}


def in_order(records: list[RunRecord]) -> list[RunRecord]:
    """What needs somebody, what is under way, what waits, what has ended; the newest of each first."""

    def rank(record: RunRecord) -> int:
        if record.state is State.NEEDS_ATTENTION:
            return 0
        if record.is_terminal:
            return 3
        return 2 if record.state is State.QUEUED else 1

    return sorted(records, key=lambda record: (rank(record), -record.submitted_at))


def row_of(record: RunRecord, known_tasks: Container[str]) -> dict[str, Any]:
    """One migration as the table shows it; its step is linked when Flower has heard of it."""
    step = f"{record.id}.{record.attempt}.{record.send}.{record.step}"
    return {
        "id": record.id,
        "vm": record.vm,
        "route": f"{record.source or '?'} → {record.destination}",
        "state": record.state.value,
        "task": step if step in known_tasks else None,
        "progress": "" if record.is_terminal else describe_progress(record.progress),
        "note": note_of(record),
        "submitted": record.submitted_at,
        "open": not record.is_terminal and not record.cancel_requested,
    }


def note_of(record: RunRecord) -> str:
    """Why it waits, or why it did not succeed."""
    if record.error is not None and (record.is_terminal or not record.waiting_for):
        return f"{record.error.code}: {record.error.message}"
    if record.cancel_requested and not record.is_terminal:
        return "being cancelled"
    return record.waiting_for or ("stalled" if record.stalled else "")
