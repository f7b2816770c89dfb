"""Log lines: about which migration, on one line, without secrets."""

from __future__ import annotations

import contextvars
import json
import logging
import threading
import warnings
from collections.abc import Iterator

import pytest

from config.logging import configure_logging, log_context
from config.settings import Settings
from tasks.parallel import make_thread

log = logging.getLogger("tasks.somewhere")


@pytest.fixture(autouse=True)
def root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    hook = threading.excepthook
    yield
    logging.captureWarnings(False)
    threading.excepthook = hook
    root.handlers[:] = handlers
    root.setLevel(level)


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    entry: dict[str, object] = json.loads(capsys.readouterr().err.splitlines()[-1])
    return entry


def test_text_names_the_migration(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings())
    with log_context(id="web-7", attempt=2), log_context(step="verify"):
        log.info("looked at %s", "both hosts")
    log.info("outside")
    inside, outside = capsys.readouterr().err.splitlines()
    assert inside.endswith("Z INFO tasks.somewhere [web-7 attempt=2 step=verify] looked at both hosts")
    assert outside.endswith("Z INFO tasks.somewhere outside")


def test_json_is_one_object_a_line_whatever_the_message(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json"))
    with log_context(id="web-7", attempt=2):
        try:
            raise RuntimeError("first\nsecond")
        except RuntimeError:
            log.exception("failed\nbadly")
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    entry = json.loads(written)
    assert (entry["id"], entry["attempt"], entry["level"], entry["message"]) == ("web-7", 2, "ERROR", "failed\nbadly")
    assert "RuntimeError: first\nsecond" in entry["exception"]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_passwords_in_urls_are_hidden(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    configure_logging(Settings.model_validate({"log_format": log_format}))
    try:
        raise ConnectionError("redis://user:hunter2@h/0 refused")
    except ConnectionError:
        log.exception("cannot reach %s", "rediss://:hunter2@h:6379/0")
    written = capsys.readouterr().err
    assert "hunter2" not in written
    assert "rediss://:***@h:6379/0" in written


def test_threads_do_not_share_the_context_unless_started_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json"))

    def said_by(run: threading.Thread) -> dict[str, object]:
        run.start()
        run.join()
        return last_json(capsys)

    with log_context(id="web-7"):
        assert "id" not in said_by(threading.Thread(target=log.info, args=("bare",)))
        copied = contextvars.copy_context()
        assert said_by(threading.Thread(target=copied.run, args=(log.info, "copied")))["id"] == "web-7"


def test_celerys_own_lines_on_a_step_name_it(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json"))
    log.info("received", extra={"data": {"name": "tasks.steps.verify", "id": "web_7-1.2.5.verify"}})
    entry = last_json(capsys)
    assert (entry["id"], entry["attempt"], entry["step"]) == ("web_7-1", 2, "verify")
    for data in ({"name": "tasks.steps.verify", "id": "odd"}, {"name": "tasks.show", "id": "a.1.1.verify"}, "odd"):
        log.info("received", extra={"data": data})
        assert "step" not in last_json(capsys)


def test_a_thread_that_dies_is_a_log_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json"))

    def die() -> None:
        raise RuntimeError("over")

    with log_context(id="web-7"):
        thread = make_thread(die, "lease-web-7")
    thread.start()
    thread.join()
    entry = last_json(capsys)
    assert (entry["message"], entry["level"]) == ("lease-web-7 ended", "ERROR")
    assert "RuntimeError: over" in str(entry["exception"])


def test_warnings_are_log_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json"))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("over two\nlines", stacklevel=1)
    assert "over two\nlines" in str(last_json(capsys)["message"])


def test_routine_lines_of_periodic_tasks_are_left_out_and_their_failures_are_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(Settings())
    for name in ("tasks.reconcile", "tasks.migrate"):
        log.info("%s received", name, extra={"data": {"name": name}})
        log.error("%s failed", name, extra={"data": {"name": name}})
    said = [line.split("tasks.somewhere ")[1] for line in capsys.readouterr().err.splitlines()]
    assert said == ["tasks.reconcile failed", "tasks.migrate received", "tasks.migrate failed"]


def test_levels(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_level="WARNING"))
    configure_logging(Settings(log_level="WARNING"))
    log.info("unseen")
    log.warning("seen once")
    assert capsys.readouterr().err.count("\n") == 1
