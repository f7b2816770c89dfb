"""A host: a node with libvirtd, sshd, two storage pools and a network."""

from __future__ import annotations

import signal
import uuid
from pathlib import Path
from typing import ClassVar

import libvirt

from tests.lab.node import Node
from tests.lab.shell import kill, recall, remember, until
from tests.lab.spec import STORE_ADDRESS

SHARED_PATH = "/var/lib/libvirt/shared"
LOCAL_PATH = "/var/lib/libvirt/images"
VOLUME = "shared"

LIBVIRTD_CONF = """
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
auth_unix_rw = "none"
tcp_port = "16509"
listen_addr = "0.0.0.0"
unix_sock_dir = "/run/libvirt"
host_uuid = "{uuid}"
max_anonymous_clients = 200
"""
QEMU_CONF = """
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"""
SSHD_CONF = """
HostKey /etc/libvirt/ssh/host_key
AuthorizedKeysFile /etc/libvirt/ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
PidFile /run/sshd.pid
MaxStartups 10:30:100
"""
POOLS = {
    "shared": f"""<pool type='netfs'><name>shared</name>
<source><host name='{STORE_ADDRESS}'/><dir path='{VOLUME}'/><format type='glusterfs'/></source>
<target><path>{SHARED_PATH}</path></target></pool>""",
    "local": f"<pool type='dir'><name>local</name><target><path>{LOCAL_PATH}</path></target></pool>",
}
NETWORK = "<network><name>lab</name><forward mode='bridge'/><bridge name='br0'/></network>"


class Host(Node):
    """One libvirt host of the lab."""

    pools: ClassVar[dict[str, str]] = POOLS
    """Their definitions."""

    # -- how it is reached ------------------------------------------------------------------------------------------

    def uri(self, kind: str = "tcp") -> str:
        """How the hub (a worker) reaches it."""
        if kind == "unix":
            return f"qemu+unix:///system?socket={self.unix_socket}"
        if kind == "ssh":
            wrapper = self.spec.folder / "ssh" / "wrapper"
            return f"qemu+ssh://root@{self.address}/system?command={wrapper}"
        return f"qemu+tcp://{self.address}/system"

    def peer_uri(self, kind: str = "tcp") -> str:
        """How the other hosts reach it."""
        return f"qemu+ssh://root@{self.name}/system" if kind == "ssh" else f"qemu+tcp://{self.address}/system"

    @property
    def unix_socket(self) -> Path:
        """Its libvirt socket, seen from outside the namespaces."""
        return Path("/proc", str(self.pid), "root", "run/libvirt/libvirt-sock")

    def connect(self) -> libvirt.virConnect:
        """A connection over the unix socket; needs no network."""
        return libvirt.open(f"qemu+unix:///system?socket={self.unix_socket}")

    def virsh(self, *args: str, check: bool = True, timeout_s: float = 60.0) -> str:
        """Run virsh on the host."""
        return self.run(["virsh", "--quiet", *args], check=check, timeout_s=timeout_s)

    # -- its daemons ------------------------------------------------------------------------------------------------

    @property
    def libvirtd_pid(self) -> int | None:
        """The daemon's pid seen from outside; None when it does not run."""
        return recall(self.root / "libvirtd.pid")

    def configure(self) -> None:
        """Write the daemons' configuration."""
        identity = uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.{self.spec.name}.vmferry-lab")
        for folder in ("var/log/libvirt/qemu", "var/lib/libvirt/dnsmasq"):  # which packages bring along
            (self.root / folder).mkdir(exist_ok=True)
        (self.root / "etc/libvirt/libvirtd.conf").write_text(LIBVIRTD_CONF.format(uuid=identity))
        (self.root / "etc/libvirt/qemu.conf").write_text(QEMU_CONF)
        (self.root / "etc/libvirt/libvirt.conf").write_text("")
        (self.root / "etc/libvirt/ssh/sshd_config").write_text(SSHD_CONF)

    def start_libvirtd(self) -> None:
        """Start the daemon and wait until it answers."""
        if self.libvirtd_pid is None:
            pid = self.start_daemon(["libvirtd", "--listen"], self.root / "libvirtd.log")
            remember(pid, self.root / "libvirtd.pid")
        until(
            lambda: self.run(["virsh", "--quiet", "uri"], check=False).strip(),
            20,
            f"libvirtd of {self.name} does not answer",
        )

    def stop_libvirtd(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the daemon; its guests go on running."""
        kill(self.root / "libvirtd.pid", number)

    def restart_libvirtd(self) -> None:
        """End the daemon hard and start it again."""
        self.stop_libvirtd()
        self.start_libvirtd()

    def start_sshd(self) -> None:
        """Start the SSH server."""
        if recall(self.root / "sshd.pid") is None:
            pid = self.start_daemon(
                ["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/libvirt/ssh/sshd_config"], self.root / "sshd.log"
            )
            remember(pid, self.root / "sshd.pid")

    # -- what it offers -----------------------------------------------------------------------------------------------

    def define_resources(self) -> None:
        """Pools and network; libvirt itself mounts the shared one."""
        conn = self.connect()
        try:
            for name, xml in self.pools.items():
                known = [pool.name() for pool in conn.listAllStoragePools()]
                pool = conn.storagePoolLookupByName(name) if name in known else conn.storagePoolDefineXML(xml)
                if not pool.isActive():
                    pool.create(libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
                pool.setAutostart(1)
            if "lab" not in [net.name() for net in conn.listAllNetworks()]:
                network = conn.networkDefineXML(NETWORK)
                network.create()
                network.setAutostart(1)
        finally:
            conn.close()
