"""Having libvirt read a storage pool again.

libvirt stops a pool that it cannot read (storagePoolRefreshFailCleanup): it tries to unmount what is mounted there,
and forgets a pool that is not defined. A file that another host removes meanwhile is enough: "cannot read header: Stale
file handle" ended one of six readings of a GlusterFS pool in which volumes came and went all the time (libvirt 9.0). So
a pool that was active, and that our reading has stopped, is started again.
"""

from __future__ import annotations

import time
from typing import Any

import libvirt

from tasks.hypervisor.connection import Connection, is_alive
from tasks.hypervisor.errors import message_of
from tasks.model.errors import OperatorMustFix, RetryLater
from tasks.model.pools import PASSING_PREFIXES

PAUSES_S = (0.0, 0.05, 0.1, 0.2, 0.4)
"""Between attempts, in seconds: at once, for others see the pool stopped meanwhile, and whatever it was has to end."""
ENDED = {libvirt.VIR_ERR_NO_STORAGE_POOL, libvirt.VIR_ERR_OPERATION_INVALID}
"""What libvirt says of a pool that somebody else has stopped, or is just starting: it was not read."""


def fresh_pool(connection: Connection, host: str, name: str) -> Any:
    """The pool, which libvirt has read again just now.

    Raises:
        OperatorMustFix: ``POOL_INACTIVE``.
        RetryLater: ``POOL_REFRESH_FAILED``.
    """
    pool = connection.storagePoolLookupByName(name)
    if not _is_active(pool):
        raise OperatorMustFix("POOL_INACTIVE", f"{host}: pool {name} is not active", f"virsh pool-start {name}")
    return read_again(connection, host, pool)


def read_again(connection: Connection, host: str, pool: Any) -> Any:
    """Read a pool that is active; what that stops is started again. Returns the pool.

    Raises:
        RetryLater: ``POOL_REFRESH_FAILED``.
        libvirt.libvirtError: ``VIR_ERR_NO_STORAGE_POOL``: somebody has ended it, and it was not defined.
    """
    name, ours = pool.name(), False
    # What vmferry makes for a while is made again by whoever needs it.
    xml = "" if pool.isPersistent() or name.startswith(PASSING_PREFIXES) else pool.XMLDesc()
    for pause_s in (*PAUSES_S, None):
        try:
            return _start(connection, name, xml) if ours else _read(pool)
        except libvirt.libvirtError as error:
            if not is_alive(connection):
                raise
            # Others that have stopped it may have meant to.
            ours = ours or error.get_error_code() not in ENDED
            if pause_s is None:
                if not ours and error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_POOL:
                    raise
                message = f"{host}: pool {name} cannot be read: {message_of(error)}"
                hint = f"virsh pool-info {name}; when it is not running: virsh pool-start {name}"
                raise RetryLater("POOL_REFRESH_FAILED", message, hint) from None
        time.sleep(pause_s)
    raise AssertionError


def _is_active(pool: Any) -> bool:
    for pause_s in PAUSES_S:
        if pool.isActive():
            return True
        time.sleep(pause_s)
    return bool(pool.isActive())


def _read(pool: Any) -> Any:
    pool.refresh(0)
    return pool


def _start(connection: Connection, name: str, xml: str) -> Any:
    """Starting a pool reads it. One that others have started meanwhile, or that was never stopped, is only read."""
    try:
        pool = connection.storagePoolLookupByName(name)
    except libvirt.libvirtError as error:
        if not xml or error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_POOL:
            raise
        return connection.storagePoolCreateXML(xml, 0)
    if pool.isActive():
        return _read(pool)
    pool.create(0)
    return pool
