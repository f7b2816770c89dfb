"""The only place that imports redis: run records, tokens, locks and waiters, all changed by Lua scripts."""

from tasks.store.client import connect
from tasks.store.runs import Admission, Limits, RunStore, Submission

__all__ = ["Admission", "Limits", "RunStore", "Submission", "connect"]
