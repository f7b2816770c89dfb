"""The definition as the destination shall have it: small named changes, applied in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tasks.model.disks import DiskCopy, FileCopy
from tasks.model.domain import Mark
from tasks.model.remedies import NO_REMEDIES, Remedied
from tasks.planning.definition_diff import same_definition
from tasks.planning.domain_xml import source_of
from tasks.planning.mark_xml import drop_mark, put_mark
from tasks.planning.medium import medium_key
from tasks.planning.xml_tree import Element, parse_domain_tree, to_text

__all__ = ["CHANGES", "Change", "Crossing", "build_destination_xml", "same_definition"]


PLACES = ("file", "dev", "pool", "volume", "mode")
"""Attributes of a disk's source that say where it is."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """What a change may know."""

    mark: Mark | None
    """None: the definition bears no mark of ours."""
    source: str
    """What the source calls itself (virConnectGetHostname)."""
    destination: str
    """The same of the destination."""
    copies: tuple[DiskCopy, ...] = ()
    """Disks that are somewhere else on the destination."""
    nvram: str = ""
    """Where the UEFI variables are there; empty: where they were."""
    media: tuple[FileCopy, ...] = ()
    """Images in drives that are somewhere else there."""
    remedied: Remedied = NO_REMEDIES
    """What the caller asked to be changed."""


def set_mark(root: Element, crossing: Crossing) -> None:
    """The destination's definition bears this migration's mark; never the one that the source happens to bear."""
    if crossing.mark is None:
        drop_mark(root)
    else:
        put_mark(root, crossing.mark)


def move_graphics_listen(root: Element, crossing: Crossing) -> None:
    """A display that listens at the source's own host name listens at the destination's.

    Other addresses are left alone: nothing says what they mean on the other host, and preflight warns about them.
    """
    old, new = crossing.source, crossing.destination
    if not old or not new:
        return
    for graphics in root.findall("devices/graphics"):
        for element, name in [(graphics, "listen"), *((listen, "address") for listen in graphics.findall("listen"))]:
            if element.get(name) == old:
                element.set(name, new)


def place_copied_disks(root: Element, crossing: Crossing) -> None:
    """A disk that is copied is its new volume, which has no backing files."""
    copies = {(copy.target, copy.source): copy for copy in crossing.copies}
    for disk in root.findall("devices/disk"):
        target, source = disk.find("target"), disk.find("source")
        copy = copies.get((target.get("dev", "") if target is not None else "", source_of(disk) or ""))
        if copy is None or source is None:
            continue
        for name in PLACES:
            if name in source.attrib:
                del source.attrib[name]
        disk.set("type", copy.kind)
        if copy.kind == "volume":
            source.set("pool", copy.pool)
            source.set("volume", copy.volume)
        else:
            source.set("dev" if copy.kind == "block" else "file", copy.path)
        for chain in disk.findall("backingStore"):
            disk.remove(chain)


def place_nvram(root: Element, crossing: Crossing) -> None:
    """UEFI variables that are copied are in a new file, under a name that nothing existing can have."""
    nvram = root.find("os/nvram")
    if nvram is None or not crossing.nvram:
        return
    source = nvram.find("source")
    if source is not None:
        source.set("file", crossing.nvram)
    else:
        nvram.text = crossing.nvram


def place_media(root: Element, crossing: Crossing) -> None:
    """A drive whose image is copied names the copy."""
    files = {(file.key, file.source_path): file.path for file in crossing.media}
    for disk in root.findall("devices/disk"):
        target, source = disk.find("target"), disk.find("source")
        if target is None or source is None or disk.get("type", "file") != "file":
            continue
        path = files.get((medium_key(target.get("dev", "")), source.get("file", "")))
        if path is not None:
            source.set("file", path)


def rewrite_listens(root: Element, crossing: Crossing) -> None:
    """Displays listen at the addresses that the caller chose in place of those of the source."""
    addresses = {change.old: change.new for change in crossing.remedied.listens}
    for graphics in root.findall("devices/graphics"):
        for element, name in [(graphics, "listen"), *((listen, "address") for listen in graphics.findall("listen"))]:
            if (new := addresses.get(element.get(name) or "")) is not None:
                element.set(name, new)


def resolve_machine(root: Element, crossing: Crossing) -> None:
    """A name that stands for another machine type on each host is the type that it stood for on the source."""
    machines = {change.old: change.new for change in crossing.remedied.machines}
    kind = root.find("os/type")
    if kind is not None and (new := machines.get(kind.get("machine") or "")) is not None:
        kind.set("machine", new)


Change = Callable[[Element, Crossing], None]

CHANGES: tuple[Change, ...] = (
    set_mark,
    move_graphics_listen,
    place_copied_disks,
    place_nvram,
    place_media,
    rewrite_listens,
    resolve_machine,
)
"""Everything that differs on the destination, in the order in which it is applied."""


def build_destination_xml(
    xml: str,
    *,
    mark: Mark | None,
    source: str,
    destination: str,
    copies: tuple[DiskCopy, ...] = (),
    nvram: str = "",
    media: tuple[FileCopy, ...] = (),
    remedied: Remedied = NO_REMEDIES,
) -> str:
    """The source's definition with every change made; the rest keeps its meaning.

    Raises:
        InvalidRequest: code ``XML_INVALID``.
    """
    root = parse_domain_tree(xml)
    crossing = Crossing(mark, source, destination, copies, nvram, media, remedied)
    for change in CHANGES:
        change(root, crossing)
    return to_text(root)
