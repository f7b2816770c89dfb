"""Displays that listen at an address of the source."""

from __future__ import annotations

from dataclasses import replace

from tasks.model.domain import Domain, Graphics
from tasks.model.remedies import Change
from tasks.planning.preflight.network import ANY_OR_LOOPBACK
from tasks.planning.remedies.remedy import Refusal, Remedy, Treatment
from tasks.planning.situation import Situation

ANYWHERE = "0.0.0.0"  # noqa: S104 - what the caller asks for by name
ANYWHERE_6 = "::"
HERE = "127.0.0.1"
HERE_6 = "::1"


def _addresses(s: Situation) -> list[str]:
    listens = (g.listen for d in s.definitions for g in d.graphics)
    strange = (a for a in listens if a and a not in ANY_OR_LOOPBACK and a != s.source.hostname)
    return list(dict.fromkeys(strange))


def _find(s: Situation, address: str, address_6: str, words: str) -> list[Treatment | Refusal]:
    found: list[Treatment | Refusal] = []
    for old in _addresses(s):
        new = address_6 if ":" in old else address
        message = f"a display that listens at {old} will listen at {new} on {s.destination.name}: {words}"
        found.append(_treatment(old, new, message))
    return found


def _treatment(old: str, new: str, message: str) -> Treatment:
    return Treatment("GRAPHICS_LISTEN_ADDRESS", f"at {old},", message, lambda s: _rewrite(s, Change(old=old, new=new)))


def _rewrite(s: Situation, change: Change) -> Situation:
    def changed(domain: Domain) -> Domain:
        return replace(domain, graphics=tuple(_moved(shown, change) for shown in domain.graphics))

    remedied = s.remedied.model_copy(update={"listens": (*s.remedied.listens, change)})
    inactive = changed(s.inactive) if s.inactive else None
    return replace(s, domain=changed(s.domain), inactive=inactive, remedied=remedied)


def _moved(shown: Graphics, change: Change) -> Graphics:
    return replace(shown, listen=change.new) if shown.listen == change.old else shown


LISTEN_ANYWHERE = Remedy(
    name="listen-anywhere",
    words="has a display that listens at an address of the source listen at all addresses of the destination",
    undone="nothing to undo: only the destination's definition differs",
    codes=("GRAPHICS_LISTEN_ADDRESS",),
    find=lambda s: _find(s, ANYWHERE, ANYWHERE_6, "whoever reaches that host reaches it"),
)
LISTEN_LOCALLY = Remedy(
    name="listen-locally",
    words="has such a display listen at the destination's loopback address, where only that host's own users reach it",
    undone="nothing to undo: only the destination's definition differs",
    codes=("GRAPHICS_LISTEN_ADDRESS",),
    find=lambda s: _find(s, HERE, HERE_6, "only from that host itself"),
)
