"""A cordon: nothing moves to a host until it is lifted; what runs there, and what leaves it, is not concerned."""

from __future__ import annotations

from pydantic import Field

from tasks.model.frozen import Frozen


class Cordon(Frozen):
    """Why a host takes no VMs."""

    host: str
    reason: str = Field("", max_length=255)
    """A person's words; may be empty."""
    at: float
    """Since when: Redis TIME, seconds since the epoch."""

    @property
    def words(self) -> str:
        """For messages, for example ``cordoned: kernel update``."""
        return f"cordoned: {self.reason}" if self.reason else "cordoned"
