"""Events, a line each."""

from __future__ import annotations

from tasks.model.event import Told
from tasks.rendering.records import when


def event_line(told: Told) -> str:
    """When, which migration, where to, and how it changed."""
    event = told.event
    change = f"{event.previous} → {event.state}" if event.previous else f"{event.state}"
    error = f"  {event.error.code}: {event.error.message}" if event.error else ""
    return f"{when(told.at)}  {event.id}  {event.vm}: {event.source or '?'} → {event.destination}  {change}{error}"
