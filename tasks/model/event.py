"""What other systems are told: one event for each change of a migration's state, in the order of the changes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict

from tasks.model.drain import DrainRecord, DrainState
from tasks.model.frozen import Frozen
from tasks.model.request import Method, Storage
from tasks.model.run import ErrorInfo, RunRecord, State

EVENT_SCHEMA_VERSION = 1


class Event(Frozen):
    """One change of state. Members may be added; what is here keeps its meaning for this ``schema_version``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int = EVENT_SCHEMA_VERSION
    kind: Literal["migration", "drain"] = "migration"
    """What changed."""
    id: str
    """Of the migration, or of the drain."""
    state: str
    previous: str | None = None
    """None when it was just submitted."""
    attempt: int
    vm: str = ""
    """Of a migration."""
    drain: str = ""
    """Id of the drain that a migration belongs to."""
    uuid: str | None = None
    source: str | None = None
    destination: str = ""
    """Of a migration."""
    method: Method | None = None
    storage: Storage | None = None
    error: ErrorInfo | None = None
    labels: dict[str, str]
    """The request's."""


class Told(Frozen):
    """An event, with its place in the stream."""

    position: str
    """Of the stream; whoever goes on after it misses nothing and hears nothing twice."""
    at: float
    """Redis TIME, seconds since the epoch."""
    event: Event


def drain_event(record: DrainRecord, previous: DrainState | None) -> Event:
    """The event of a drain's change to the state that it is in; its host is the ``source``."""
    return Event(
        kind="drain",
        id=record.id,
        state=record.state,
        previous=previous,
        attempt=record.round,
        source=record.request.host,
        error=record.error,
        labels=record.request.labels,
    )


def event_of(record: RunRecord, previous: State | None) -> Event:
    """The event of a record's change to the state that it is in."""
    shared: dict[str, Any] = {name: getattr(record, name) for name in Event.model_fields if hasattr(record, name)}
    shared |= {"schema_version": EVENT_SCHEMA_VERSION, "previous": previous, "labels": record.request.labels}
    return Event(**shared)
