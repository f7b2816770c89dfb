"""The base of everything that is stored inside a record."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A value that is never changed, only replaced."""

    model_config = ConfigDict(frozen=True)
