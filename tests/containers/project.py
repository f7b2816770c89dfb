"""The compose project of a test: a copy of what users have, and the little that the lab needs beside it."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
from base64 import b64encode
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.containers.base import DEBIAN, REDIS, REDIS_DOCKERFILE, base_tarball
from tests.containers.engine import OUTSIDE, Engine
from tests.lab import Lab
from tests.lab.spec import HUB_ADDRESS
from tests.queue.harness import wait_for
from tests.scenarios.stack import REPOSITORY

NEEDED = (".ci", ".dockerignore", "LICENSE", "README.md", "cli.py", "config", "docker", "pyproject.toml", "tasks")
MACHINE = "vmferry-machine"
MACHINE_DOCKERFILE = """
FROM vmferry
USER root
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends systemd redis-server >/dev/null \\
 && rm /etc/ssh/ssh_config.d/vmferry.conf
COPY config/systemd /etc/systemd/system
COPY config/vmferry.example.toml /etc/vmferry/vmferry.toml
RUN systemctl enable vmferry.target
ENTRYPOINT ["/lib/systemd/systemd"]
"""
"""A machine that was set up with the units: nothing of it is what containers are for."""
OURS = ("control", "steps", "beat", "flower")
FLOWER_PORT = 5555
SUBNET = "172.31.88.0/24"
BUILD_TIMEOUT_S = 600.0


def example(name: str) -> str:
    """The code block below a marking comment of docs/containers.md."""
    text = (REPOSITORY / "docs/containers.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- {name} -->\n```sh\n(.*?)```", text, re.DOTALL)
    assert found, f"docs/containers.md has no example called {name}"
    return found[1]


def ask_flower(path: str, credentials: str = "") -> int:
    """The status of Flower's answer on the lab hub's loopback address, where whatever runs it publishes it."""
    headers = {"Authorization": f"Basic {b64encode(credentials.encode()).decode()}"} if credentials else {}
    with closing(http.client.HTTPConnection("127.0.0.1", FLOWER_PORT, timeout=20)) as connection:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status


class Project:
    """A checkout, an engine with the images, and a lab that the containers reach."""

    def __init__(self, engine: Engine, lab: Lab, folder: Path) -> None:
        self.engine, self.lab, self.folder = engine, lab, folder
        for name in NEEDED:
            if (REPOSITORY / name).is_dir():
                mine = shutil.ignore_patterns("__pycache__", "secrets", "vmferry.toml")
                shutil.copytree(REPOSITORY / name, folder / name, ignore=mine)
            else:
                shutil.copy(REPOSITORY / name, folder / name)
        (folder / "docker/ssh_config").chmod(0o664)  # as after a checkout with umask 002
        (folder / "override.json").write_text(json.dumps(self._override()))

    def _override(self) -> dict[str, Any]:
        names = [f"{name}:{self.lab.spec.address(name)}" for name in self.lab.spec.hosts]
        service = {"build": {"network": "host"}, "extra_hosts": names}
        checked = service | {"healthcheck": {"interval": "5s"}}
        return {
            "services": {name: service if name == "beat" else checked for name in OURS},
            "networks": {"default": {"ipam": {"config": [{"subnet": SUBNET}]}}},
        }

    @property
    def env(self) -> dict[str, str]:
        """What makes ``docker compose`` in the copy's docker folder use our engine and the lab."""
        files = f"{self.folder}/docker/compose.yaml:{self.folder}/override.json"
        return self.engine.env | {"COMPOSE_FILE": files, "COMPOSE_PROJECT_NAME": "ferry"}

    def build(self) -> None:
        """The images that ours start from, then ours as compose builds it, in the machine's network."""
        self.engine.docker("import", str(base_tarball(OUTSIDE)), DEBIAN, timeout_s=120)
        build = ("build", "--quiet", "--network=host", "--tag")
        self.engine.docker(*build, REDIS, "-", stdin=REDIS_DOCKERFILE, timeout_s=BUILD_TIMEOUT_S)
        self.run("cd docker && mkdir secrets && touch vmferry.toml && docker compose build control", BUILD_TIMEOUT_S)
        self.run("rm -r docker/secrets docker/vmferry.toml")
        (self.folder / "Machine").write_text(MACHINE_DOCKERFILE)
        context = str(self.folder)
        self.engine.docker(*build, MACHINE, "--file", f"{context}/Machine", context, timeout_s=BUILD_TIMEOUT_S)

    def move_into_the_lab(self) -> None:
        """Let the engine make its networks in the lab's hub, and the hosts find the way back to the containers."""
        self.engine.stop()
        self.engine.start(self.lab.command_prefix(), forward=True)
        for name in self.lab.spec.hosts:
            self.lab.host(name).run(["ip", "route", "replace", SUBNET, "via", HUB_ADDRESS])

    def leave_the_lab(self) -> None:
        """What ``move_into_the_lab`` added to the hosts."""
        for name in self.lab.spec.hosts:
            self.lab.host(name).run(["ip", "route", "delete", SUBNET], check=False)

    # -- using it -----------------------------------------------------------------------------------------------------

    def run(self, script: str, timeout_s: float = 120.0) -> str:
        """Run a shell script in the copy as a user at a terminal does, on a desk of the lab; everything printed.

        Raises:
            AssertionError: it failed, or did not end in time.
        """
        file = self.folder / "script"
        file.write_text(f"set -e\n{script}\n")
        terminal = ["script", "--quiet", "--return", "--command", f"bash {file}", "/dev/null"]
        process = subprocess.Popen(
            [*self.lab.desk_prefix(), *terminal],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            raise AssertionError(f"{script}\ndid not end within {timeout_s} s\n{output}\n{self.logs()}") from None
        assert process.returncode == 0, f"{script}\n{process.returncode}\n{output}\n{self.logs()}"
        return output

    def compose(self, *args: str, timeout_s: float = 120.0, check: bool = True) -> str:
        """``docker compose`` without a terminal; its standard output."""
        command = ["docker", "compose", *args]
        done = subprocess.run(
            command,
            cwd=self.folder / "docker",
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert not check or done.returncode == 0, f"{' '.join(args)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def vmferry(self, *args: str) -> Any:
        """The command line in the control worker's container, with ``--json``."""
        return json.loads(self.compose("exec", "-T", "control", "vmferry", *args, "--json"))

    def container(self, service: str) -> str:
        """The id of a service's container."""
        return self.compose("ps", "--quiet", service).strip()

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine tells of a service's container."""
        found: list[dict[str, Any]] = json.loads(self.engine.docker("inspect", self.container(service)))
        return found[0]

    def wait_healthy(self, service: str, timeout_s: float = 120.0) -> None:
        """Wait until the service's own health check passes."""
        try:
            wait_for(
                lambda: self.inspect(service)["State"]["Health"]["Status"] == "healthy",
                f"{service} is healthy",
                timeout_s=timeout_s,
            )
        except TimeoutError as error:
            raise AssertionError(f"{error}: {self.inspect(service)['State']}\n{self.logs(service)}") from None

    def logs(self, *services: str) -> str:
        """The ends of the containers' logs."""
        return self.compose("logs", "--no-color", "--tail", "40", *services, check=False)
