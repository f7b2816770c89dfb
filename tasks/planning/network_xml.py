"""The definition of a network that is made from another host's."""

from __future__ import annotations

from tasks.planning.xml_tree import parse_tree, to_text


def copy_network_xml(xml: str, uuid: str) -> str:
    """The same name, bridge, addresses and way out, under another UUID.

    The bridge's own address is left out: libvirt makes one, so that no two hosts have the same.

    Raises:
        InvalidRequest: code ``XML_INVALID``.
    """
    root = parse_tree(xml)
    for element in root.findall("mac"):
        root.remove(element)
    identity = root.find("uuid")
    if identity is None:
        identity = root.makeelement("uuid")
        root.insert(0, identity)
    identity.text = uuid
    return to_text(root)
