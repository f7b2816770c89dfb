"""Names of volumes that a migration makes: the source's file name, bearing the migration's mark.

The mark makes the name one that nothing existing can have, and tells everybody who finds the volume where it came from.
"""

from __future__ import annotations

import re
from posixpath import basename

from tasks.model.domain import Mark

MAX_BYTES = 255
"""Longest file name on Linux file systems (NAME_MAX)."""
MARKED = re.compile(
    r"^(?P<stem>.*)\.vmferry-(?P<id>[A-Za-z0-9_-]{1,64})-(?P<attempt>[0-9]{1,15})-(?P<fence>[0-9]{1,15})"
    r"-(?P<target>[A-Za-z0-9_]{1,32})(?P<suffix>\.[A-Za-z0-9]{1,8})?$"
)
PLAIN = re.compile(r"^(?P<stem>.+?)(?P<suffix>\.[A-Za-z0-9]{1,8})?$")


def mark_volume_name(source: str, target: str, mark: Mark, longest: int = MAX_BYTES) -> str:
    """The name of the volume made for a disk; ``source`` is a path or ``pool/volume``, ``longest`` in bytes.

    A mark that the source bears from an earlier move is replaced, so that names do not grow.
    """
    plain = MARKED.match(basename(source)) or PLAIN.match(basename(source) or target)
    stem, suffix = (plain["stem"] or target, plain["suffix"] or "") if plain else (target, "")
    tail = f".vmferry-{mark.id}-{mark.attempt}-{mark.fence}-{target}{suffix}"
    room = longest - len(tail.encode())
    return stem.encode()[:room].decode(errors="ignore") + tail


def parse_volume_mark(name: str) -> Mark | None:
    """The mark in a volume's name; None when it bears none."""
    found = MARKED.match(name)
    return None if found is None else Mark(found["id"], int(found["attempt"]), int(found["fence"]))
