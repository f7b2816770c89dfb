"""A machine of the nested lab: a whole PC emulated by QEMU, with Debian's stock kernel, reached over SSH.

Its processor has AMD's virtualization (SVM), which QEMU emulates: the machine has a usable ``/dev/kvm`` of its own.
"""

from __future__ import annotations

import gzip
import shlex
import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import libvirt

from tests.lab.guest import LOGICAL, POOL_PATHS, SQUASHED
from tests.lab.host import SSHD_CONF, Host
from tests.lab.image import image_folder
from tests.lab.nested.rootfs import archive, base_folder
from tests.lab.nested.tsc import tsc_khz
from tests.lab.node import Node
from tests.lab.shell import LabError, background, kill, recall, remember, run
from tests.lab.spec import STORE_ADDRESS
from tests.lab.store import Store

BOOT_TIMEOUT_S = 600.0
"""Of three at once it takes a tenth of that on two idle cores."""
GUEST_IMAGE = Path("/var/lib/vmferry-guest")
"""The guests' kernel and initramfs, on every machine."""
KERNEL_WORDS = (
    "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=false panic=-1 mitigations=off apparmor=0 nokaslr"
    " no_timer_check tsc=reliable net.ifnames=0"
)
UNITS = "etc/systemd/system"
HERE = Path(__file__).parent
MASKED = (
    # What would work on its own while something is measured
    *("apt-daily.timer", "apt-daily-upgrade.timer", "cron.service", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("e2scrub_reap.service", "fstrim.timer", "logrotate.timer", "systemd-tmpfiles-clean.timer"),
    # What NFS 4 alone does not need
    *("nfs-blkmap.service", "nfs-idmapd.service", "rpc-statd.service", "rpc-statd-notify.service"),
    *("rpcbind.service", "rpcbind.socket"),
    # What makes the start longer
    *("getty@tty1.service", "serial-getty@ttyS0.service", "libvirt-guests.service", "systemd-logind.service"),
    *("blk-availability.service", "lvm2-monitor.service", "systemd-binfmt.service", "systemd-journal-flush.service"),
    *("proc-sys-fs-binfmt_misc.automount", "systemd-pstore.service", "systemd-random-seed.service"),
    *("systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "dev-mqueue.mount"),
    *("sys-fs-fuse-connections.mount", "sys-kernel-config.mount", "sys-kernel-debug.mount"),
    "sys-kernel-tracing.mount",
)
SPARE_MIB = 512
"""A second disk, which the machine leaves alone."""

POOLS = {
    name: f"""<pool type='netfs'><name>{name}</name>
<source><host name='{STORE_ADDRESS}'/><dir path='{export}'/><format type='nfs'/></source>
<target><path>{POOL_PATHS[name]}</path></target></pool>"""
    for name, export in (("shared", "/srv/vms"), (SQUASHED, f"/srv/{SQUASHED}"))
} | {
    "local": "<pool type='dir'><name>local</name><target><path>/var/lib/libvirt/images</path></target></pool>",
    LOGICAL: """<pool type='logical'><name>vg0</name><source><name>vg0</name><format type='lvm2'/>
<device path='/dev/vdb'/></source><target><path>/dev/vg0</path></target></pool>""",
}
"""Network storage as the guide has it, another as it warns of, a folder, and a volume group on the second disk."""


class Machine(Node):
    """One machine; ``root`` is a folder outside it, parts of which are laid over its file system when it starts."""

    memory_mib = 512
    enabled: tuple[tuple[str, str], ...] = ()
    """Units that it starts besides those that Debian enables: which target wants them, and their names."""
    masked: tuple[str, ...] = ()

    @property
    def pid(self) -> int:
        """Its QEMU."""
        pid = recall(self.root / "qemu.pid")
        if pid is None:
            raise LabError(f"{self.name} of nested lab {self.spec.name} is not up: see {self.root}/serial.log")
        return pid

    @property
    def is_up(self) -> bool:
        """Whether its QEMU lives."""
        return recall(self.root / "qemu.pid") is not None

    def prefix(self) -> list[str]:
        """What runs a command inside; the words after it are read by a shell there."""
        return [*self._in_hub(), "ssh", "-F", str(self.spec.folder / "ssh/config"), *self._shared(), self._login, "--"]

    def run(self, command: Sequence[str], *, check: bool = True, timeout_s: float = 120.0) -> str:
        """Run a command inside; returns what it printed."""
        return run(*self.prefix(), shlex.join(command), check=check, timeout_s=timeout_s)

    def shell(self, script: str, *, timeout_s: float = 120.0) -> str:
        """Run a few lines of shell inside; returns what they printed."""
        return self.run(["sh", "-euc", script], timeout_s=timeout_s)

    def up(self, bridge: bool) -> None:  # noqa: ARG002 - every machine has one
        """Its files and its cable; ``boot`` switches it on."""
        self._write_files()
        hub, cable = self.spec.netns("hub"), self.spec.veth(self.name)
        run("ip", "-n", hub, "tuntap", "add", cable, "mode", "tap")
        run("ip", "-n", hub, "link", "set", cable, "master", "br0", "up")

    def down(self) -> None:
        """Pull its plug."""
        for file in [*self.root.glob("*.follow"), self.root / "ssh.pid", self.root / "qemu.pid"]:
            kill(file)

    def boot(self) -> None:
        """Switch it on; returns at once."""
        parts = [(base_folder() / "initrd").read_bytes(), self._own_files()]
        (self.root / "initrd").write_bytes(b"".join(parts))
        base = base_folder() / "base.img"
        run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(base), str(self.root / "disk.qcow2"))
        with (self.root / "spare.img").open("wb") as spare:
            spare.truncate(SPARE_MIB << 20)
        remember(background([*self._in_hub(), *self._qemu()], self.root / "qemu.log"), self.root / "qemu.pid")

    def wait_booted(self) -> None:
        """Wait until it can be logged in to, and keep that connection for all further commands.

        Raises:
            LabError: it ended or did not come up in time.
        """
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        ssh = [*self._in_hub(), "ssh", "-F", str(self.spec.folder / "ssh/config"), "-o", "ConnectTimeout=5"]
        answers = [*self.prefix()[:-2], "-O", "check", self._login]
        while self.pid:  # says so when it has ended
            if recall(self.root / "ssh.pid") is None:
                master = ["-M", "-N", "-o", f"ControlPath={self._control}", self._login]
                remember(background([*ssh, *master], self.root / "ssh.log"), self.root / "ssh.pid")
            try:
                run(*answers)
            except LabError as error:
                if time.monotonic() > deadline:
                    raise LabError(f"{self.name}: {error}: see {self.root}/serial.log") from None
                time.sleep(0.3)
            else:
                return

    @property
    def _login(self) -> str:
        return f"root@{self.address}"

    @property
    def _control(self) -> Path:
        return self.root / "ssh.sock"

    def _shared(self) -> list[str]:
        return ["-o", f"ControlPath={self._control}"]

    def _in_hub(self) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.spec.netns('hub')}", "--"]

    def _qemu(self) -> list[str]:
        base, identity = base_folder(), uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.{self.spec.name}.vmferry-nested")
        mac, words = self.spec.bridge_mac(f"{self.name}/eth0"), f"{KERNEL_WORDS} tsc_early_khz={tsc_khz()}"
        name = f"vmferry-nested-{self.spec.name}-{self.name}"
        command = ["qemu-system-x86_64", "-name", name, "-uuid", str(identity)]
        command += ["-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off"]
        # With one possible processor, QEMU before 8.1 leaves the guest's memory barriers out, though its devices have
        # threads of their own: a network card then misses the word that there is something to send, and hangs.
        command += ["-smp", "1,maxcpus=2"]
        command += ["-m", f"{self.memory_mib}M", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        command += ["-kernel", f"{base}/vmlinux", "-initrd", f"{self.root}/initrd", "-append", words]
        command += ["-serial", f"file:{self.root}/serial.log", "-device", "virtio-rng-pci"]
        for name, form in (("disk.qcow2", "qcow2"), ("spare.img", "raw")):
            command += ["-drive", f"file={self.root}/{name},format={form},if=virtio,cache=unsafe"]
        card = f"tap,id=n0,ifname={self.spec.veth(self.name)},script=no,downscript=no"
        return [*command, "-netdev", card, "-device", f"virtio-net-pci,netdev=n0,mac={mac}"]

    # -- its own files ------------------------------------------------------------------------------------------------

    def _write_files(self) -> None:
        super()._write_files()
        files = {
            "etc/hostname": self.name,
            "etc/lab-network.conf": f"ADDRESS={self.address}\nBRIDGE_MAC={self.spec.bridge_mac(self.name)}",
            "etc/systemd/journald.conf": "[Journal]\nStorage=volatile",
            "etc/ssh/sshd_config": SSHD_CONF + "MaxSessions 100\nUseDNS no",
        } | self.own_files()
        for name in ("hosts", "machine-id"):
            files[f"etc/{name}"] = (self.root / name).read_text().rstrip("\n")
        for name, content in files.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(content + "\n")
        shutil.copytree(HERE / "rootfs", self.root, dirs_exist_ok=True)
        links = {f"{target}.wants/{unit}": f"/lib/systemd/system/{unit}" for target, unit in self.enabled}
        links["multi-user.target.wants/lab-network.service"] = "../lab-network.service"
        links |= dict.fromkeys((*MASKED, *self.masked), "/dev/null")
        for name, target in links.items():
            link = self.root / UNITS / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(target)
        (self.root / "root").chmod(0o700)

    def own_files(self) -> dict[str, str]:
        """Further files, by their path without a slash in front."""
        return {}

    def _own_files(self) -> bytes:
        """What its initramfs lays over the file system."""
        tree = self.root / "overlay"
        shutil.rmtree(tree, ignore_errors=True)
        for name in ("etc", "root", "srv", "usr"):
            (self.root / name).mkdir(exist_ok=True)
            shutil.copytree(self.root / name, tree / "machine" / name, symlinks=True)
        shutil.copytree(image_folder(), tree / "machine" / str(GUEST_IMAGE).lstrip("/"))
        shutil.copy(HERE / "init", tree)
        (tree / "init").chmod(0o755)
        return gzip.compress(archive(tree, ["init", "machine"]), compresslevel=1, mtime=0)


class NestedHost(Machine, Host):
    """A libvirt host as Debian makes it: its own user for QEMU, ownership set by libvirt, cgroups, namespaces."""

    memory_mib = 2048
    pools = POOLS
    enabled = (
        ("multi-user.target", "libvirtd.service"),
        *(("sockets.target", f"libvirtd{kind}.socket") for kind in ("", "-ro", "-admin", "-tcp")),
    )
    masked = ("nfs-server.service",)

    def own_files(self) -> dict[str, str]:
        """The daemon stays when it is idle; tests look at it over TCP, the product over SSH."""
        return {
            "etc/default/libvirtd": "LIBVIRTD_ARGS=",
            "etc/libvirt/libvirtd.conf": 'auth_tcp = "none"',
            "etc/libvirt/qemu.conf": 'stdio_handler = "file"',
        }

    def configure(self) -> None:
        """Nothing beyond its own files."""

    def connect(self) -> libvirt.virConnect:
        """A connection that can be made from any network namespace."""
        return libvirt.open(f"qemu+ext:///system?command={self._plug}")

    @property
    def libvirtd_pid(self) -> int | None:
        """It is never stopped: the machine stands for it."""
        return recall(self.root / "qemu.pid")

    @property
    def _plug(self) -> Path:
        file = self.root / "plug"
        if not file.exists():
            file.write_text(f"#!/bin/sh\nexec {shlex.join(self._in_hub())} nc {self.address} 16509\n")
            file.chmod(0o755)
        return file

    def follow(self, console: str) -> None:
        """Have a guest's console, as this host writes it, in a file of the same path below ``root``."""
        file = self.root / console.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
        self.run(["touch", console])  # tail looks once a second at what was not there when it began
        command = [*self.prefix(), f"exec tail -n +1 -F {shlex.quote(console)} 2>/dev/null"]
        remember(background(command, file), self._follower(console))

    def unfollow(self, console: str) -> None:
        """No more, and remove it on the host."""
        kill(self._follower(console))
        self.run(["rm", "-f", console])

    def _follower(self, console: str) -> Path:
        return self.root / f"{Path(console).name}.follow"


class NfsServer(Machine, Store):
    """The kernel's NFS server, with one export as the guide has it and one that makes root nobody."""

    enabled = (("multi-user.target", "nfs-server.service"),)
    masked = ("libvirtd.service", *(f"{name}.socket" for name in ("libvirtd", "libvirtd-ro", "virtlogd", "virtlockd")))

    def own_files(self) -> dict[str, str]:
        """Short times of grace: nothing is locked when it starts."""
        return {
            "etc/exports": "/srv/vms *(rw,sync,no_subtree_check,no_root_squash)\n"
            "/srv/squashed *(rw,sync,no_subtree_check,root_squash)",
            "etc/nfs.conf": "[nfsd]\nvers3=n\ngrace-time=10\nlease-time=10",
        }

    def start(self) -> None:
        """It starts with its machine."""

    def configure(self) -> None:
        """What it exports has to be there when it starts."""
        for name in ("vms", "squashed"):
            (self.root / "srv" / name).mkdir(parents=True, exist_ok=True)
