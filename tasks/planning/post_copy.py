"""A post-copy only goes forward. What to do when it stands still, from what the source shows; nothing is ever undone.

The guest runs on the destination, and what it touches of the memory that has not arrived waits for the source. When
the link between the two is lost and comes back, TCP takes the transfer up again by itself within two minutes, also
after libvirt has given up on it (observed with libvirt 9.0, QEMU 7.2). When it does not, libvirt's POSTCOPY_RESUME
connects the two halves anew. It is refused as long as QEMU believes that its old connection works; this one is then
cut, but only after TCP had all the time that it may take: a destination whose QEMU waits for a page in the midst of
something can answer nobody, libvirt neither, and only the old connection can bring that page (observed: a resume
right after a cut never came back).
"""

from __future__ import annotations

from enum import StrEnum

from tasks.model.convergence import Forward

STILL_S = 10.0
"""Nothing is done about a post-copy that has been standing still for less."""
TCP_S = 130.0
"""The longest that TCP waits before it sends something again is 120 s (Linux: TCP_RTO_MAX)."""
AFTER_CUT_S = 2.0
"""What QEMU gets to notice that its connection was cut."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 60.0
"""Between two tries to resume it; each pause is twice as long as the one before."""
LEAST_TRIES = 3
"""Before a person is asked, also when it was found standing still for long."""
REFUSED = "OPERATION_INVALID"
"""The code of such a refusal: the destination was reached."""


class Help(StrEnum):
    """What to do now."""

    WAIT = "wait"
    CUT = "cut"
    """Cut its connection, so that it can be resumed."""
    RESUME = "resume"
    ASK = "ask"
    """A person has to see to it."""


def decide_help(
    kept: Forward, *, limit_s: float, remaining: int | None, broken: bool, calling: bool, now: float
) -> tuple[Forward, Help]:
    """One look at a post-copy: what to remember, and what to do.

    ``remaining`` is in bytes; ``broken``: the source's libvirt says that the connection is lost; ``calling``: a call to
    resume it has not returned; ``limit_s``: how long it is helped.
    """
    if not kept.moved_at or remaining != kept.remaining_bytes:
        return Forward(remaining_bytes=remaining, moved_at=now), Help.WAIT
    still = now - kept.moved_at
    if still > limit_s and kept.tries >= LEAST_TRIES:
        return kept, Help.ASK
    if calling or still < STILL_S or now < kept.next_at:
        return kept, Help.WAIT
    tries = kept.tries + 1
    if broken and kept.refused_at and now - kept.refused_at > TCP_S:
        after = {"tries": tries, "next_at": now + AFTER_CUT_S, "refused_at": 0.0}
        return kept.model_copy(update=after), Help.CUT
    pause = min(FIRST_PAUSE_S * 2**kept.tries, LONGEST_PAUSE_S)
    # While libvirt itself is still at it, there is nothing to resume.
    return kept.model_copy(update={"tries": tries, "next_at": now + pause}), Help.RESUME if broken else Help.WAIT


def heard(kept: Forward, code: str, message: str, now: float) -> Forward:
    """A call to resume it came back with this error, or with none."""
    refused_at = (kept.refused_at or now) if code == REFUSED else 0.0
    return kept.model_copy(update={"message": message, "refused_at": refused_at})
