"""Every resource of the host that a domain XML names; what is not recognised is reported as such, never dropped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from tasks.model.domain import Resource
from tasks.planning.addresses import format_address
from tasks.planning.resource_table import (
    CHARDEV_HOLDERS,
    CHARDEVS,
    GUEST_SIDE,
    HOST_ATTRIBUTES,
    KINDS,
    LAYERS,
    PORTED,
    PORTS_ALONE,
    SKIPPED,
)
from tasks.planning.resource_vocabulary import is_known_element
from tasks.planning.xml_tree import Element, attributes_of, parse_domain_tree, places_of

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
    places = places_of(root)
    return tuple(
        Resource(kind=found.kind, value=found.value, xpath=places[found.element] + found.suffix, known=found.known)
        for child in root
        for found in _visit(child, "")
    )


class _Found(NamedTuple):
    kind: str
    value: str
    element: Element
    suffix: str
    """Leads from the element to the attribute."""
    known: bool


def _visit(element: Element, parent: str) -> Iterator[_Found]:
    """Resources of an element and of what is below it; ``parent`` is the folded path of its parent."""
    name = str(element.tag)
    path = _fold(parent, name)
    if path in SKIPPED:
        return
    if name.startswith("{") or not is_known_element(path, name):
        yield from _unknown(element)
        return
    if path in _HOST_ADDRESSES or (path == "devices/disk/source/address"):
        yield _found(*format_address(element), element)
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
    if parent == "os/nvram" and name == "source":
        return "devices/disk/source"
    return f"{parent}/{name}" if parent else name


def _special(element: Element, path: str) -> Iterator[_Found]:
    """What takes more than one attribute to name."""
    if path == "devices/hostdev/source" and element.find("vendor") is not None:
        ids = [_id_of(element, name) for name in ("vendor", "product")]
        yield _found("usb", ":".join(ids), element)
    if path == "memoryBacking/hugepages" and len(element) == 0:
        yield _found("hugepages", "default", element)
    for name, beside in PORTS_ALONE.get(path, {}).items():
        if element.get(name) and not element.get(beside):
            yield _found("address", f":{element.get(name)}", element, f"/@{name}")
    if path == "devices/vsock/cid" and element.get("auto") != "yes" and element.get("address"):
        yield _found("vsock-cid", element.get("address", ""), element, "/@address")
    if path == "devices/graphics":
        yield from _graphics_ports(element)


def _graphics_ports(element: Element) -> Iterator[_Found]:
    """Ports that the definition fixes; libvirt chooses the others, and shows what it chose while the VM runs."""
    chosen = element.get("autoport") == "yes"
    for name in ("port", "tlsPort", "websocket"):
        value = element.get(name, "")
        if value.isascii() and value.isdigit() and value.strip("0") and not (chosen and name != "websocket"):
            yield _found("port", value, element, f"/@{name}")


def _id_of(element: Element, name: str) -> str:
    found = element.find(name)
    return found.get("id", "") if found is not None else ""


def _attributes(element: Element, path: str) -> Iterator[_Found]:
    for name, value in attributes_of(element):
        key = f"{path}@{name}"
        if not value or _SECRET_NAME.search(name):
            continue
        if kind := KINDS.get(key):
            yield _found(_kind(kind, element), _full_value(key, value, element), element, f"/@{name}")
        elif key not in GUEST_SIDE and _looks_like_host(path, name, value):
            yield _found(name, value, element, _step_to(name), known=False)


def _text(element: Element, path: str) -> Iterator[_Found]:
    text = (element.text or "").strip()
    if not text or _SECRET_NAME.search(path):
        return
    if kind := KINDS.get(path):
        unit = f" {element.get('unit', 'KiB')}" if kind == "hugepages" else ""
        yield _found(kind, f"{text}{unit}", element)
    elif _PATH_LIKE.search(text):
        yield _found("text", text, element, known=False)


def _looks_like_host(path: str, name: str, value: str) -> bool:
    in_source = path.startswith("devices/") and path.endswith("/source")
    return in_source or name in HOST_ATTRIBUTES or name.startswith("{") or bool(_PATH_LIKE.search(value))


def _kind(kind: str, element: Element) -> str:
    """Kinds that depend on the device's type."""
    holder = element.getparent()
    if holder is not None and holder.tag == "nvram" and kind in ("file", "block"):
        return "nvram"
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
    if key in PORTED and element.get("port"):
        return f"{value}:{element.get('port')}"
    if key.endswith("/source@host") and element.get("service"):
        return f"{value}:{element.get('service')}"
    if key == "memoryBacking/hugepages/page@size":
        return f"{value} {element.get('unit', 'KiB')}"
    return value


def _unknown(element: Element) -> Iterator[_Found]:
    """Everything said in a part of the document that we cannot judge."""
    name = str(element.tag).rpartition("}")[2]
    yield _found("element", name, element, known=False)
    for part in element.iter():
        for attribute, value in attributes_of(part):
            shown = HIDDEN if _SECRET_NAME.search(attribute) else value
            yield _found(name, shown, part, _step_to(attribute), known=False)
        if text := (part.text or "").strip():
            yield _found(name, HIDDEN if _SECRET_NAME.search(str(part.tag)) else text, part, known=False)


def _step_to(attribute: str) -> str:
    return f"/@*[local-name()='{attribute.rpartition('}')[2]}']" if attribute.startswith("{") else f"/@{attribute}"


def _found(kind: str, value: str, element: Element, suffix: str = "", *, known: bool = True) -> _Found:
    return _Found(kind, value, element, suffix, known)
