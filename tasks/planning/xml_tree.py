"""XML in and out of lxml, with everything switched off that lets a document reach outside itself."""

from __future__ import annotations

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
        raise _invalid(f"the root element is <{etree.QName(root).localname:.60}>, not <domain>")
    return root


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
