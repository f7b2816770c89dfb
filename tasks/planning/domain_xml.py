"""Read a domain XML once, into a frozen ``Domain``. Never raises anything but ``InvalidRequest``."""

from __future__ import annotations

import re

from lxml import etree

from tasks.model.domain import Disk, Domain, Graphics, Interface
from tasks.planning.addresses import pci_address
from tasks.planning.resources import resources_of
from tasks.planning.xml_tree import Element, attribute_of, parse_domain_tree, text_of

_UNITS = {
    "b": 1,
    "bytes": 1,
    "kb": 1000,
    "k": 1024,
    "kib": 1024,
    "mb": 1000**2,
    "m": 1024**2,
    "mib": 1024**2,
    "gb": 1000**3,
    "g": 1024**3,
    "gib": 1024**3,
    "tb": 1000**4,
    "t": 1024**4,
    "tib": 1024**4,
    "pb": 1000**5,
    "p": 1024**5,
    "pib": 1024**5,
    "eb": 1000**6,
    "e": 1024**6,
    "eib": 1024**6,
}
"""libvirt's units of memory, in bytes; it compares them without regard to case, and KiB is meant when none is given."""

UNCOPYABLE = ("encryption", "source/encryption", "source/slices", "source/dataStore")
"""Parts of a disk that a copy of what the guest reads would lose."""

FILE_CHARDEVS = ("file", "pipe")
"""Types of character devices that write to a path of the host."""


def parse_domain(xml: str) -> Domain:
    """What a definition says. Missing elements and odd numbers become None, 0 or empty, never an error.

    Raises:
        InvalidRequest: code ``XML_INVALID``: not well formed, hostile, too large, or not a domain.
    """
    root = parse_domain_tree(xml)
    return Domain(
        name=text_of(root, "name") or "",
        uuid=text_of(root, "uuid"),
        virt_type=root.get("type", ""),
        memory_kib=_total_memory_kib(root),
        vcpus=_count(text_of(root, "vcpu"), 1),
        memory_source=attribute_of(root, "memoryBacking/source", "type") or "",
        machine=attribute_of(root, "os/type", "machine"),
        arch=attribute_of(root, "os/type", "arch"),
        emulator=text_of(root, "devices/emulator"),
        cpu_mode=attribute_of(root, "cpu", "mode"),
        cpu_xml=_cpu(root),
        nvram=_nvram(root),
        loader=text_of(root, "os/loader"),
        firmware=attribute_of(root, "os", "firmware"),
        disks=tuple(_disk(d) for d in root.findall("devices/disk")),
        interfaces=tuple(_interface(i) for i in root.findall("devices/interface")),
        graphics=tuple(_graphics(g) for g in root.findall("devices/graphics")),
        clock=attribute_of(root, "clock", "offset") or "",
        unbound_tsc=_unbound_tsc(root),
        tpm=_tpm(root),
        agent=_has_agent(root),
        hostdevs=_hostdevs(root),
        console_paths=_console_paths(root),
        resources=resources_of(root),
    )


def memory_kib(element: Element | None) -> int:
    """A scaled integer in KiB, rounded up as libvirt does; 0 when it cannot be read."""
    return 0 if element is None else scaled_kib(element.text or "", element.get("unit") or "KiB")


