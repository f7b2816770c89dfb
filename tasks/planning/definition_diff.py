"""What differs between the definition that was intended and the one that the destination has.

libvirt completes a definition when it takes it: addresses, aliases, models, controllers, labels. So the comparison is
one-sided: whatever was intended must be there with the same value, and of what is there in addition only that counts
which libvirt never adds on its own and which changes what the guest gets (another disk, a medium, read-only).
"""

from __future__ import annotations

import re

from tasks.planning.domain_xml import memory_kib
from tasks.planning.mark_xml import drop_mark
from tasks.planning.xml_tree import Element, attributes_of, parse_domain_tree

MEMORY = frozenset({"memory", "currentMemory", "maxMemory"})
MATTERS_WHEN_ADDED = frozenset(
    {"disk", "interface", "hostdev", "filesystem", "graphics", "lease", "tpm", "shmem", "redirdev", "smartcard"}
    | {"readonly", "shareable", "transient", "source", "auth", "encryption", "mirror", "filterref"}
)
"""Elements whose appearance on the destination is a difference."""
SECRET = re.compile(r"pass|cookie|token", re.IGNORECASE)

_KEYS: dict[str, tuple[tuple[str, str], ...]] = {
    "disk": (("target", "dev"),),
    "interface": (("mac", "address"),),
    "filesystem": (("target", "dir"),),
    "controller": ((".", "type"), (".", "index")),
    "channel": (("target", "name"), (".", "type")),
    "graphics": ((".", "type"),),
    "input": ((".", "type"), (".", "bus")),
    "feature": ((".", "name"),),
    "timer": ((".", "name"),),
    "vcpupin": ((".", "vcpu"),),
    "iothreadpin": ((".", "iothread"),),
    "cell": ((".", "id"),),
    "vcpu": ((".", "id"),),
    "entry": ((".", "name"),),
    "boot": ((".", "dev"), (".", "order")),
    "serial": (("target", "port"),),
    "console": (("target", "port"),),
}
"""How elements of which there are several are told apart; otherwise the first one that agrees is taken."""


def same_definition(intended_xml: str, actual_xml: str) -> list[str]:
    """Differences that matter between two *inactive* definitions, for people; empty when there are none.

    Values that may be secrets are never shown.

    Raises:
        InvalidRequest: code ``XML_INVALID``.
    """
    intended, actual = parse_domain_tree(intended_xml), parse_domain_tree(actual_xml)
    for root in (intended, actual):
        drop_mark(root)
        if root.get("id") is not None:
            del root.attrib["id"]
    return _compare(intended, actual, "")


def _compare(intended: Element, actual: Element, place: str) -> list[str]:
    return [
        *_attribute_differences(intended, actual, place),
        *_text_differences(intended, actual, place),
        *_child_differences(intended, actual, place),
    ]


def _attribute_differences(intended: Element, actual: Element, place: str) -> list[str]:
    ignored = {"unit"} if intended.tag in MEMORY else set()
    return [
        _difference(f"{place}@{name}", value, actual.get(name))
        for name, value in attributes_of(intended)
        if name not in ignored and not _same_value(value, actual.get(name))
    ]


def _same_value(wanted: str, found: str | None) -> bool:
    """Equal as text, or as numbers: libvirt writes 0x00 where a person wrote 0."""
    if found is None or wanted == found:
        return wanted == found
    try:
        return int(wanted, 0) == int(found, 0)
    except ValueError:
        return False


def _text_differences(intended: Element, actual: Element, place: str) -> list[str]:
    if intended.tag in MEMORY and (amount := memory_kib(intended)) > 0:
        found = memory_kib(actual)
        return [] if amount == found else [_difference(place, f"{amount} KiB", f"{found} KiB")]
    wanted, found_text = (intended.text or "").strip(), (actual.text or "").strip()
    return [] if not wanted or wanted == found_text else [_difference(place, wanted, found_text)]


def _child_differences(intended: Element, actual: Element, place: str) -> list[str]:
    left = [child for child in actual if not _is_filled_in(child)]
    differences: list[str] = []
    for child in intended:
        if _is_filled_in(child):
            continue
        where = _place(place, child)
        match, found = _find_match(child, left, where)
        differences.extend(found)
        if match is not None:
            left.remove(match)
    added = [child for child in left if _matters_when_added(child, actual)]
    return differences + [f"{_place(place, child)} is there and should not" for child in added]


def _matters_when_added(child: Element, holder: Element) -> bool:
    """CD-ROM drives are read-only, whether or not the definition said so."""
    return child.tag in MATTERS_WHEN_ADDED and not (child.tag == "readonly" and holder.get("device") == "cdrom")


def _is_filled_in(element: Element) -> bool:
    """Whether an element belongs to an instance or to libvirt's own book-keeping."""
    if element.tag == "alias":
        return not element.get("name", "").startswith("ua-")  # the prefix of names that users gave
    if element.tag == "seclabel":
        return element.get("type") != "static"
    if element.tag == "console":  # the first serial port seen as a console: added and dropped by libvirt
        return (target := element.find("target")) is not None and target.get("type") == "serial"
    return element.tag == "backingStore" or (element.tag == "metadata" and len(element) == 0)


def _find_match(child: Element, candidates: list[Element], where: str) -> tuple[Element | None, list[str]]:
    """The counterpart with the fewest differences among those with the same key, and these differences."""
    best: Element | None = None
    fewest = [f"{where} is missing"]
    for candidate in candidates:
        if candidate.tag != child.tag or not _agrees(child, candidate):
            continue
        found = _compare(child, candidate, where)
        if best is None or len(found) < len(fewest):
            best, fewest = candidate, found
        if not found:
            break
    return best, fewest


def _agrees(intended: Element, actual: Element) -> bool:
    """Whether every part of the key that was intended is the same."""
    wanted, found = _key(intended), _key(actual)
    return all(w is None or w == f for w, f in zip(wanted, found, strict=True))


def _key(element: Element) -> list[str | None]:
    values: list[str | None] = []
    for path, name in _KEYS.get(str(element.tag), ()):
        holder = element.find(path) if path != "." else element
        values.append(holder.get(name) if holder is not None else None)
    return values


def _place(parent: str, element: Element) -> str:
    name = str(element.tag).rpartition("}")[2]
    key = "/".join(v for v in _key(element) if v)
    named = f"{name}[{key}]" if key else name
    return f"{parent}/{named}" if parent else named


def _difference(place: str, wanted: str, found: str | None) -> str:
    if SECRET.search(place) or "commandline" in place:
        return f"{place} differs"
    return f"{place} is {found or 'missing'} instead of {wanted}"[:300]
