"""A snapshot's description as the destination shall have it: the definitions inside it change as the VM's own does."""

from __future__ import annotations

from collections.abc import Callable

from tasks.planning.xml_tree import parse_tree, to_text

DEFINITIONS = ("domain", "inactiveDomain")
"""What a snapshot keeps of the VM as it was then."""


def rewrite_snapshot(xml: str, rewrite: Callable[[str], str]) -> str:
    """The description with every definition in it replaced by what ``rewrite`` makes of it.

    Raises:
        InvalidRequest: code ``XML_INVALID``.
    """
    root = parse_tree(xml)
    for name in DEFINITIONS:
        for old in root.findall(name):
            tag = old.tag
            old.tag = "domain"
            new = parse_tree(rewrite(to_text(old)))
            new.tag = tag
            root.replace(old, new)
    return to_text(root)
