"""The Celery app: ``celery -A tasks.app worker`` and ``celery -A tasks.app beat``."""

from __future__ import annotations

from typing import Any

from celery import Celery, signals

from config.celery import celery_settings
from config.logging import configure_logging
from config.settings import load_settings
from tasks.transport import GuardedTask

settings = load_settings()

app = Celery(
    "vmferry",
    task_cls=GuardedTask,
    include=["tasks.migrate", "tasks.chain", "tasks.housekeeping", "tasks.drain", "tasks.control", "tasks.about"],
)
app.conf.update(celery_settings(settings))


@signals.setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    configure_logging(settings)


@signals.worker_shutting_down.connect
def _detach(**_: Any) -> None:
    """Told to stop: the steps in flight leave their transfers to libvirt and to other workers."""
    from tasks.wiring import worker_runtime

    worker_runtime().stopping.set()


@signals.worker_ready.connect
def _warm_up(**_: Any) -> None:
    from tasks.wiring import warm_up, worker_runtime

    warm_up(worker_runtime())
