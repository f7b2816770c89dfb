"""vmferry's mark in a domain's metadata: written before an effect, read to know what is ours, removed at the end."""

from __future__ import annotations

import re

from lxml import etree

from tasks.model.domain import Mark
from tasks.model.errors import InvalidRequest
from tasks.model.request import ID_PATTERN
from tasks.planning.xml_tree import Element, parse_domain_tree, parse_tree, to_text

MARK_URI = "urn:vmferry:mark:1"
"""Namespace of the mark; the ``uri`` argument of virDomainSetMetadata."""
MARK_KEY = "vmferry"
"""Prefix of the namespace; the ``key`` argument of virDomainSetMetadata."""
MARK_TAG = "migration"
_QUALIFIED = f"{{{MARK_URI}}}{MARK_TAG}"
_IN_NAMESPACE = f"{{{MARK_URI}}}*"


def mark_element(mark: Mark) -> str:
    """The element for virDomainSetMetadata, without a namespace: libvirt puts it in, and fails when it is there."""
    return to_text(_fill(etree.Element(MARK_TAG), mark))


def parse_mark(xml: str) -> Mark | None:
    """The mark in a domain XML or in what virDomainGetMetadata returned; None when there is none or it is malformed."""
    try:
        root = parse_tree(xml)
    except InvalidRequest:
        return None
    if root.tag in (MARK_TAG, _QUALIFIED):
        return _read(root)
    found = root.find(f"metadata/{_QUALIFIED}") if root.tag == "domain" else root.find(_QUALIFIED)
    return _read(found) if found is not None else None


def with_mark(xml: str, mark: Mark) -> str:
    """The domain XML bearing this mark, and no other mark of ours.

    Raises:
        InvalidRequest: code ``XML_INVALID``.
    """
    root = parse_domain_tree(xml)
    put_mark(root, mark)
    return to_text(root)


def without_mark(xml: str) -> str:
    """The domain XML without any mark of ours.

    Raises:
        InvalidRequest: code ``XML_INVALID``.
    """
    root = parse_domain_tree(xml)
    drop_mark(root)
    return to_text(root)


def put_mark(root: Element, mark: Mark) -> None:
    """Put the mark into a ``domain`` element, in the place of an older one."""
    drop_mark(root)
    metadata = root.find("metadata")
    if metadata is None:
        metadata = etree.SubElement(root, "metadata")
    _fill(etree.SubElement(metadata, _QUALIFIED, nsmap={MARK_KEY: MARK_URI}), mark)


def drop_mark(root: Element) -> None:
    """Remove every mark of ours from a ``domain`` element, and metadata that held nothing else."""
    for metadata in root.findall("metadata"):
        marks = metadata.findall(_IN_NAMESPACE)
        for found in marks:
            metadata.remove(found)
        if marks and len(metadata) == 0:
            root.remove(metadata)


def _fill(element: Element, mark: Mark) -> Element:
    element.set("id", mark.id)
    element.set("attempt", str(mark.attempt))
    element.set("fence", str(mark.fence))
    return element


def _read(element: Element) -> Mark | None:
    run_id = element.get("id", "")
    numbers = [element.get("attempt", ""), element.get("fence", "")]
    if not re.fullmatch(ID_PATTERN, run_id) or not all(re.fullmatch(r"[0-9]{1,15}", n) for n in numbers):
        return None
    return Mark(id=run_id, attempt=int(numbers[0]), fence=int(numbers[1]))
