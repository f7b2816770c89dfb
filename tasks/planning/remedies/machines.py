"""Names of machine types that stand for another type on each host."""

from __future__ import annotations

from dataclasses import replace

from tasks.model.domain import Domain
from tasks.model.remedies import Change
from tasks.planning.remedies.remedy import Refusal, Remedy, Treatment
from tasks.planning.situation import Situation


def _find(s: Situation) -> list[Treatment | Refusal]:
    found: list[Treatment | Refusal] = []
    for name in dict.fromkeys(d.machine for d in s.definitions if d.machine):
        here, there = s.source.machine_aliases.get(name), s.destination.machine_aliases.get(name)
        if here and there and here != there:
            found.append(_resolve(s, name, here))
    return found


def _resolve(s: Situation, name: str, exact: str) -> Treatment | Refusal:
    if exact not in s.destination.machines:
        message = f"{s.destination.name} does not offer {exact}, which {name} is on {s.source.name}"
        return Refusal(message, "install the same or a newer QEMU there")
    message = f"machine type {name} becomes {exact} on {s.destination.name}, as it is on {s.source.name}"
    change = Change(old=name, new=exact)
    return Treatment("MACHINE_ALIAS", f"machine type {name} ", message, lambda s: _resolved(s, change))


def _resolved(s: Situation, change: Change) -> Situation:
    def changed(domain: Domain) -> Domain:
        return replace(domain, machine=change.new if domain.machine == change.old else domain.machine)

    remedied = s.remedied.model_copy(update={"machines": (*s.remedied.machines, change)})
    inactive = changed(s.inactive) if s.inactive else None
    return replace(s, domain=changed(s.domain), inactive=inactive, remedied=remedied)


RESOLVE_MACHINE = Remedy(
    name="resolve-machine",
    words="puts the exact machine type into the destination's definition where a name stands for another type on each "
    "host",
    undone="nothing to undo: only the destination's definition differs",
    codes=("MACHINE_ALIAS",),
    find=_find,
)
