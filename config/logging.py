"""Logging to standard error: one readable line or one JSON object a log line, with the migration that it is about."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
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

STEP_TASK = "tasks.steps."
STEP_TASK_ID = re.compile(r"(?P<id>[A-Za-z0-9_-]{1,64})\.(?P<attempt>\d+)\.\d+\.(?P<step>[a-z]+)")
"""Celery's own lines on a step come from other threads; the id of the step's task says what they are about."""

_PASSWORD = re.compile(r"(?P<before>[a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s/@]+@", re.IGNORECASE)


@contextmanager
def log_context(**values: LogValue) -> Iterator[None]:
    """Name the migration (``id``, ``attempt``, ``step``) on every line logged inside, by this thread.

    Contexts nest. A thread started inside has it only when it is made by ``tasks.parallel``.
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
    logging.captureWarnings(True)
    threading.excepthook = _log_dead_thread
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.INFO, root.level))


def _log_dead_thread(args: threading.ExceptHookArgs) -> None:
    """A thread that ended with an exception: one log line like all others, instead of Python's own lines."""
    if args.exc_type is SystemExit or args.exc_value is None:
        return
    name = args.thread.name if args.thread else "a thread"
    logging.getLogger(__name__).error("%s ended", name, exc_info=args.exc_value)


def _about(record: logging.LogRecord) -> dict[str, LogValue]:
    """Which migration, attempt and step a line is about."""
    return {**_about_task(getattr(record, "data", None)), **(_context.get() or {})}


def _about_task(data: object) -> dict[str, LogValue]:
    """The same, of what Celery adds to its own lines."""
    if not isinstance(data, dict) or not str(data.get("name", "")).startswith(STEP_TASK):
        return {}
    match = STEP_TASK_ID.fullmatch(str(data.get("id", "")))
    return {"id": match["id"], "attempt": int(match["attempt"]), "step": match["step"]} if match else {}


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
        context = _about(record)
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
            **_about(record),
        }
        trace = _traceback(self, record)
        if trace:
            entry["exception"] = without_passwords(trace)
        return json.dumps(entry, ensure_ascii=False)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return formatter.formatException(record.exc_info) if record.exc_info else (record.exc_text or "")
