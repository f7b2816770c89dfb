"""Two libvirt hosts and an NFS server, each a whole PC with Debian's stock kernel: for what namespaces cannot have.

That is the kernel's own NFS client and server, LVM, and guests that KVM runs: the PCs are emulated, and their processor
has AMD's virtualization, which QEMU emulates as well. See docs/nested-lab.md.
"""

from tests.lab.nested.guest import NestedGuest
from tests.lab.nested.lab import NestedLab

__all__ = ["NestedGuest", "NestedLab"]
