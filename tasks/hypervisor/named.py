"""What definitions look up on their host by name: network filters and secrets."""

from __future__ import annotations

from typing import Any

import libvirt

from tasks.hypervisor.connection import Connection

UNSUPPORTED = frozenset({libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_OPERATION_UNSUPPORTED})


def read_nwfilters(connection: Connection) -> frozenset[str] | None:
    """Names of the host's network filters; None when it has no driver for them."""
    try:
        return frozenset(found.name() for found in connection.listAllNWFilters(0))
    except libvirt.libvirtError as error:
        if error.get_error_code() in UNSUPPORTED:
            return None
        raise


def read_secrets(connection: Connection) -> dict[str, bool] | None:
    """UUID, and usage where there is one, of each secret -> whether it has a value; None when there is no driver."""
    try:
        found = connection.listAllSecrets(0)
    except libvirt.libvirtError as error:
        if error.get_error_code() in UNSUPPORTED:
            return None
        raise
    secrets: dict[str, bool] = {}
    for secret in found:
        names = (secret.UUIDString(), secret.usageID())
        secrets |= dict.fromkeys(filter(None, names), _has_value(secret))
    return secrets


def _has_value(secret: Any) -> bool:
    """The value itself is never kept; of a private one libvirt only says that nobody may read it."""
    try:
        return bool(secret.value())
    except libvirt.libvirtError as error:
        return bool(error.get_error_code() != libvirt.VIR_ERR_NO_SECRET)
