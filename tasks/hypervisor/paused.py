"""An instance of a VM that never does anything: started paused so that its disks can be mirrored, and ended again.

The one module beside ``probe`` that ends a domain.
"""

from __future__ import annotations

from typing import Any

import libvirt

from tasks.hypervisor.connection import Connection
from tasks.hypervisor.guest import PASSING, demand, identity, look_up_uuid, never_ran, read_mark, read_stats
from tasks.model.domain import Mark
from tasks.model.errors import OperatorMustFix


def start(connection: Connection, host: str, xml: str) -> None:
    """Start a shut-off domain with a definition of this one instance.

    libvirt keeps the domain's own definition for when it has ended. A domain that is not defined would be transient.
    """
    uuid, _ = identity(xml)
    domain = demand(connection, uuid)
    if not domain.isPersistent():
        raise OperatorMustFix("NO_DOMAIN", f"{host}: {domain.name()} is not defined", "vmferry vms shows where it is")
    connection.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED)


def end(connection: Connection, host: str, uuid: str, mark: Mark) -> None:
    """End an instance that has never done anything.

    CPU time is counted in steps of 10 ms; a guest that has touched no disk either has left nothing behind. QEMU is
    asked to end (SIGTERM), so that it closes its images, and never killed.

    Raises:
        OperatorMustFix: ``NOT_OURS_TO_END``.
    """
    domain = look_up_uuid(connection, uuid)
    if domain is None or not domain.isActive():
        return
    state, reason = domain.state()
    idle = state == libvirt.VIR_DOMAIN_PAUSED and reason not in PASSING and never_ran(domain) and _untouched(domain)
    if not idle or read_mark(domain, persistent=False) != mark:
        message = f"{host}: {domain.name()} is not the paused instance that was started, or it has run since"
        raise OperatorMustFix("NOT_OURS_TO_END", message, f"look at it: virsh domstate --reason {uuid}")
    domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL)


def _untouched(domain: Any) -> bool:
    """Whether the guest has asked nothing of any disk; what a mirror reads and writes is not counted."""
    stats = read_stats(domain, libvirt.VIR_DOMAIN_STATS_BLOCK)
    asked = [value for key, value in stats.items() if key.startswith("block.") and key.endswith(".reqs")]
    return bool(stats) and not any(asked) and (bool(asked) or not stats.get("block.count"))
