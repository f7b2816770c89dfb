"""Webhooks: what is sent, signed how, and when it is tried again."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection

from tasks.model.event import Event, Told

FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 300.0


def is_wanted(event: Event, kinds: Collection[str], states: Collection[str]) -> bool:
    """Whether a webhook is told of an event; no states named means all."""
    return event.kind in kinds and (not states or event.state in states)


def headers_of(told: Told, body: bytes, secret: str, now: float) -> dict[str, str]:
    """The signature is over the time and the body, so that neither can be changed, nor an old one be sent again."""
    stamp = str(int(now))
    digest = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "User-Agent": "vmferry",
        "X-Vmferry-Event": told.position,
        "X-Vmferry-Signature": f"t={stamp},v1={digest}",
    }


def wait_after(tries: int) -> float:
    """Seconds until the next try, after so many."""
    return float(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(max(tries - 1, 0), 16)))
