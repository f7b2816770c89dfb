"""XML in and out of lxml, with everything switched off that lets a document reach outside itself."""

from __future__ import annotations

import codecs
import re
from collections import Counter

from lxml import etree

from tasks.model.errors import InvalidRequest

MAX_XML_CHARS = 4 * 1024 * 1024
"""Definitions are some kilobytes; libvirt itself refuses messages over 32 MiB."""

Element = etree._Element


def parse_tree(xml: str) -> Element:
    """The root element of a document; comments and processing instructions are left out.

    A document type declaration is refused whether or not it declares anything: domain XML has none, and entities are
    how a document grows out of bounds or reads files.

    Raises:
        InvalidRequest: code ``XML_INVALID``: not well formed, too large, or hostile.
    """
    if len(xml) > MAX_XML_CHARS:
        raise _invalid(f"the document has {len(xml)} characters, more than {MAX_XML_CHARS}")
    parser = etree.XMLParser(
        encoding="utf-8",  # a str is decoded already; whatever the declaration says is past
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(xml.lstrip("\ufeff \t\r\n").encode(), parser)
    except (etree.XMLSyntaxError, ValueError) as error:  # ValueError: lone surrogates
        raise _invalid(f"not well-formed XML: {error}") from None
    if root is None or root.getroottree().docinfo.internalDTD is not None:
        raise _invalid("it has a document type declaration")
    return root


def parse_domain_tree(xml: str) -> Element:
    """The ``domain`` element.

    Raises:
        InvalidRequest: code ``XML_INVALID``: as ``parse_tree``, or another kind of document.
    """
    root = parse_tree(xml)
    if root.tag != "domain":
        raise _invalid(f"the root element is <{root.tag!s:.60}>, not <domain>")
    return root


def places_of(root: Element) -> dict[Element, str]:
    """The XPath of every element, by one walk: lxml's ``getpath`` counts the siblings anew for each."""
    places = {root: f"/{_step(root)}"}
    for parent in root.iter():
        children = [(child, _step(child)) for child in parent]
        if not children:
            continue
        many, seen = Counter(step for _, step in children), Counter[str]()
        for position, (child, step) in enumerate(children, 1):
            seen[step] += 1
            index = position if step == "*" else seen[step]
            places[child] = f"{places[parent]}/{step}" + (f"[{index}]" if step == "*" or many[step] > 1 else "")
    return places


def _step(element: Element) -> str:
    """An element's name as XPath writes it; one of a namespace without a prefix has none."""
    name = etree.QName(element)
    if name.namespace is None:
        return name.localname
    return f"{element.prefix}:{name.localname}" if element.prefix else "*"


def decode_xml(data: bytes) -> str:
    """A document's text, in the encoding that it declares or that its first bytes show; UTF-8 where it says nothing.

    Raises:
        ValueError: the bytes are not what they are said to be, or there is no such encoding.
    """
    declared = re.match(rb"""\s*<\?xml[^>]*?encoding=["']([A-Za-z0-9._-]{1,40})["']""", data[:300])
    encoding = declared[1].decode() if declared else "utf-8"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    try:
        return data.decode(encoding)
    except LookupError:
        raise ValueError(f"there is no encoding {encoding}") from None


def to_text(root: Element) -> str:
    """The document as a str, without declaration."""
    return etree.tostring(root, encoding="unicode", with_tail=False)


def attributes_of(element: Element) -> list[tuple[str, str]]:
    """Names (``{namespace}name`` where there is one) and values, in document order."""
    return [(str(name), str(value)) for name, value in element.attrib.items()]


def attribute_of(root: Element, path: str, name: str) -> str | None:
    """An attribute of the first element at ``path`` (``.`` is the root), None when absent or empty."""
    found = root if path == "." else root.find(path)
    return (found.get(name) or None) if found is not None else None


def text_of(root: Element, path: str) -> str | None:
    """The trimmed text of the first element at ``path``, None when absent or empty."""
    found = root.find(path)
    return ((found.text or "").strip() or None) if found is not None else None


def _invalid(why: str) -> InvalidRequest:
    return InvalidRequest("XML_INVALID", f"cannot read the XML: {why}"[:500], "give a domain XML as virsh dumpxml does")
