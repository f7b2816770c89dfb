"""Everything that a host has, as text, so that before and after can be compared without the product's code.

Not the contents of files: what they hold is for the tests of the guests' disks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing

import libvirt

from tests.lab.nested.machine import NestedHost

MEASURED = re.compile(r"\s*<(capacity|allocation|available) [^>]*>[0-9]*</\1>")
SCRIPT = r"""
echo "logical volumes"
lvs --noheadings --options lv_name,lv_size,lv_active
echo "mounts"
findmnt --noheadings --raw --types nfs4,ext4 --output TARGET,SOURCE
echo "files"
find /etc/libvirt /var/lib/libvirt -xdev ! -type s -printf '%M %u %g %p %l\n' | sort -k 4
echo "files on shared storage"
find /var/lib/libvirt/shared -printf '%y %p\n' | sort
echo "programs"
ps -e -o comm= | grep -E 'qemu-system|dnsmasq|swtpm' | sort || true
"""


def host_state(host: NestedHost) -> str:
    """All that a migration could leave behind."""
    with closing(host.connect()) as conn:
        return "\n".join([*_known(conn), host.shell(SCRIPT)])


def _known(conn: libvirt.virConnect) -> Iterator[str]:
    """What libvirt says that it has."""
    for domain in sorted(conn.listAllDomains(), key=libvirt.virDomain.name):
        xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        yield f"{domain.name()} {domain.state()} {domain.isPersistent() and domain.autostart()}\n{xml}"
    for pool in sorted(conn.listAllStoragePools(), key=libvirt.virStoragePool.name):
        xml = MEASURED.sub("", pool.XMLDesc(libvirt.VIR_STORAGE_XML_INACTIVE if pool.isPersistent() else 0))
        yield f"{pool.name()} {pool.isActive()} {pool.isPersistent() and pool.autostart()}\n{xml}"
    for network in sorted(conn.listAllNetworks(), key=libvirt.virNetwork.name):
        yield f"{network.name()} {network.isActive()}\n{network.XMLDesc()}"
    for secret in conn.listAllSecrets():
        yield secret.XMLDesc()
