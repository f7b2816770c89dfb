"""Which VMs of a host need a pool: it must not go away under them."""

from __future__ import annotations

from posixpath import normpath

from tasks.model.domain import Domain
from tasks.model.host import Pool


def uses_pool(domain: Domain, pool: Pool) -> bool:
    """Whether a definition names anything in the pool: a volume, a file of a disk or below one, any other path."""
    volumes = (d.source or "" for d in domain.disks if d.type == "volume")
    if any(volume.split("/", 1)[0] == pool.name for volume in volumes):
        return True
    if not pool.target:
        return False
    target = normpath(pool.target)
    paths = [d.source or "" for d in domain.disks if d.type != "volume"]
    paths += [path for d in domain.disks for path in d.backing]
    paths += [r.value for r in domain.resources] + [domain.nvram or "", domain.loader or "", *domain.console_paths]
    return any(normpath(path).startswith(f"{target}/") or normpath(path) == target for path in paths if path)
