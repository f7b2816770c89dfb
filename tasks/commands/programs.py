"""``vmferry worker``, ``beat`` and ``flower``: thin wrappers of the ordinary programs."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tasks.model.errors import ConfigurationError, InvalidRequest

if TYPE_CHECKING:
    from config.settings import Settings

ROOT_WARNING = "You're running the worker with superuser privileges"


def _settings() -> Settings:
    from config.settings import load_settings

    return load_settings()


def _exec(settings: Settings, program: str, *arguments: str) -> None:
    """Become the ordinary Celery program; the configuration was checked before, for a clear error."""
    # Celery's banner and its warning for root, written before logging is set up, are no JSON; and whoever collects a
    # container's output reads both of its streams.
    as_json = settings.log_format == "json"
    python = [sys.executable, *(("-W", f"ignore:{ROOT_WARNING}") if as_json else ())]
    celery = ["-m", "celery", "--app", "tasks.app", *(("--quiet",) if as_json else ())]
    command = [*python, *celery, program, "--loglevel", settings.log_level]
    os.execv(sys.executable, [*command, *arguments])  # noqa: S606


def worker(
    role: Annotated[str, typer.Option(help="control, steps, or all: which queues it serves.")] = "all",
    concurrency: Annotated[int, typer.Option(min=0, help="Threads; 0: the configuration's.")] = 0,
    name: Annotated[str, typer.Option(help="Node name before the @; default: the role.")] = "",
) -> None:
    """Start a Celery worker (thread pool)."""
    settings = _settings()
    queues = {"control": "vmferry", "steps": "vmferry.steps", "all": "vmferry,vmferry.steps"}
    if role not in queues:
        raise InvalidRequest("INVALID_ROLE", f"{role} is no role of a worker", "control, steps or all")
    slots = concurrency or (settings.control_concurrency if role == "control" else settings.step_concurrency)
    if role != "control":
        _check_slots(settings, slots)
    arguments = ["--pool", "threads", "--queues", queues[role], "--concurrency", str(slots)]
    # Neither mingle nor gossip is used here, and mingle delays every start by a second.
    arguments += ["--hostname", f"{name or role}@%h", "--without-mingle", "--without-gossip"]
    _exec(settings, "worker", *arguments)


def _check_slots(settings: Settings, slots: int) -> None:
    """With one steps worker its threads are all that there are; of several each sees only itself.

    Raises:
        ConfigurationError: ``CAP_ABOVE_SLOTS``.
    """
    if settings.step_workers == 1 and settings.max_total > slots:
        message = f"max_total = {settings.max_total}, and the only steps worker would have {slots} threads"
        hint = f"start it with --concurrency {settings.max_total} at least, or say how many there are (step_workers)"
        raise ConfigurationError("CAP_ABOVE_SLOTS", message, hint)


def beat() -> None:
    """Start Celery beat, which wakes the reconciler; one is enough, two are harmless."""
    _exec(_settings(), "beat")


def flower(
    insecure: Annotated[bool, typer.Option("--insecure", help="Without credentials, on a loopback address.")] = False,
    address: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on.")] = None,
) -> None:
    """Start Flower, the web page that operators watch."""
    settings = _settings()
    changes = {name: value for name, value in (("address", address), ("port", port)) if value is not None}
    settings = settings.model_copy(update={"flower": settings.flower.model_copy(update=changes)})
    from tasks.monitor.launcher import check_access, run_flower

    check_access(settings.flower, insecure=insecure)
    from tasks.app import app as celery_app

    run_flower(settings, celery_app, insecure=insecure)
