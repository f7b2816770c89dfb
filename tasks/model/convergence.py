"""How a transfer is brought to its end: a policy as data, and what is remembered of a transfer under way."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from tasks.model.frozen import Frozen

GIB = 1 << 30


class OnTimeout(StrEnum):
    """What a policy does when its time is over."""

    ABORT = "abort"
    """Give up: the VM stays where it is."""
    PAUSE = "pause"
    """Let the guest stand still until it has arrived."""
    POST_COPY = "post-copy"
    """Let it run on the destination at once, and fetch what is missing."""


class Convergence(Frozen):
    """How a transfer is brought to its end."""

    downtime_steps_ms: tuple[int, ...] = (300,)
    """Longest pauses that QEMU may plan for the switch-over, one after the other."""
    passes_per_step: int = Field(2, ge=1)
    """Passes over memory after which the next, longer pause is allowed."""
    post_copy_after_passes: int = Field(0, ge=0)
    """Switch to post-copy after so many passes; 0: never."""
    completion_s: float = Field(0.0, ge=0)
    """Time that the transfer has, seconds; 0: no limit."""
    completion_s_per_gib: float = Field(0.0, ge=0)
    """The same for each GiB of memory and copied disks, one GiB at least; the shorter of both counts."""
    stall_timeout_s: float = Field(0.0, ge=0)
    """Time in which what remains must become less than it ever was, seconds; 0: no limit."""
    on_timeout: OnTimeout = OnTimeout.ABORT
    post_copy_recovery_s: float = Field(600.0, ge=0)
    """How long a post-copy that stands still is helped before a person is asked, seconds."""

    def time_for(self, total_bytes: int) -> float:
        """How long a transfer of so many bytes may take, seconds; 0: no limit."""
        limits = (self.completion_s, self.completion_s_per_gib * max(1.0, total_bytes / GIB))
        return min((limit for limit in limits if limit), default=0.0)

    @property
    def wants_post_copy(self) -> bool:
        """Whether it must be made possible when the transfer starts."""
        return self.post_copy_after_passes > 0 or self.on_timeout is OnTimeout.POST_COPY


class Forward(Frozen):
    """What is remembered of a post-copy that stands still: it only ever goes forward."""

    remaining_bytes: int | None = None
    """What was last seen to remain."""
    moved_at: float = 0.0
    """When that last changed."""
    tries: int = 0
    """How often something was done about it since."""
    next_at: float = 0.0
    """Nothing more is tried before."""
    refused_at: float = 0.0
    """Since when libvirt refuses to resume it, as QEMU believes that it still goes on."""
    message: str = ""
    """Of the error with which the last call to resume it ended."""


class Progressed(Frozen):
    """What is remembered of a transfer from look to look, in its record: who adopts it goes on from there."""

    began_at: float | None = None
    """Seconds since the epoch, as all times here."""
    total_bytes: int = 0
    """All that there is to be sent, as far as it was known when this was."""
    least_bytes: int | None = None
    """The least that ever remained."""
    least_at: float = 0.0
    step: int = 0
    """How many of the policy's pauses were allowed."""
    step_pass: int = 0
    """The pass in which the last one was."""
    paused_at: float | None = None
    post_copy_at: float | None = None
    """When it was decided; the journal says whether it was done."""
    post_copy_refused: bool = False
    """libvirt would not switch over: the policy goes on without it."""
    forward: Forward = Forward()
    aborted: bool = False
