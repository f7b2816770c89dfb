"""Media in CD-ROM and floppy drives, as elements of a definition."""

from __future__ import annotations

from copy import deepcopy

from tasks.planning.domain_xml import source_of
from tasks.planning.xml_tree import Element, parse_domain_tree, parse_tree, to_text

PREFIX = "medium-"


def medium_key(target: str) -> str:
    """Key of a drive's image among the files that are copied."""
    return f"{PREFIX}{target}"


def drive_of(domain_xml: str, target: str) -> str | None:
    """The drive with this guest-side name as an element of its own; None when the definition has none.

    Raises:
        InvalidRequest: code ``XML_INVALID``.
    """
    for disk in parse_domain_tree(domain_xml).findall("devices/disk"):
        name = disk.find("target")
        if name is not None and name.get("dev") == target:
            return to_text(deepcopy(disk))
    return None


def medium_in(drive: str) -> str | None:
    """What is in a drive: a path or ``pool/volume``; None when it is empty."""
    return source_of(parse_tree(drive))


def without_medium(drive: str) -> str:
    """The drive, empty."""
    root = parse_tree(drive)
    for tag in ("source", "backingStore"):
        for element in root.findall(tag):
            root.remove(element)
    return to_text(_of_files(root))


def _of_files(drive: Element) -> Element:
    """libvirt takes an empty drive of volumes for a broken definition."""
    drive.set("type", "file")
    return drive
