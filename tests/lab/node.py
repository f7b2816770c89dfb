"""A node of the lab: network, mount, UTS and PID namespaces with a small reaper as first process."""

from __future__ import annotations

import hashlib
import subprocess
import textwrap
from collections.abc import Sequence
from pathlib import Path

from tests.lab.shell import LabError, background, kill, recall, run, until
from tests.lab.spec import HUB_ADDRESS, STORE_ADDRESS, Spec

OWN_FOLDERS = (
    "etc/libvirt",
    "var/lib/libvirt",
    "var/cache/libvirt",
    "var/log/libvirt",
    "var/lib/glusterd",
    "var/lib/libvirt/brick",
    "var/log/glusterfs",
    "var/log/swtpm",
    "root/.ssh",
)

INIT = """
set -eu
# Still the machine's /proc: whoever comes after an `up` that was killed finds this process by its record.
read -ra stat </proc/self/stat
echo "${{stat[0]}} ${{stat[21]}}" >{root}/pid
mount --make-rprivate /
mount -t proc proc /proc
for folder in {folders}; do mkdir -p "/$folder"; mount --bind "{root}/$folder" "/$folder"; done
mount -t tmpfs tmpfs /run
mkdir -p /run/libvirt /run/sshd /run/gluster /run/lock
mount --bind {root}/hosts /etc/hosts
mount --bind {root}/nsswitch /etc/nsswitch.conf
mount --bind {root}/machine-id /etc/machine-id
hostname {name}
echo up > {root}/up
# Process 1 must reap what libvirtd leaves behind, else every stop of a QEMU takes 40 s.
while :; do wait -n || true; sleep 0.2; done
"""


class Node:
    """One machine of the lab, or its storage server."""

    def __init__(self, spec: Spec, name: str, address: str) -> None:
        self.spec, self.name, self.address = spec, name, address
        self.root = spec.folder / name

    @property
    def pid(self) -> int:
        """First process of its PID namespace, seen from outside."""
        pid = recall(self.root / "pid")
        if pid is None:
            raise LabError(f"{self.name} of lab {self.spec.name} is not up")
        return pid

    @property
    def is_up(self) -> bool:
        """Whether its first process lives."""
        return recall(self.root / "pid") is not None

    def prefix(self) -> list[str]:
        """What runs a command inside."""
        return ["nsenter", "--target", str(self.pid), "--mount", "--uts", "--net", "--pid", "--"]

    def run(self, command: Sequence[str], *, check: bool = True, timeout_s: float = 60.0) -> str:
        """Run a command inside; returns what it printed."""
        return run(*self.prefix(), *command, check=check, timeout_s=timeout_s)

    def start_daemon(self, command: Sequence[str], log: Path) -> int:
        """Start a program inside that outlives this one; returns its pid as seen from outside."""
        # nsenter stays in the foreground as parent of the program, whose pid outside is that of nsenter's child.
        parent = background([*self.prefix(), *command], log)
        children = Path(f"/proc/{parent}/task/{parent}/children")
        until(
            lambda: children.exists() and children.read_text().split(), 5, f"{command[0]} does not start in {self.name}"
        )
        return int(children.read_text().split()[0])

    def up(self, bridge: bool) -> None:
        """Make the namespaces and their first process."""
        self._write_files()
        self._cable(bridge)
        script = textwrap.dedent(INIT).format(folders=" ".join(OWN_FOLDERS), root=self.root, name=self.name)
        inside = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "bash", "-c", script]
        background(["ip", "netns", "exec", self.spec.netns(self.name), *inside], self.root / "init.log")
        until(lambda: (self.root / "up").exists(), 10, f"{self.name}: see {self.root / 'init.log'}")

    def down(self) -> None:
        """End everything inside and remove the namespaces."""
        kill(self.root / "pid")
        subprocess.run(["ip", "netns", "delete", self.spec.netns(self.name)], capture_output=True, check=False)
        (self.root / "up").unlink(missing_ok=True)

    def _write_files(self) -> None:
        for folder in OWN_FOLDERS:
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "etc/libvirt/ssh").mkdir(exist_ok=True)
        (self.root / "up").unlink(missing_ok=True)
        lines = ["127.0.0.1 localhost", f"{HUB_ADDRESS} hub", f"{STORE_ADDRESS} {self.spec.store}"]
        lines += [f"{self.spec.address(host)} {host}" for host in self.spec.hosts]
        (self.root / "hosts").write_text("\n".join(lines) + "\n")
        (self.root / "nsswitch").write_text("hosts: files\npasswd: files\ngroup: files\n")
        digest = hashlib.sha256(f"{self.spec.name}/{self.name}".encode()).hexdigest()
        (self.root / "machine-id").write_text(digest[:32] + "\n")

    def _cable(self, bridge: bool) -> None:
        """A veth to the hub; on hosts it is a port of br0, so that guests' network cards reach the hub as well."""
        hub, own, outer = self.spec.netns("hub"), self.spec.netns(self.name), self.spec.veth(self.name)
        run("ip", "netns", "add", own)
        run("ip", "-n", own, "link", "set", "lo", "up")
        run("ip", "link", "add", outer, "netns", hub, "type", "veth", "peer", "name", "eth0", "netns", own)
        run("ip", "-n", hub, "link", "set", outer, "master", "br0", "up")
        run("ip", "-n", own, "link", "set", "eth0", "up")
        if bridge:
            # A bridge has the lowest address of its ports unless it was given one. A guest's card that is lower than
            # eth0 would lend it its own, and take it away when the guest leaves: nobody reaches the host for 30 s then.
            bridge_options = ["address", self.spec.bridge_mac(self.name), "type", "bridge", "stp_state", "0"]
            run("ip", "-n", own, "link", "add", "br0", *bridge_options, "forward_delay", "0")
            run("ip", "-n", own, "link", "set", "eth0", "master", "br0")
            run("ip", "-n", own, "link", "set", "br0", "up")
        run("ip", "-n", own, "addr", "add", f"{self.address}/16", "dev", "br0" if bridge else "eth0")