def scaled_kib(number: str, unit: str) -> int:
    """A number with its unit in KiB, rounded up; 0 when it cannot be read."""
    digits = re.fullmatch(r"\s*([0-9]{1,20})\s*", number)
    factor = _UNITS.get(unit.strip().lower())
    return 0 if digits is None or factor is None else -(-int(digits[1]) * factor // 1024)


def _total_memory_kib(root: Element) -> int:
    """``memory``; where that is absent, libvirt adds the NUMA cells up."""
    return memory_kib(root.find("memory")) or sum(_cell_kib(c) for c in root.findall("cpu/numa/cell"))


def _cell_kib(cell: Element) -> int:
    digits = re.fullmatch(r"[0-9]{1,20}", cell.get("memory", ""))
    factor = _UNITS.get(cell.get("unit", "KiB").strip().lower())
    return -(-int(digits[0]) * factor // 1024) if digits and factor else 0


def _count(text: str | None, default: int) -> int:
    return int(text) if text and re.fullmatch(r"[0-9]{1,9}", text) else default


def _nvram(root: Element) -> str | None:
    return (
        text_of(root, "os/nvram")
        or attribute_of(root, "os/nvram/source", "file")
        or attribute_of(root, "os/nvram/source", "dev")
        or attribute_of(root, "os/varstore", "path")
    )


def _cpu(root: Element) -> str:
    """What is below it that libvirt compares; NUMA cells and cache are the guest's own affair."""
    cpu = root.find("cpu")
    return "" if cpu is None else etree.tostring(cpu, encoding="unicode", with_tail=False)


def _unbound_tsc(root: Element) -> bool:
    required = [f for f in root.findall("cpu/feature") if f.get("policy") == "require" and f.get("name") == "invtsc"]
    rates = [t.get("frequency") for t in root.findall("clock/timer") if t.get("name") == "tsc"]
    return bool(required) and not any(rates)


def _tpm(root: Element) -> str:
    """libvirt writes the version of every definition that it has taken; its default is 2.0 since 7.0."""
    backend = next((b for b in root.findall("devices/tpm/backend") if b.get("type") == "emulator"), None)
    return "" if backend is None else backend.get("version") or "2.0"


def _has_agent(root: Element) -> bool:
    """libvirt says whether something in the guest has opened the agent's channel."""
    found = [c for c in root.findall("devices/channel/target") if c.get("name") == "org.qemu.guest_agent.0"]
    return any(channel.get("state") == "connected" for channel in found)


def _disk(disk: Element) -> Disk:
    return Disk(
        target=attribute_of(disk, "target", "dev") or "",
        device=disk.get("device", "disk"),
        type=disk.get("type", "file"),
        source=source_of(disk),
        driver_format=attribute_of(disk, "driver", "type"),
        cache=attribute_of(disk, "driver", "cache"),
        readonly=disk.find("readonly") is not None,
        shareable=disk.find("shareable") is not None,
        transient=disk.find("transient") is not None,
        startup_policy=attribute_of(disk, "source", "startupPolicy"),
        uncopyable=next((tag for tag in UNCOPYABLE if disk.find(tag) is not None), "").rpartition("/")[2] or None,
        backing=_backing(disk),
    )


def source_of(holder: Element) -> str | None:
    """What the ``source`` child names: a path, ``pool/volume``, ``protocol:name``, or None when there is nothing."""
    source = holder.find("source")
    if source is None:
        return None
    if source.get("pool"):
        return f"{source.get('pool')}/{source.get('volume', '')}"
    if source.get("protocol"):
        return f"{source.get('protocol')}:{source.get('name', '')}"
    if holder.get("type") == "nvme":
        return f"nvme:{pci_address(source.find('address'))}/{source.get('namespace', '')}"
    return next((source.get(a) for a in ("file", "dev", "dir", "path") if source.get(a)), None)


def _backing(disk: Element) -> tuple[str, ...]:
    names: list[str] = []
    layer = disk.find("backingStore")
    while layer is not None:
        if name := source_of(layer):
            names.append(name)
        layer = layer.find("backingStore")
    return tuple(names)


def _interface(interface: Element) -> Interface:
    source = interface.find("source")
    named = (source.get(a) for a in ("network", "bridge", "dev", "path")) if source is not None else ()
    # A running VM's card on a libvirt network shows as what the network made of it, with the network beside it.
    by_network = source is not None and source.get("network") is not None
    return Interface(
        type="network" if by_network else interface.get("type", ""),
        source=next((n for n in named if n), None),
        mac=attribute_of(interface, "mac", "address"),
        model=attribute_of(interface, "model", "type"),
        port_group=source.get("portgroup") if source is not None else None,
    )


def _graphics(graphics: Element) -> Graphics:
    listens = graphics.findall("listen")
    addresses = [a for element in listens if (a := element.get("address"))]
    sockets = [s for element in listens if (s := element.get("socket"))]
    return Graphics(
        type=graphics.get("type", ""),
        listen=next(iter(addresses), None) or graphics.get("listen") or None,
        socket=next(iter(sockets), None) or graphics.get("socket") or None,
    )


def _hostdevs(root: Element) -> tuple[str, ...]:
    devices = [h.get("type") or h.get("mode") or "unknown" for h in root.findall("devices/hostdev")]
    cards = ["pci" for i in root.findall("devices/interface") if i.get("type") == "hostdev"]
    return tuple(devices + cards)


def _console_paths(root: Element) -> tuple[str, ...]:
    paths: list[str] = []
    for kind in ("serial", "parallel", "console", "channel"):
        for device in root.findall(f"devices/{kind}"):
            path = attribute_of(device, "source", "path") if device.get("type") in FILE_CHARDEVS else None
            log = attribute_of(device, "log", "file")
            paths.extend(p for p in (path, log) if p and p not in paths)
    return tuple(paths)
