"""Webhooks: where other systems want to be told, and how far that got."""

from __future__ import annotations

from tasks.model.frozen import Frozen


class Delivery(Frozen):
    """How far the deliveries to one webhook got. Times are Redis TIME, seconds since the epoch."""

    position: str
    """Of the last event that was dealt with."""
    tries: int = 0
    """How often the next one was tried."""
    next_at: float = 0.0
    """When it is tried again."""
    error: str = ""
    """What went wrong the last time; empty when nothing did."""


class Undelivered(Frozen):
    """An event that was given up."""

    position: str
    at: float
    """When it was given up."""
    error: str
    event: str
    """Its JSON, as it would have been sent."""
