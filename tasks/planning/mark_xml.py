"""vmferry's mark put into a whole definition, and taken out again; its own form stands in ``tasks.model.mark_xml``."""

from __future__ import annotations

from lxml import etree

from tasks.model.domain import Mark
from tasks.model.mark_xml import MARK_PREFIX, MARK_TAG, MARK_URI, mark_element, parse_mark
from tasks.planning.xml_tree import Element, parse_domain_tree, to_text

__all__ = ["MARK_URI", "drop_mark", "mark_element", "parse_mark", "put_mark", "with_mark", "without_mark"]


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
    element = etree.SubElement(metadata, MARK_TAG, nsmap={MARK_PREFIX: MARK_URI})
    for name, value in etree.fromstring(mark_element(mark)).attrib.items():
        element.set(name, value)


def drop_mark(root: Element) -> None:
    """Remove every mark of ours from a ``domain`` element, and metadata that held nothing else."""
    for metadata in root.findall("metadata"):
        marks = metadata.findall(f"{{{MARK_URI}}}*")
        for found in marks:
            metadata.remove(found)
        if marks and len(metadata) == 0:
            root.remove(metadata)
