"""What the nested machines boot from: a small Debian with its stock cloud kernel; built once, shared by all runs.

The folder has ``vmlinux``, ``initrd`` (busybox and modules; ``machine.py`` adds the rest) and ``base.img`` (ext4): the
packages as they were installed. What a machine is for is laid over them when it starts.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.containers.base import SUITE, mirror
from tests.lab.image import MODULES, unpack_kernel
from tests.lab.shell import LabError, run
from tests.lab.spec import labs_folder

PACKAGES = (
    "systemd-sysv",
    "libpam-systemd",  # polkitd asks for a virtual package, which debootstrap does not resolve
    "udev",
    "dbus",
    "kmod",
    "libvirt-daemon-system",
    "libvirt-clients",
    "qemu-system-x86",
    "qemu-utils",
    "nfs-kernel-server",
    "nfs-common",
    "lvm2",
    "openssh-server",
    "openssh-client",
    "netcat-openbsd",
    "iproute2",
    "iputils-ping",
    "busybox-static",
)
DPKG = """force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/man/*
"""
"""Half the time: an image that was not finished is never used."""
IMAGE_MIB = 3072
BUILD_TIMEOUT_S = 900.0


def base_folder() -> Path:
    """Folder of what machines boot from, for the present recipe; another recipe is another folder."""
    digest = hashlib.sha256(Path(__file__).read_bytes() + repr(MODULES).encode())
    return labs_folder() / "images" / f"nested-{digest.hexdigest()[:12]}"


def build_base() -> Path:
    """Build it unless it is there; several runs may ask at the same time.

    Raises:
        LabError: a program failed, with what it printed.
    """
    folder = base_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "nested.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _build(folder)
        for old in set(folder.parent.glob("nested-*")) - {folder}:
            shutil.rmtree(old)
    return folder


def _build(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="build-") as scratch:
        work = Path(scratch)
        root, made = work / "root", work / "made"
        made.mkdir()
        settings = root / "etc/dpkg/dpkg.cfg.d/lab"
        settings.parent.mkdir(parents=True)
        settings.write_text(DPKG)
        checked("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root), *mirror())
        kernel = unpack_kernel(work)
        release = next((kernel / "lib/modules").iterdir())
        shutil.copytree(release, root / "usr/lib/modules" / release.name)
        run("chroot", str(root), "depmod", release.name)
        for unwanted in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(root / unwanted)
        (root / "etc/fstab").write_text("")
        (made / "vmlinux").write_bytes(unpack_vmlinux(next((kernel / "boot").glob("vmlinuz-*"))))
        _make_initrd(work, root, release / "kernel", made / "initrd")
        # Without a journal: nothing of a machine is kept. An allocation that fails once the disk is full is not wanted.
        features = ["-t", "ext4", "-q", "-O", "^has_journal", "-E", "lazy_itable_init=1", "-m", "0"]
        checked("mke2fs", *features, "-d", str(root), str(made / "base.img"), f"{IMAGE_MIB}M")
        made.rename(folder)


def checked(*command: str) -> None:
    """Run a program that takes long; its last words are in the error."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=BUILD_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise LabError(f"{command[0]}: exit {done.returncode}\n{done.stdout[-3000:]}")


def _make_initrd(work: Path, root: Path, modules: Path, target: Path) -> None:
    tree = work / "initrd"
    for folder in ("bin", "modules"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(root / "bin/busybox", tree / "bin/busybox")
    for module in MODULES:
        shutil.copy(modules / module, tree / "modules")
    (tree / "modules/order").write_text("".join(f"{Path(module).name}\n" for module in MODULES))
    target.write_bytes(gzip.compress(archive(tree, ["."]), mtime=0))


def archive(folder: Path, names: Sequence[str]) -> bytes:
    """These files and folders as the kernel wants them in an initramfs; several archives may follow each other."""
    found = [Path(name) for name in names]
    for name in names:
        found += [path.relative_to(folder) for path in sorted((folder / name).rglob("*"))]
    done = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"],
        cwd=folder,
        input="\n".join(map(str, found)).encode(),
        capture_output=True,
        check=True,
    )
    return done.stdout


def unpack_vmlinux(bzimage: Path) -> bytes:
    """The ELF file in a compressed kernel: it boots directly (PVH), where unpacking itself takes emulation seconds.

    Offsets are those of the kernel's Documentation/arch/x86/boot.rst; the last four bytes are the size when unpacked.

    Raises:
        LabError: it is not packed with LZ4.
    """
    data = bzimage.read_bytes()
    sectors = data[0x1F1] or 4
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = (sectors + 1) * 512 + offset
    packed = data[start : start + length]
    done = subprocess.run(["lz4", "-d", "-c"], input=packed[:-4], capture_output=True, check=False)
    (size,) = struct.unpack("<I", packed[-4:])
    if not done.stdout.startswith(b"\x7fELF") or len(done.stdout) != size:
        raise LabError(f"{bzimage.name} is not packed with LZ4: {os.fsdecode(done.stderr).strip()}")
    return done.stdout
