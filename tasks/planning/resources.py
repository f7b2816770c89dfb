"""Every resource of the host that a domain XML names; what is not recognised is reported as such, never dropped."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tasks.model.domain import Resource
from tasks.planning.addresses import format_address
from tasks.planning.resource_table import CHARDEV_HOLDERS, CHARDEVS, GUEST_SIDE, HOST_ATTRIBUTES, KINDS, LAYERS, SKIPPED
from tasks.planning.resource_vocabulary import is_known_element
from tasks.planning.xml_tree import Element, attributes_of, parse_domain_tree

_PATH_LIKE = re.compile(r"^/|://|[=,:;\s]/[\w.]")
_SECRET_NAME = re.compile(r"pass|token|credential|cookie", re.IGNORECASE)
HIDDEN = "(hidden)"

_CHARDEV_KINDS = {"file": "file", "pipe": "pipe", "unix": "socket", "pty": "pty", "dev": "device-node"}
_HOST_ADDRESSES = frozenset({"devices/hostdev/source/address", "devices/interface/source/address"})


def list_resources(xml: str) -> tuple[Resource, ...]:
    """Everything of the host that the domain XML names, in document order.

    Raises:
        InvalidRequest: code ``XML_INVALID``.
    """
    return resources_of(parse_domain_tree(xml))


def resources_of(root: Element) -> tuple[Resource, ...]:
    """As ``list_resources``, of a parsed ``domain`` element."""
    return tuple(found for child in root for found in _visit(child, ""))


def _visit(element: Element, parent: str) -> Iterator[Resource]:
    """Resources of an element and of what is below it; ``parent`` is the folded path of its parent."""
    name = str(element.tag)
    path = _fold(parent, name)
    if path in SKIPPED:
        return
    if name.startswith("{") or not is_known_element(path, name):
        yield from _unknown(element)
        return
    if path in _HOST_ADDRESSES or (path == "devices/disk/source/address"):
        yield _resource(*format_address(element), element)
        return
    yield from _special(element, path)
    yield from _attributes(element, path)
    yield from _text(element, path)
    for child in element:
        yield from _visit(child, path)


def _fold(parent: str, name: str) -> str:
    if parent == "devices" and name in CHARDEVS:
        return "devices/chardev"
    if parent in CHARDEV_HOLDERS and name in ("source", "log"):
        return f"devices/chardev/{name}"
    if parent in ("devices/disk", "devices/disk/source") and name in LAYERS:
        return "devices/disk"
    return f"{parent}/{name}" if parent else name


def _special(element: Element, path: str) -> Iterator[Resource]:
    """What takes more than one attribute to name."""
    if path == "devices/hostdev/source" and element.find("vendor") is not None:
        ids = [_id_of(element, name) for name in ("vendor", "product")]
        yield _resource("usb", ":".join(ids), element)
    if path == "memoryBacking/hugepages" and len(element) == 0:
        yield _resource("hugepages", "default", element)


def _id_of(element: Element, name: str) -> str:
    found = element.find(name)
    return found.get("id", "") if found is not None else ""


def _attributes(element: Element, path: str) -> Iterator[Resource]:
    for name, value in attributes_of(element):
        key = f"{path}@{name}"
        if not value or _SECRET_NAME.search(name):
            continue
        if kind := KINDS.get(key):
            yield _resource(_kind(kind, element), _full_value(key, value, element), element, f"/@{name}")
        elif key not in GUEST_SIDE and _looks_like_host(path, name, value):
            yield _resource(name, value, element, f"/@{name}", known=False)


def _text(element: Element, path: str) -> Iterator[Resource]:
    text = (element.text or "").strip()
    if not text or _SECRET_NAME.search(path):
        return
    if kind := KINDS.get(path):
        yield _resource(kind, text, element)
    elif _PATH_LIKE.search(text):
        yield _resource("text", text, element, known=False)


def _looks_like_host(path: str, name: str, value: str) -> bool:
    in_source = path.startswith("devices/") and path.endswith("/source")
    return in_source or name in HOST_ATTRIBUTES or name.startswith("{") or bool(_PATH_LIKE.search(value))


def _kind(kind: str, element: Element) -> str:
    """Kinds that depend on the device's type."""
    holder = element.getparent()
    if kind == "chardev" and holder is not None:
        return _CHARDEV_KINDS.get(holder.get("type", ""), "character-device")
    if kind == "filesystem" and holder is not None and holder.find("driver") is not None:
        return "virtiofs" if _driver_of(holder) == "virtiofs" else kind
    if kind == "interface" and holder is not None and holder.get("type") == "vdpa":
        return "vdpa"
    if kind == "block" and holder is not None and holder.get("type") == "vhostvdpa":
        return "vdpa"
    return kind


def _driver_of(holder: Element) -> str | None:
    driver = holder.find("driver")
    return driver.get("type") if driver is not None else None


def _full_value(key: str, value: str, element: Element) -> str:
    """A volume with its pool, a network disk with its protocol, a host with its port."""
    if key.endswith("/source@volume"):
        return f"{element.get('pool', '')}/{value}"
    if key.endswith("/source@name") and element.get("protocol"):
        return f"{element.get('protocol')}:{value}"
    if key.endswith("/host@name") and element.get("port"):
        return f"{value}:{element.get('port')}"
    if key.endswith("/source@host") and element.get("service"):
        return f"{value}:{element.get('service')}"
    if key == "memoryBacking/hugepages/page@size":
        return f"{value} {element.get('unit', 'KiB')}"
    return value


def _unknown(element: Element) -> Iterator[Resource]:
    """Everything said in a part of the document that we cannot judge."""
    name = str(element.tag).rpartition("}")[2]
    yield _resource("element", name, element, known=False)
    for part in element.iter():
        for attribute, value in attributes_of(part):
            shown = HIDDEN if _SECRET_NAME.search(attribute) else value
            yield _resource(name, shown, part, f"/@{attribute}", known=False)
        if text := (part.text or "").strip():
            yield _resource(name, HIDDEN if _SECRET_NAME.search(str(part.tag)) else text, part, known=False)


def _resource(kind: str, value: str, element: Element, suffix: str = "", *, known: bool = True) -> Resource:
    return Resource(kind=kind, value=value, xpath=element.getroottree().getpath(element) + suffix, known=known)
