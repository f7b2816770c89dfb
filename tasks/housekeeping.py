"""Periodic tasks: all harmless when several run at the same time or one is missed.

They send no events: thousands an hour, they would hide the steps of migrations from those who watch Flower.
"""

from __future__ import annotations

from tasks import workflow
from tasks.app import app
from tasks.posting import post
from tasks.wiring import worker_runtime

REPUBLISH_WINDOW_S = 3600.0
"""How far back finished migrations are checked for a lost Celery result."""


@app.task(name="tasks.dispatch", ignore_result=True, send_events=False)
def dispatch(thorough: bool = True) -> None:
    """Admit what can start now."""
    workflow.dispatch(worker_runtime(), thorough=thorough)


@app.task(name="tasks.reconcile", ignore_result=True, send_events=False)
def reconcile() -> None:
    """Send again what nobody works on, publish missing results, admit what waits."""
    workflow.reconcile(worker_runtime())


@app.task(name="tasks.republish", ignore_result=True, send_events=False)
def republish() -> None:
    """Store results again that were lost from Celery's result store."""
    workflow.republish_missing(worker_runtime(), REPUBLISH_WINDOW_S)


@app.task(name="tasks.deliver_webhooks", ignore_result=True, send_events=False)
def deliver_webhooks() -> None:
    """Tell other systems what they were not told yet."""
    workflow.deliver_webhooks(worker_runtime(), post)


@app.task(name="tasks.prune", ignore_result=True, send_events=False)
def prune() -> None:
    """Forget finished records past their retention."""
    runtime = worker_runtime()
    runtime.store.prune(before=runtime.store.now() - runtime.settings.retention_s)
