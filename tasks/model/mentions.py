"""What a domain's definition names on its host, and when two names of a file or a device mean the same."""

from __future__ import annotations

import re
from dataclasses import dataclass
from posixpath import normpath

from lxml import etree

MAPPED = re.compile(r"/dev/mapper/((?:[^-/]|--)+)-((?:[^-/]|--)+)")
"""A logical volume by device mapper's name: group and volume, in which a dash is doubled (lvm(8))."""


@dataclass(frozen=True, slots=True)
class Mentions:
    """Everything that a definition names."""

    values: frozenset[str]
    """Values of attributes, and texts: the file with the UEFI variables is one."""
    volumes: frozenset[tuple[str, str]]
    """Pool and volume of disks that are named so: libvirt shows no path of these, also when the VM runs."""


def parse_mentions(xml: str) -> Mentions:
    """Of one definition."""
    root = etree.fromstring(xml.encode(), etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True))
    values: set[str] = set()
    volumes = set()
    for element in root.iter(etree.Element):
        values |= {str(value) for value in element.attrib.values()}
        values.add((element.text or "").strip())
        pool, volume = element.get("pool"), element.get("volume")
        if pool and volume:
            volumes.add((pool, volume))
    return Mentions(frozenset(values - {""}), frozenset(volumes))


def plain_path(name: str) -> str:
    """One spelling of a path for all that can be told without looking; anything else stays as it is."""
    if not name.startswith("/"):
        return name
    path = normpath("/" + name.lstrip("/"))
    mapped = MAPPED.fullmatch(path)
    return f"/dev/{'/'.join(part.replace('--', '-') for part in mapped.groups())}" if mapped else path


def same_path(one: str, other: str) -> bool:
    """Whether two spellings are those of one path."""
    return plain_path(one) == plain_path(other)
