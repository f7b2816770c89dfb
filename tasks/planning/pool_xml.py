"""The definition of a pool that is made from another host's."""

from __future__ import annotations

from tasks.planning.xml_tree import parse_tree, to_text

MEASURED = ("capacity", "allocation", "available")
"""What libvirt measures and shows in the definition as well."""


def copy_pool_xml(xml: str, uuid: str) -> str:
    """The same name, source, format, mount options and target, under another UUID.

    The directory's permissions are left out: with them libvirt would change those of one that exists already.

    Raises:
        InvalidRequest: code ``XML_INVALID``.
    """
    root = parse_tree(xml)
    for name in MEASURED:
        for element in root.findall(name):
            root.remove(element)
    for target in root.findall("target"):
        for permissions in target.findall("permissions"):
            target.remove(permissions)
    identity = root.find("uuid")
    if identity is None:
        identity = root.makeelement("uuid")
        root.insert(0, identity)
    identity.text = uuid
    return to_text(root)
