"""Addresses of host devices, written the way the host's own tools write them."""

from __future__ import annotations

from tasks.planning.xml_tree import Element, attributes_of


def format_address(address: Element) -> tuple[str, str]:
    """Kind (mdev, pci, usb, scsi, ccw, device) and value of a host device's ``address`` element."""
    has = address.attrib
    if "uuid" in has:
        return "mdev", address.get("uuid", "")
    if "slot" in has or "function" in has or has.get("type") == "pci":
        return "pci", pci_address(address)
    if "device" in has:
        return "usb", f"{address.get('bus', '')}.{address.get('device', '')}"
    if "unit" in has or "target" in has:
        return "scsi", ":".join(address.get(part, "0") for part in ("bus", "target", "unit"))
    if "devno" in has:
        return "ccw", ".".join(address.get(part, "0") for part in ("cssid", "ssid", "devno"))
    return "device", " ".join(f"{name}={value}" for name, value in attributes_of(address))


def pci_address(address: Element | None) -> str:
    """``domain:bus:slot.function`` as lspci writes it; what is odd is kept as it stands."""
    if address is None:
        return ""
    parts = [_hex(address.get(name, "0"), width) for name, width in (("domain", 4), ("bus", 2), ("slot", 2))]
    return f"{':'.join(parts)}.{_hex(address.get('function', '0'), 1)}"


def _hex(text: str, width: int) -> str:
    try:
        return f"{int(text, 0):0{width}x}"
    except ValueError:
        return text
