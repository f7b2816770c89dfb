"""The only place that imports redis: records, tokens, locks, waiters and events, changed by Lua scripts; cordons."""

from tasks.store.client import connect
from tasks.store.cordons import CordonStore
from tasks.store.drains import DrainStore
from tasks.store.events import EventStore
from tasks.store.queue import QueueStore
from tasks.store.rates import RateStore
from tasks.store.runs import Admission, Limits, RunStore, Submission
from tasks.store.shares import ShareStore
from tasks.store.turns import TurnStore
from tasks.store.webhooks import WebhookStore

__all__ = [
    "Admission",
    "CordonStore",
    "DrainStore",
    "EventStore",
    "Limits",
    "QueueStore",
    "RateStore",
    "RunStore",
    "ShareStore",
    "Submission",
    "TurnStore",
    "WebhookStore",
    "connect",
]
