"""The guest: a Debian cloud kernel and an initramfs with one static program; built once, shared by all labs."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.lab.shell import LabError, run, until
from tests.lab.spec import labs_folder

SOURCE = Path(__file__).parent / "guest" / "init.c"
MODULES = (
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "drivers/block/virtio_blk.ko",
    "net/core/failover.ko",
    "drivers/net/net_failover.ko",
    "drivers/net/virtio_net.ko",
)
"""In the order in which they must be loaded."""
GUEST_MODULES = ("drivers/char/virtio_console.ko", "drivers/acpi/button.ko", "drivers/input/evdev.ko")
"""The guest's alone, and only loaded when it has an agent, or heeds the power button."""
SMALLEST_MIB = 80
"""With less memory the kernel does not boot; a guest that stays paused may have less."""


def image_folder() -> Path:
    """Folder of the kernel and initramfs for the present source; another source is another folder."""
    digest = hashlib.sha256(SOURCE.read_bytes() + "".join((*MODULES, *GUEST_MODULES)).encode()).hexdigest()[:12]
    return labs_folder() / "images" / digest


def build_image() -> Path:
    """Build the image unless it is there; several labs may ask at the same time."""
    folder = image_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "initrd").exists():
            _build(folder)
    return folder


def _build(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        work = Path(scratch)
        kernel = unpack_kernel(work)
        made = work / "made"
        made.mkdir()
        shutil.copy(next((kernel / "boot").glob("vmlinuz-*")), made / "vmlinuz")
        _make_initrd(work, next((kernel / "lib/modules").iterdir()) / "kernel", made / "initrd")
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)


def unpack_kernel(work: Path) -> Path:
    """Debian's newest cloud kernel, unpacked in this folder.

    Raises:
        LabError: apt does not know it.
    """
    package = _kernel_package()
    if package is None:
        run("apt-get", "update", timeout_s=300)
        package = _kernel_package()
    if package is None:
        raise LabError("apt knows no linux-image-cloud-amd64")
    # apt-get download writes to its working directory
    subprocess.run(["apt-get", "download", package], cwd=work, check=True, capture_output=True)
    run("dpkg-deb", "-x", str(next(work.glob("*.deb"))), str(work / "kernel"))
    return work / "kernel"


def _kernel_package() -> str | None:
    """The newest cloud kernel's package; None when apt's lists do not have it."""
    depends = run("apt-cache", "depends", "linux-image-cloud-amd64", check=False)
    names = [line.split()[-1] for line in depends.splitlines() if "Depends:" in line and "linux-image-" in line]
    return names[0] if names else None


def _make_initrd(work: Path, modules: Path, target: Path) -> None:
    root = work / "initrd"
    (root / "modules").mkdir(parents=True)
    run("gcc", "-O2", "-static", "-Wall", "-Werror", "-o", str(root / "init"), str(SOURCE))
    wanted = (*MODULES, *GUEST_MODULES)
    for module in wanted:
        shutil.copy(modules / module, root / "modules")
    (root / "modules" / "order").write_text("".join(f"{Path(module).name}\n" for module in wanted))
    files = sorted(path.relative_to(root) for path in root.rglob("*"))

    archive = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"],
        cwd=root,
        input="\n".join(map(str, files)).encode(),
        capture_output=True,
        check=True,
    )
    target.write_bytes(gzip.compress(archive.stdout, mtime=0))


def choose_accelerator(image: Path) -> str:
    """Find out once whether KVM is usable, by booting the guest: a device or a QEMU that starts proves nothing."""
    answer = image / "accelerator"
    if not answer.exists():
        answer.write_text("kvm" if Path("/dev/kvm").exists() and _boots_with_kvm(image) else "qemu")
    return answer.read_text()


def virt_type() -> str:
    """What ``choose_accelerator`` found: the domain's type."""
    return choose_accelerator(image_folder())


def _boots_with_kvm(image: Path) -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        console = Path(scratch) / "console"
        command = [
            "qemu-system-x86_64",
            "-accel",
            "kvm",
            "-machine",
            "q35",
            "-m",
            "128",
            "-nodefaults",
            "-display",
            "none",
        ]
        command += ["-serial", f"file:{console}", "-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd")]
        process = subprocess.Popen(
            [*command, "-append", "console=ttyS0 quiet"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            until(
                lambda: process.poll() is not None or (console.exists() and b"tick 100 " in console.read_bytes()),
                6,
                "no tick",
            )
        except LabError:
            return False
        else:
            return process.poll() is None
        finally:
            process.kill()
            process.wait()
