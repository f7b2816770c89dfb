"""The storage server: a one-brick GlusterFS volume, which libvirt accepts as shared storage without any unsafe flag.

On demand it is an NFS server as well, in user space, for disks that QEMU reaches by itself: the kernel that all nodes
share has no NFS client, and whatever libvirt's pools would mount needs one.
"""

from __future__ import annotations

from tests.lab.host import VOLUME
from tests.lab.node import Node
from tests.lab.shell import recall, remember, until

NFS = "nfs"
"""Stands for a pool: disks of this one are QEMU's own connections to the server."""
NFS_PATH = "/var/lib/libvirt/nfs"
GANESHA = f"""
NFS_CORE_PARAM {{ Protocols = 3; Enable_NLM = false; Enable_RQUOTA = false; }}
EXPORT {{
  Export_Id = 1; Path = {NFS_PATH}; Pseudo = /nfs; Protocols = 3; Transports = TCP; SecType = sys;
  Access_Type = RW; Squash = No_Root_Squash;
  FSAL {{ Name = VFS; }}
}}
"""


class Store(Node):
    """The node that serves the shared volume."""

    def start(self) -> None:
        """Start glusterd, make the volume unless it is there, and start it."""
        if recall(self.root / "glusterd.pid") is None:
            pid = self.start_daemon(["glusterd", "--no-daemon"], self.root / "glusterd.log")
            remember(pid, self.root / "glusterd.pid")
        until(lambda: "Peer" in self._gluster("peer", "status"), 20, "glusterd does not answer")
        brick = "/var/lib/libvirt/brick/data"
        self.run(["mkdir", "-p", brick])
        if VOLUME not in self._gluster("volume", "list").split():
            self._gluster("volume", "create", VOLUME, f"{self.address}:{brick}", "force", check=True)
        if "Status: Started" not in self._gluster("volume", "info", VOLUME):
            self._gluster("volume", "start", VOLUME, check=True)

    def serve_nfs(self) -> None:
        """Start the NFS server (version 3, which QEMU's driver speaks) unless it runs."""
        if recall(self.root / "ganesha.pid") is not None:
            return
        self.run(["mkdir", "-p", NFS_PATH])
        (self.root / "ganesha.conf").write_text(GANESHA)
        if recall(self.root / "rpcbind.pid") is None:
            remember(self.start_daemon(["rpcbind", "-f", "-w"], self.root / "rpcbind.log"), self.root / "rpcbind.pid")
        ganesha = ["ganesha.nfsd", "-F", "-L", "/dev/stderr", "-p", "/run/ganesha.pid"]
        pid = self.start_daemon([*ganesha, "-f", str(self.root / "ganesha.conf")], self.root / "ganesha.log")
        until(lambda: self._registered() >= {"nfs", "mountd"}, 30, f"no NFS server: see {self.root}/ganesha.log")
        remember(pid, self.root / "ganesha.pid")

    def _registered(self) -> set[str]:
        lines = self.run(["rpcinfo", "-p"], check=False).splitlines()
        return {line.split()[-1] for line in lines if line.split()[1:3] == ["3", "tcp"]}

    def _gluster(self, *args: str, check: bool = False) -> str:
        return self.run(["gluster", "--mode=script", *args], check=check)
