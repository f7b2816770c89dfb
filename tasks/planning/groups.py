"""VMs that belong on one host, or on different ones: as the configuration says, and as their own metadata says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from lxml import etree

from tasks.model.domain import DomainView

GROUPS_TAG: Final = "{urn:vmferry:groups:1}groups"
"""``virsh metadata VM urn:vmferry:groups:1 --key vmferry-groups --set '<groups apart="db"/>' --live --config``."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class GroupRule:
    """A group of the configuration."""

    name: str
    vms: frozenset[str]
    """Names or UUIDs."""
    apart: bool
    """Each on a host of its own; else all on one."""


@dataclass(frozen=True, slots=True)
class Membership:
    """The groups of one VM."""

    together: str = ""
    apart: frozenset[str] = frozenset()


NO_GROUPS: Final = Membership()


def groups_in(xml: str) -> Membership:
    """What a definition's metadata says; anything that cannot be understood is no group."""
    try:
        root = etree.fromstring(xml.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
    except (etree.XMLSyntaxError, ValueError, UnicodeEncodeError):
        return NO_GROUPS
    found = root.find(f"metadata/{GROUPS_TAG}")
    if found is None:
        return NO_GROUPS
    together = found.get("together", "")
    apart = frozenset(name for name in found.get("apart", "").split() if _NAME.fullmatch(name))
    return Membership(together if _NAME.fullmatch(together) else "", apart)


def membership_of(view: DomainView, rules: Iterable[GroupRule], said: Membership) -> Membership:
    """The groups of one VM; the configuration's word about who is together goes before the VM's own."""
    mine = [rule for rule in rules if {view.name, view.uuid} & rule.vms]
    together = next((rule.name for rule in mine if not rule.apart), said.together)
    return Membership(together, said.apart | {rule.name for rule in mine if rule.apart})


def rivals_at(present: Iterable[str], memberships: Mapping[str, Membership]) -> frozenset[str]:
    """Groups of VMs that are kept apart, of which one is among these; by their UUIDs."""
    return frozenset[str]().union(*(memberships.get(uuid, NO_GROUPS).apart for uuid in present))


def homes_at(present: Iterable[str], memberships: Mapping[str, Membership]) -> frozenset[str]:
    """Groups of VMs that belong together, of which one is among these."""
    return frozenset(memberships.get(uuid, NO_GROUPS).together for uuid in present) - {""}
