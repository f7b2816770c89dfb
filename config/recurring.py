"""Drains that begin by themselves, as the configuration has them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, StringConstraints, field_validator, model_validator

from config.section import Section
from tasks.model.request import FindingCode, HostName, Label, Passed, PolicyName, RemedyName, Times, VmName

RecurringName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,23}$")]
"""Ids of drains begin with it, and have 48 characters at most."""
Clock = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Week = Literal[1, 2, 3, 4, 5, -1]


class RecurringDrainSettings(Section):
    """A drain that begins by itself, again and again."""

    host: HostName
    """Host to be emptied."""
    at: Clock
    """When it begins, ``22:00``, by the clocks of ``time_zone``."""
    until: Clock | None = None
    """Nothing starts that is expected to end after the first such time that follows; no end when absent. A drain whose
    beginning was missed is begun as long as this has not come; without it for an hour."""
    days: list[Day] = Field(default_factory=list)
    """On these days only: ``mon`` to ``sun``; every day when empty."""
    weeks: list[Week] = Field(default_factory=list)
    """Which of those days in a month: 1 is the first, -1 the last; ``days = ["tue"]`` with ``weeks = [2]`` is each
    month's second Tuesday."""
    time_zone: Annotated[str, StringConstraints(max_length=64)] = "UTC"
    """IANA name, for example ``Europe/Berlin``."""
    return_at: Clock | None = None
    """Bring back then what was moved away, and let VMs come to the host again: the first such time after ``until``."""
    to: list[HostName] = Field(default_factory=list)
    """Hosts that VMs may go to; all when empty."""
    strict: bool = False
    """Move nothing at all unless every VM can move."""
    shut_off: Literal["move", "leave"] = "leave"
    """What becomes of VMs that are shut off."""
    leave: list[VmName] = Field(default_factory=list)
    """VMs that stay, by name or UUID."""
    may_shut_off: list[VmName] = Field(default_factory=list)
    """VMs that are asked to shut down when they cannot move live; the same."""
    policy: PolicyName = "default"
    """Of all its migrations, and of those that bring VMs back."""
    priority: int = Field(0, ge=-1000, le=1000)
    """The same."""
    accept: list[FindingCode] = Field(default_factory=list)
    """Codes of findings that shall not stand in the way; the same."""
    remedies: list[RemedyName] = Field(default_factory=list)
    """The same."""
    labels: dict[Label, Label] = Field(default_factory=dict)
    """The same."""
    verify: Literal["auto", "basic", "deep"] = "auto"
    """How far what was copied is compared; the same."""
    source_disks: Literal["keep", "delete"] = "keep"
    """What becomes of files that were copied; the same."""
    data_path: Literal["auto", "hosts", "worker"] = "auto"
    """How disks of VMs that are shut off go when they are copied; the same."""

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("no such time zone; an IANA name such as Europe/Berlin; is tzdata installed?") from None
        return value

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        if self.until == self.at:
            raise ValueError("until: it ends when it begins; leave it out for no end")
        if self.return_at is not None and self.until is None:
            raise ValueError("return_at: needs until, after which VMs come back")
        if self.weeks and not self.days:
            raise ValueError("weeks: needs days, for example days = ['tue'] and weeks = [2]")
        return self

    def drain_values(self) -> dict[str, Any]:
        """Arguments of the drain that empties the host, but for its deadline."""
        names = ("to", "strict", "shut_off", "leave")
        return {"host": self.host} | {name: getattr(self, name) for name in names} | self.return_values()

    def return_values(self) -> dict[str, Any]:
        """Those that are also the return's."""
        names = ("may_shut_off", *(name for name in Passed.model_fields if name not in Times.model_fields))
        return {name: getattr(self, name) for name in names}
