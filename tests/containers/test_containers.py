"""Images built and composed for real: a VM moves through the containers, and nothing is told that should be secret.

The tests run in the order in which they stand: the first one brings everything up as the documentation says.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable

import pytest

from tests.containers.project import OURS, Project, ask_flower, example
from tests.lab import Guest

pytestmark = [pytest.mark.containers, pytest.mark.lab, pytest.mark.timeout(1200)]

SERVICES = ("redis", *OURS)


@pytest.fixture
def up(project: Project) -> Project:
    """The project, which the first test has brought up."""
    if not project.container("control"):
        pytest.fail("the containers do not run: the first test has failed or was not chosen")
    return project


def test_the_documented_commands_move_a_vm(project: Project, make_guest: Callable[..., Guest]) -> None:
    guest = make_guest("web-1")
    guest.wait_ticking()
    output = project.run(example("compose"), timeout_s=300)
    assert "web-1: alpha → beta: would be moved" in output, output
    [record] = project.vmferry("list")
    assert (record["state"], record["source"], record["destination"]) == ("succeeded", "alpha", "beta")
    assert project.vmferry("show", record["id"])["state"] == "succeeded"
    guest.wait_ticking("beta")
    states = project.lab.states("web-1")
    assert states["beta"] is not None
    assert states["beta"].active
    assert states["alpha"] is None


@pytest.mark.parametrize("service", ["redis", "control", "steps"])
def test_a_service_says_that_it_is_healthy(up: Project, service: str) -> None:
    up.wait_healthy(service)


def test_flower_answers_those_who_may_ask(up: Project) -> None:
    up.wait_healthy("flower")
    assert ask_flower("/api/workers") == 401
    credentials = json.loads((up.folder / "docker/secrets/flower").read_text())["credentials"][0]
    assert ask_flower("/api/workers", credentials) == 200
    assert ask_flower("/api/workers", "operator:guessed") == 401


def test_nobody_is_root_and_nothing_can_be_written(up: Project) -> None:
    for service in SERVICES:
        settings = up.inspect(service)["HostConfig"]
        assert settings["ReadonlyRootfs"], service
        assert settings["CapDrop"] == ["ALL"], service
        assert "no-new-privileges:true" in settings["SecurityOpt"], service
        status = up.compose("exec", "-T", service, "cat", "/proc/1/status")
        found = dict(re.findall(r"^(Uid|CapEff|CapBnd|NoNewPrivs):\s+(\S+)", status, re.MULTILINE))
        assert found["Uid"] == ("999" if service == "redis" else "10001"), service
        assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == 0, service
        assert found["NoNewPrivs"] == "1", service
        refused = up.compose("exec", "-T", service, "sh", "-c", "touch /x ~/x /etc/x 2>&1 || true")
        assert refused.count("Read-only file system") == (2 if service == "flower" else 3), refused


def test_keys_and_passwords_are_in_no_image_and_nothing_that_the_engine_shows(up: Project) -> None:
    secrets = up.folder / "docker/secrets"
    password = (secrets / "broker_url").read_text().split("@")[0].rpartition(":")[2]
    assert len(password) == 48
    key_lines = (secrets / "ssh_key").read_text().splitlines()[1:-1]
    flower_password = json.loads((secrets / "flower").read_text())["credentials"][0].partition(":")[2]
    needles = [password, b64encode(password.encode()).decode(), flower_password, *key_lines]
    shown = [json.dumps(up.inspect(service)) for service in SERVICES]
    shown += [up.engine.docker("top", up.container(service), "axww") for service in SERVICES]
    shown += [up.engine.docker("history", "--no-trunc", "vmferry"), up.engine.docker("inspect", "vmferry"), up.logs()]
    image = up.folder / "image.tar"
    up.engine.docker("save", "--output", str(image), "vmferry", timeout_s=120)
    layers = image.read_bytes()
    image.unlink()
    for needle in needles:
        assert not any(needle in text for text in shown)
        assert needle.encode() not in layers
    assert b"hypervisor" in layers, "the layers are compressed: looking for secrets in them says nothing"


def test_the_image_has_nothing_to_build_with_and_no_tests(up: Project) -> None:
    script = "command -v gcc cc make pip pytest mypy; find / -xdev -path '*/tests/scenarios*' 2>/dev/null; true"
    assert up.compose("exec", "-T", "control", "sh", "-c", script).split() == []


def test_redis_refuses_without_the_password_and_keeps_what_it_is_told(up: Project) -> None:
    refused = up.compose("exec", "-T", "redis", "redis-cli", "ping")
    assert "NOAUTH" in refused
    as_told = "REDISCLI_AUTH=$(sed 's/.*:\\(.*\\)@.*/\\1/' /run/secrets/vmferry_broker_url)"
    for name, value in {"appendonly": "yes", "maxmemory-policy": "noeviction"}.items():
        said = up.compose("exec", "-T", "redis", "sh", "-c", f"{as_told} redis-cli config get {name}")
        assert said.split() == [name, value]


def test_workers_detach_in_time_and_records_outlive_the_containers(
    up: Project, make_guest: Callable[..., Guest]
) -> None:
    before = {record["id"] for record in up.vmferry("list")}
    up.compose("stop", *OURS)
    for service in OURS:
        assert up.inspect(service)["State"]["ExitCode"] == 0, up.logs(service)
    up.compose("down")
    assert up.engine.docker("ps", "--all", "--quiet") == ""
    up.compose("up", "--detach")
    assert {record["id"] for record in up.vmferry("list")} == before
    guest = make_guest("db-1", "beta", start="off")
    up.run("cd docker && docker compose exec control vmferry migrate db-1 --to alpha --wait")
    assert up.lab.states(guest.uuid)["alpha"] is not None
    assert up.lab.states(guest.uuid)["beta"] is None


def test_down_leaves_nothing_but_the_volume(up: Project) -> None:
    up.compose("down")
    assert up.engine.docker("ps", "--all", "--quiet") == ""
    assert up.engine.docker("network", "ls", "--quiet", "--filter", "type=custom") == ""
    assert sorted(up.engine.docker("volume", "ls", "--quiet").split()) == ["ferry_flower-state", "ferry_redis-data"]
