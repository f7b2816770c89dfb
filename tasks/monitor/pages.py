"""Pages that Flower does not have: migrations, and why each one waits; and what it leaves open, closed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from flower.views import BaseHandler
from flower.views.monitor import Metrics
from tornado.ioloop import IOLoop
from tornado.web import HTTPError, authenticated, url

from tasks.client import Client
from tasks.model.errors import StoreUnavailable, VmferryError
from tasks.model.request import ID_PATTERN
from tasks.model.run import RunRecord
from tasks.planning.progress_text import describe_progress

T = TypeVar("T")

SHOWN = 300
"""Migrations on the page: the newest, those under way first."""


def handlers() -> list[Any]:
    """Our pages, in Tornado's form."""
    identifier = ID_PATTERN.strip("^$")
    return [
        url(r"/migrations", Migrations, name="migrations"),
        url(r"/migrations/table", MigrationsTable, name="migrations-table"),
        url(rf"/migrations/cancel/({identifier})", CancelMigration, name="migrations-cancel"),
        (r"/metrics", GuardedMetrics),
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


class GuardedMetrics(Metrics):
    """Flower's metrics, behind the same credentials as everything else unless the settings open them."""

    async def get(self) -> None:
        """The metrics."""
        if not self.application.vmferry_metrics_open and not self.current_user:
            raise HTTPError(401)
        await super().get()


async def table_of(page: Page) -> dict[str, Any]:
    """What the templates need."""
    try:
        records = await page.blocking(lambda: page.client.list_runs(limit=SHOWN))
    except StoreUnavailable as error:
        return {"rows": [], "problem": error.message, "read_only": True}
    records.sort(key=lambda record: record.is_terminal)
    return {"rows": [row_of(r) for r in records], "problem": "", "read_only": page.application.options.read_only}


def row_of(record: RunRecord) -> dict[str, Any]:
    """One migration as the table shows it."""
    step = f"{record.id}.{record.attempt}.{record.send}.{record.step}" if record.step else None
    return {
        "id": record.id,
        "vm": record.vm,
        "route": f"{record.source or '?'} → {record.destination}",
        "state": record.state.value,
        "task": step,
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
