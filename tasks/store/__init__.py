"""The only place that imports redis: run records, tokens, locks and waiters, changed by Lua scripts; cordons."""

from tasks.store.client import connect
from tasks.store.cordons import CordonStore
from tasks.store.runs import Admission, Limits, RunStore, Submission

__all__ = ["Admission", "CordonStore", "Limits", "RunStore", "Submission", "connect"]
