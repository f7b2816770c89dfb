"""The systemd units, started for real by a systemd of the test's own: shut in as they are, they move a VM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.containers.project import MACHINE, Project, ask_flower
from tests.lab import Guest
from tests.queue.harness import wait_for

pytestmark = [pytest.mark.containers, pytest.mark.lab, pytest.mark.timeout(1200)]

SERVICES = ("vmferry-control", "vmferry-steps", "vmferry-beat", "vmferry-flower")
OPERATOR = "operator:knows"
HOME = "/var/lib/vmferry"


class Machine:
    """A container whose first process is systemd, in the lab's network."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._docker = project.engine.docker
        spec = project.lab.spec
        options = [
            "--network=host",
            "--cap-add=SYS_ADMIN",
            "--security-opt=seccomp=unconfined",
            "--env=container=docker",
        ]
        options += ["--tmpfs=/run", "--tmpfs=/run/lock", "--volume=/sys/fs/cgroup:/sys/fs/cgroup"]
        options += [f"--add-host={host}:{spec.address(host)}" for host in spec.hosts]
        self._id = self._docker("create", *options, MACHINE).strip()

    def sh(self, script: str, *, user: str = "root", check: bool = True) -> str:
        """Run a shell script there; its standard output."""
        return self._docker("exec", "--user", user, self._id, "sh", "-ec", script, check=check, timeout_s=120)

    def start(self, folder: Path) -> None:
        """Boot it, with Flower's credentials where the services look for what nobody else may read."""
        (folder / "environment").write_text(f"VMFERRY_FLOWER__CREDENTIALS='[\"{OPERATOR}\"]'\n")
        self._docker("cp", str(folder / "environment"), f"{self._id}:/etc/vmferry/environment")
        self._docker("start", self._id)

    def put_keys(self) -> None:
        """Where SSH looks for them, owned by the user that the services run as."""
        keys = self._project.lab.spec.folder / "ssh/home"
        self.sh(f"install --directory --owner vmferry --mode 0700 {HOME}/.ssh")
        for name in ("id_ed25519", "known_hosts"):
            self._docker("cp", str(keys / name), f"{self._id}:{HOME}/.ssh/{name}")
        self.sh(f"chown --recursive vmferry: {HOME}/.ssh")

    def start_redis(self) -> None:
        """Redis as the example configuration has it; not by its own unit, which asks for more than a container has."""
        command = ["redis-server", "--bind", "127.0.0.1", "--dir", "/tmp", "--save", "", "--appendonly", "yes"]
        self._docker("exec", "--detach", self._id, *command)

    def journal(self) -> str:
        """What all units have said."""
        return self.sh("journalctl --no-pager --quiet --output cat || true")

    def has_said(self, text: str) -> bool:
        """Whether a text is in the journal."""
        return text in self.journal()

    def remove(self) -> None:
        """Kill it."""
        self._docker("rm", "--force", self._id)


@pytest.fixture
def machine(project: Project, tmp_path: Path) -> Iterator[Machine]:
    """One with a Redis and the lab's keys."""
    made = Machine(project)
    try:
        made.start(tmp_path)
        made.put_keys()
        made.start_redis()
        yield made
    finally:
        made.remove()


def test_the_services_move_a_vm_and_stop_in_time(machine: Machine, make_guest: Callable[..., Guest]) -> None:
    guest = make_guest("web-9")
    guest.wait_ticking()
    for role in ("control", "steps"):
        try:
            wait_for(partial(machine.has_said, f"INFO celery.apps.worker {role}@"), role, timeout_s=60)
        except TimeoutError:
            pytest.fail(f"{role} does not get ready\n{machine.journal()}")
    assert (ask_flower("/api/workers"), ask_flower("/api/workers", OPERATOR)) == (401, 200)
    machine.sh("/opt/vmferry/bin/vmferry migrate web-9 --to beta --wait", user="vmferry")
    guest.wait_ticking("beta")
    assert machine.sh(f"systemctl is-active {' '.join(SERVICES)}").split() == ["active"] * len(SERVICES)
    # The target takes its services along, but does not wait for them; asked for by name they are waited for.
    machine.sh(f"systemctl stop vmferry.target && systemctl stop {' '.join(SERVICES)}")
    for service in SERVICES:
        said = machine.sh(f"systemctl show --property ActiveState,Result,ExecMainStatus {service}").split()
        assert set(said) == {"ActiveState=inactive", "Result=success", "ExecMainStatus=0"}, machine.journal()
