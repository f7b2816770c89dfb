"""How migrations run: admission, stepping, settling, recovery, and the operations that people may ask for."""

from tasks.workflow.dispatch import dispatch, publish, settle
from tasks.workflow.drains import (
    advance_drains,
    ask_drain,
    cancel_drain,
    last_drain_of,
    pause_drain,
    plan_drain,
    resume_drain,
    retry_drain,
)
from tasks.workflow.forecasting import plan_migration
from tasks.workflow.operations import cancel, check_inventory, retry, submit
from tasks.workflow.recovery import reconcile, republish_missing
from tasks.workflow.recurring import begin_recurring, list_recurring
from tasks.workflow.runtime import Messenger, Runtime
from tasks.workflow.stepping import STATE_OF, Handled, run_step
from tasks.workflow.webhooks import deliver_webhooks

__all__ = [
    "STATE_OF",
    "Handled",
    "Messenger",
    "Runtime",
    "advance_drains",
    "ask_drain",
    "begin_recurring",
    "cancel",
    "cancel_drain",
    "check_inventory",
    "deliver_webhooks",
    "dispatch",
    "last_drain_of",
    "list_recurring",
    "pause_drain",
    "plan_drain",
    "plan_migration",
    "publish",
    "reconcile",
    "republish_missing",
    "resume_drain",
    "retry",
    "retry_drain",
    "run_step",
    "settle",
    "submit",
]
