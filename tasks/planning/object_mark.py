"""UUIDs that tell whose an object is: pools and networks have no metadata that could bear a mark."""

from __future__ import annotations

from uuid import NAMESPACE_URL, uuid5

from tasks.model.domain import Mark
from tasks.model.mark_xml import MARK_URI

NAMESPACE = uuid5(NAMESPACE_URL, MARK_URI)


def mark_uuid(mark: Mark, what: str) -> str:
    """The UUID of an object that this owner of this attempt of this migration makes; ``what`` tells its objects apart.

    The same mark and object always give the same UUID, and no others do.
    """
    return str(uuid5(NAMESPACE, f"{mark.id}/{mark.attempt}/{mark.fence}/{what}"))
