"""The storage server: a one-brick GlusterFS volume, which libvirt accepts as shared storage without any unsafe flag."""

from __future__ import annotations

from tests.lab.host import VOLUME
from tests.lab.node import Node
from tests.lab.shell import recall, remember, until


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

    def _gluster(self, *args: str, check: bool = False) -> str:
        return self.run(["gluster", "--mode=script", *args], check=check)
