"""vmferry's mark as an element of libvirt's domain metadata: how it is written and read, in one place."""

from __future__ import annotations

import re

from lxml import etree

from tasks.model.domain import Mark
from tasks.model.request import ID_PATTERN

MARK_URI = "urn:vmferry:mark:1"
"""XML namespace of the mark; libvirt keeps one element per namespace in a domain's metadata."""
MARK_PREFIX = "vmferry"
"""Namespace prefix that libvirt writes the element with."""
MARK_TAG = f"{{{MARK_URI}}}migration"
NUMBER_PATTERN = r"[0-9]{1,15}"


def mark_element(mark: Mark) -> str:
    """The mark as one XML element without a namespace: virDomainSetMetadata adds the namespace itself."""
    element = etree.Element("migration", id=mark.id, attempt=str(mark.attempt), fence=str(mark.fence))
    return etree.tostring(element, encoding="unicode")


def parse_mark(xml: str) -> Mark | None:
    """The mark in a domain's XML, or in the element alone; None when there is none or it is not one of ours.

    Takes whatever stands in a host's metadata, so that anything malformed there is "no mark", never an error.
    """
    try:
        root = etree.fromstring(xml.encode(), _parser())
    except (etree.XMLSyntaxError, ValueError):
        return None
    # An entity in an attribute is replaced whatever the parser is told, so that a DTD of its own is no mark either.
    element = _find(root) if root.getroottree().docinfo.internalDTD is None else None
    if element is None:
        return None
    identifier = element.get("id", "")
    numbers = (element.get("attempt", ""), element.get("fence", ""))
    if not re.fullmatch(ID_PATTERN, identifier) or not all(re.fullmatch(NUMBER_PATTERN, n) for n in numbers):
        return None
    return Mark(identifier, int(numbers[0]), int(numbers[1]))


def _find(root: etree._Element) -> etree._Element | None:
    """The element alone (virDomainGetMetadata leaves the namespace away), else the one in a domain's metadata."""
    if root.tag in (MARK_TAG, "migration"):
        return root
    return root.find(f"metadata/{MARK_TAG}")


def _parser() -> etree.XMLParser:
    """No entities, no DTD, no network: the text comes from a host."""
    return etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False)
