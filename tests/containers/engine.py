"""A container engine of the test's own: dockerd in namespaces that end with it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tests.containers.base import cache_folder
from tests.lab.shell import LabUnavailable
from tests.queue.harness import Program, wait_for

PROGRAMS = ("dockerd", "docker", "docker-compose", "debootstrap", "unshare", "nsenter")
_OWN_NETWORK = os.open("/proc/thread-self/ns/net", os.O_RDONLY)  # before any test takes a thread into a lab
OUTSIDE = ("nsenter", f"--net=/proc/{os.getpid()}/fd/{_OWN_NETWORK}", "--")
"""What runs a command in the machine's own network, wherever the calling thread is by then."""

# Process 1 of the namespace is a shell, which reaps what the engine leaves. A system's own containerd is covered.
INIT = '[ ! -d /run/containerd ] || mount -t tmpfs tmpfs /run/containerd; "$@"; exit'
# docker-compose of this age is a program of its own; users type "docker compose".
PLUGIN = """#!/bin/sh
if [ "$1" = docker-cli-plugin-metadata ]; then
    echo '{"SchemaVersion": "0.1.0", "Vendor": "tests", "Version": "1", "ShortDescription": "docker-compose"}'
    exit
fi
shift
exec docker-compose "$@"
"""
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0


class Dockerd(Program):
    """One dockerd; its containers, mounts and networks are in namespaces that end with it, however it ends."""

    def __init__(self, folder: Path, prefix: Sequence[str], *, forward: bool) -> None:
        self.socket = folder / "docker.sock"
        self.cgroup = f"vmferry-{folder.name}"
        options = {
            "data-root": folder / "data",
            "exec-root": folder / "exec",
            "pidfile": folder / "docker.pid",
            "config-file": folder / "daemon.json",
            "host": f"unix://{self.socket}",
            "cgroup-parent": f"/{self.cgroup}",
            "bridge": "none",
            "ip-forward": str(forward).lower(),
            "iptables": "false",
            "ip6tables": "false",
            "ip-masq": "false",
        }
        (folder / "daemon.json").write_text("{}")
        spaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", INIT, "bash"]
        command = [*prefix, *spaces, "dockerd", *(f"--{name}={value}" for name, value in options.items())]
        super().__init__("dockerd", command, folder=folder)

    def _wait_ready(self, position: int) -> None:
        self.wait_log("API listen on", timeout_s=START_TIMEOUT_S, since=position)

    def stop(self) -> None:
        """Let the engine end by itself, so that its images are whole; what is left then is killed."""
        with contextlib.suppress(IndexError, OSError, TimeoutError):
            os.kill(_only_child(_only_child(self.pid)), signal.SIGTERM)
            self.wait(STOP_TIMEOUT_S)
        super().stop()
        self.socket.unlink(missing_ok=True)
        _remove_cgroups(self.cgroup)


class Engine:
    """Images are built in the machine's network; containers run in another one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._dockerd: Dockerd | None = None
        plugins = folder / "config" / "cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-compose").write_text(PLUGIN)
        (plugins / "docker-compose").chmod(0o755)

    @property
    def env(self) -> dict[str, str]:
        """What ``docker`` and ``docker compose`` need to find this engine."""
        ours = {
            "DOCKER_HOST": f"unix://{self.folder}/docker.sock",
            "DOCKER_CONFIG": str(self.folder / "config"),
            "DOCKER_BUILDKIT": "0",
            "COMPOSE_DOCKER_CLI_BUILD": "0",
        }
        foreign = ("DOCKER_", "COMPOSE_", "VMFERRY_")
        return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | ours

    def start(self, prefix: Sequence[str] = OUTSIDE, *, forward: bool = False) -> None:
        """Start the engine where ``prefix`` leads; ``forward``: it lets its network's packets out."""
        self.stop()
        self._dockerd = Dockerd(self.folder, prefix, forward=forward)
        self._dockerd.start()

    def stop(self) -> None:
        """End the engine; images and volumes stay."""
        if self._dockerd is not None:
            self._dockerd.stop()
            self._dockerd = None

    def docker(self, *args: str, stdin: str | Path = "", timeout_s: float = 60.0, check: bool = True) -> str:
        """Run the docker client; what it printed on standard output.

        Raises:
            AssertionError: it failed; with everything that it printed.
        """
        if isinstance(stdin, Path):
            with stdin.open("rb") as file:
                done = self._run(args, timeout_s, stdin=file)
        else:
            done = self._run(args, timeout_s, input=stdin.encode())
        output, errors = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        assert not check or done.returncode == 0, f"docker {' '.join(args)}: {done.returncode}\n{output}\n{errors}"
        return output

    def _run(self, args: Sequence[str], timeout_s: float, **source: object) -> subprocess.CompletedProcess[bytes]:
        command = ["docker", *args]
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            command, env=self.env, capture_output=True, timeout=timeout_s, check=False, **source
        )


@contextlib.contextmanager
def private_engine() -> Iterator[Engine]:
    """An engine that has been started in the machine's network; nothing of it stays.

    Raises:
        LabUnavailable: this machine cannot have one.
    """
    if os.geteuid() != 0:
        raise LabUnavailable("a container engine needs root")
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        raise LabUnavailable(f"the containers need {', '.join(missing)}: .ci/install-packages containers")
    cache_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    _sweep()
    folder = Path(tempfile.mkdtemp(dir=cache_folder(), prefix="engine-"))
    with (folder / "in-use").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        engine = Engine(folder)
        try:
            try:
                engine.start()
            except TimeoutError as error:
                raise LabUnavailable(f"no container engine can be started here: {error}") from None
            yield engine
        finally:
            engine.stop()
            shutil.rmtree(folder)


def _sweep() -> None:
    """Remove what killed runs left: their engines died with them, their files did not."""
    for file in cache_folder().glob("engine-*/in-use"):
        with contextlib.suppress(OSError), file.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_cgroups(f"vmferry-{file.parent.name}")
            shutil.rmtree(file.parent)


def _only_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _remove_cgroups(name: str) -> None:
    """Deepest first; they are empty when their processes have gone, a moment after these were killed."""
    hierarchies = Path("/sys/fs/cgroup")
    for top in {*hierarchies.glob(name), *hierarchies.glob(f"*/{name}")}:
        folders = [path for path in (top, *top.rglob("*/")) if path.is_dir()]
        for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
            wait_for(partial(_is_removed, folder), f"{folder} is empty")


def _is_removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
