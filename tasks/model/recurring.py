"""What people see of drains that begin by themselves."""

from __future__ import annotations

from tasks.model.frozen import Frozen


class Coming(Frozen):
    """One time at which it will begin; seconds since the epoch."""

    id: str
    """That the drain will have."""
    due: float
    ends: float | None = None
    """Nothing starts that is expected to end after it."""
    returns: float | None = None
    """When the VMs come back."""


class RecurringStatus(Frozen):
    """A drain of the configuration."""

    name: str
    host: str
    time_zone: str
    coming: tuple[Coming, ...]
    last: str | None = None
    """Id of its newest drain."""
    last_state: str | None = None
    problem: str = ""
    """Why it could not begin as it is configured."""
