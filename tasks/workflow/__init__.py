"""How migrations run: admission, stepping, settling, recovery, and the operations that people may ask for."""

from tasks.workflow.dispatch import dispatch, publish, settle
from tasks.workflow.operations import cancel, check_inventory, retry, submit
from tasks.workflow.recovery import reconcile, republish_missing
from tasks.workflow.runtime import Messenger, Runtime
from tasks.workflow.stepping import STATE_OF, Handled, run_step

__all__ = [
    "STATE_OF",
    "Handled",
    "Messenger",
    "Runtime",
    "cancel",
    "check_inventory",
    "dispatch",
    "publish",
    "reconcile",
    "republish_missing",
    "retry",
    "run_step",
    "settle",
    "submit",
]
