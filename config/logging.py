"""Logging to standard error: one readable line or one JSON object a log line, with the migration that it is about."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from config.settings import Settings

LogValue = str | int

_context: ContextVar[dict[str, LogValue] | None] = ContextVar("vmferry_log_context", default=None)

QUIET_LOGGERS = ("amqp", "kombu", "redis")
"""Libraries whose debug output tells nothing about migrations."""

PERIODIC_TASKS = frozenset({"tasks.dispatch", "tasks.reconcile", "tasks.republish", "tasks.prune"})
"""Their "received" and "succeeded" lines, thousands an hour, are shown at level DEBUG only."""

_PASSWORD = re.compile(r"(?P<before>[a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s/@]+@", re.IGNORECASE)


@contextmanager
def log_context(**values: LogValue) -> Iterator[None]:
    """Name the migration (``id``, ``attempt``, ``step``) on every line logged inside, by this thread.

    Contexts nest. A thread started inside has it only when started through ``contextvars.copy_context().run``.
    """
    token = _context.set({**(_context.get() or {}), **values})
    try:
        yield
    finally:
        _context.reset(token)


def configure_logging(settings: Settings) -> None:
    """Replace the root logger's handlers; harmless when repeated."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    if settings.log_level != "DEBUG":
        handler.addFilter(_is_news)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.log_level)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.INFO, root.level))


def _is_news(record: logging.LogRecord) -> bool:
    """False for Celery's routine lines on a periodic task; its failures and retries are above INFO."""
    data = getattr(record, "data", None)
    return record.levelno > logging.INFO or not isinstance(data, dict) or data.get("name") not in PERIODIC_TASKS


def without_passwords(text: str) -> str:
    """``scheme://user:password@`` with the password replaced: the last net, under code that logs no secrets."""
    return _PASSWORD.sub(r"\g<before>:***@", text)


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.123Z INFO tasks.chain [web-7 attempt=1 step=verify] message``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback's lines below it."""
        context = _context.get() or {}
        about = " ".join(str(value) if key == "id" else f"{key}={value}" for key, value in context.items())
        line = f"{_time(record)} {record.levelname} {record.name} {f'[{about}] ' if about else ''}{record.getMessage()}"
        trace = _traceback(self, record)
        return without_passwords(f"{line}\n{trace}" if trace else line)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the context's values, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message contains."""
        entry: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": without_passwords(record.getMessage()),
            **(_context.get() or {}),
        }
        trace = _traceback(self, record)
        if trace:
            entry["exception"] = without_passwords(trace)
        return json.dumps(entry, ensure_ascii=False)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return formatter.formatException(record.exc_info) if record.exc_info else (record.exc_text or "")
