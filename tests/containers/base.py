"""Stand-ins for the images that the Dockerfile and the compose file start from, made where no registry can be reached.

They bear the same names and hold the same packages, and also what this machine needs to reach its package mirrors: its
certificates and its settings of apt and pip. The Dockerfile stays as users need it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from tests.lab.shell import LabError, run

SUITE = "bookworm"
DEBIAN = f"debian:{SUITE}-slim"
REDIS = f"redis:7-{SUITE}"
REDIS_DOCKERFILE = f"""
FROM {DEBIAN}
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends redis-server redis-tools >/dev/null \\
 && install --directory --owner 999 --group 999 /data
VOLUME /data
"""
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
IMAGE_CERTIFICATES = "etc/ssl/machine.crt"
"""Where no package of the image writes its own over them."""
APT_SETTINGS = re.compile(r'Acquire::(https?::\w+|Check-[\w-]+|Retries) ".+";')
PIP_SETTINGS = re.compile(
    r"(?:global|install|:env:)\.(index-url|extra-index-url|proxy|trusted-host|default-timeout)='(.*)'"
)
MAKE_TIMEOUT_S = 420.0


def cache_folder() -> Path:
    """Where the base image is kept from one run to the next."""
    return Path(os.environ.get("VMFERRY_CONTAINERS_DIR", "/var/tmp/vmferry-containers"))


def base_tarball(prefix: Sequence[str]) -> Path:
    """The root file system of a minimal Debian, made when there is none of this week with these settings.

    ``prefix`` is put before commands that need the network.

    Raises:
        LabError: it could not be made.
    """
    folder = cache_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = machine_settings()
    digest = hashlib.sha256(repr((date.today().isocalendar()[:2], SUITE, settings)).encode())
    tarball = folder / f"base-{digest.hexdigest()[:12]}.tar"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tarball.exists():
            _make(tarball, settings, prefix)
        for old in set(folder.glob("base-*.tar")) - {tarball}:
            old.unlink()
    return tarball


def machine_settings() -> dict[str, bytes]:
    """Files of the base image by their path: certificates, and what apt and pip are told on this machine."""
    apt = [line for line in run("apt-config", "dump").splitlines() if APT_SETTINGS.fullmatch(line)]
    given = run(sys.executable, "-m", "pip", "config", "list").splitlines()
    pip = {found[1]: found[2] for line in given if (found := PIP_SETTINGS.fullmatch(line))}
    # Folders of this machine are not in the image; packages come from where the lock file's come from.
    remote = {name: " ".join(v for v in value.split() if not v.startswith("file:")) for name, value in pip.items()}
    remote = {name: value for name, value in remote.items() if value}
    files = {"etc/apt/apt.conf.d/90machine": "\n".join(apt).encode() + b"\n"}
    if CERTIFICATES.exists():
        files[IMAGE_CERTIFICATES] = CERTIFICATES.read_bytes()
        remote["cert"] = f"/{IMAGE_CERTIFICATES}"
    lines = ["[global]", *(f"{name} = {value}" for name, value in sorted(remote.items()))]
    files["etc/pip.conf"] = "\n".join(lines).encode() + b"\n"
    return files


def _make(tarball: Path, settings: dict[str, bytes], prefix: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(dir=tarball.parent, prefix="root-") as name:
        root = Path(name)
        root.chmod(0o755)
        command = [*prefix, "debootstrap", "--variant=minbase", SUITE, name, *mirror()]
        _checked(command, timeout_s=MAKE_TIMEOUT_S)
        for path, content in settings.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        unwanted = ["--exclude=./var/lib/apt/lists/*", "--exclude=./var/cache/apt/*", "--exclude=./dev/*"]
        part = tarball.with_suffix(".part")
        _checked(["tar", "--numeric-owner", *unwanted, "-C", name, "-cf", str(part), "."], timeout_s=120)
        part.chmod(0o600)
        part.rename(tarball)


def mirror() -> list[str]:
    """The mirror that this machine uses for the suite, none (debootstrap's own) when it uses another suite."""
    sites = run("apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages", f"Codename: {SUITE}")
    return sites.split()[:1]


def _checked(command: Sequence[str], *, timeout_s: float) -> None:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout_s, check=False
    )
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-3000:]}")
