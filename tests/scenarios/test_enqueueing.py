"""Every example of docs/enqueueing.md, as it stands, against the lab's hosts; and what the ACL's users may not do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis as redis_client
from celery import Celery

from config.settings import load_settings
from tasks.client import Client
from tasks.model.errors import StoreUnavailable, VmferryError
from tasks.model.run import State
from tests.lab import Guest, Lab
from tests.queue.harness import FlowerServer, RedisServer
from tests.scenarios.stack import REPOSITORY, Stack, stack, to_toml, until

pytestmark = pytest.mark.lab

PAGE = REPOSITORY / "docs" / "enqueueing.md"
ADDRESS = "127.0.0.1"


def example(name: str) -> str:
    """The code block below a marking comment."""
    found = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"docs/enqueueing.md has no example called {name}"
    return found[1]


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Redis on TCP with a password, as an installation has it."""
    folder = tmp_path_factory.mktemp("enqueueing")
    server = RedisServer(address=ADDRESS, password="all", port=0)  # noqa: S106
    with stack(lab, folder, policies={"slow": {"bandwidth_mib_s": 2}}, redis=server) as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def flower(running: Stack) -> Iterator[FlowerServer]:
    with FlowerServer(running.config) as server:
        yield server


@pytest.fixture
def web(make_guest: Callable[..., Guest]) -> Guest:
    guest = make_guest("web-1", fill_mib=8)
    guest.wait_ticking()
    return guest


def run(running: Stack, flower: FlowerServer | None, *command: str) -> str:
    """Run an example with the page's variables set."""
    env = {"PATH": os.environ["PATH"], "HOME": str(running.folder), "BROKER_URL": running.redis.tcp_url}
    if flower is not None:
        env |= {"FLOWER": f"http://{ADDRESS}:{flower.port}", "FLOWER_USER": flower.credentials}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_example_is_run_here() -> None:
    named = re.findall(r"<!-- (.+?) -->", PAGE.read_text(encoding="utf-8"))
    assert named == ["curl enqueue", "curl wait", "curl cancel", "python", "shell", "acl"]


def test_curl(running: Stack, flower: FlowerServer, web: Guest) -> None:
    for _ in range(2):  # the second is the same migration
        assert json.loads(run(running, flower, "sh", "-c", example("curl enqueue")))["task-id"] == "nightly-web-1"
    assert run(running, flower, "sh", "-c", example("curl wait")) == "moved\n"
    assert running.client.show("nightly-web-1").state is State.SUCCEEDED
    web.wait_ticking("beta")


def test_curl_says_why_not(running: Stack, flower: FlowerServer) -> None:
    script = example("curl enqueue").replace("nightly-web-1", "none-1").replace("web-1", "no-such-vm")
    run(running, flower, "sh", "-c", script)
    said = run(running, flower, "sh", "-c", example("curl wait").replace("nightly-web-1", "none-1"))
    assert said.startswith("not moved: ")
    assert "VM_NOT_FOUND" in said


def test_curl_cancel(running: Stack, flower: FlowerServer, make_guest: Callable[..., Guest]) -> None:
    guest = make_guest("web-1", fill_mib=24)
    guest.wait_ticking()
    running.client.submit({"vm": "web-1", "destination": "beta", "policy": "slow"}, run_id="cancel-web-1")
    running.wait_state("cancel-web-1", State.TRANSFERRING)
    run(running, flower, "sh", "-c", example("curl cancel").replace("nightly-web-1", "cancel-web-1"))
    assert running.wait_end("cancel-web-1").state is State.CANCELLED
    said = run(running, flower, "sh", "-c", example("curl wait").replace("nightly-web-1", "cancel-web-1"))
    assert "CANCELLED" in said


def test_python(running: Stack, web: Guest, tmp_path: Path) -> None:
    script = tmp_path / "plain.py"
    script.write_text(example("python"), encoding="utf-8")
    said = run(running, None, sys.executable, "-I", str(script)).splitlines()
    assert said[0].startswith("moved: alpha → beta in ")
    assert said[1] == "succeeded {'ticket': 'OPS-17'}"
    web.wait_ticking("beta")


def test_a_shell_and_redis_cli(running: Stack, web: Guest) -> None:
    assert '"status": "SUCCESS"' in run(running, None, "sh", "-c", example("shell"))
    assert running.client.show("by-hand-1").state is State.SUCCEEDED
    web.wait_ticking("beta")


# -- the ACL ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def users(running: Stack) -> dict[str, str]:
    """The URLs of the recipe's users."""
    run(running, None, "sh", "-c", example("acl"))
    place = running.redis.tcp_url.rsplit("@", 1)[1]
    return {name: f"redis://{name}:{name}-secret@{place}" for name in ("enqueue", "look")}


def ask(url: str, *command: str) -> object:
    with closing(redis_client.Redis.from_url(url)) as client:
        return client.execute_command(*command)  # type: ignore[no-untyped-call]


def test_who_may_enqueue_can_enqueue_and_wait(running: Stack, users: dict[str, str], web: Guest) -> None:
    app = Celery("elsewhere", broker=users["enqueue"], backend=users["enqueue"], set_as_current=False)
    with closing(app):
        job = app.send_task("tasks.migrate", kwargs={"vm": web.name, "destination": "beta"}, queue="vmferry")
        assert job.get(timeout=60)["state"] == "succeeded"
        with pytest.raises(Exception, match="UNKNOWN_ID"):
            app.send_task("tasks.show", args=["nobody"], queue="vmferry").get(timeout=20)
    denied = ask(running.redis.tcp_url, "ACL LOG")
    assert denied == [], f"the recipe forbids something that Celery needs: {denied}"


FORBIDDEN: dict[str, list[tuple[str, ...]]] = {
    "enqueue": [
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("KEYS", "*"),
        ("LRANGE", "vmferry", "0", "-1"),
        ("RPOP", "vmferry"),
        ("LPUSH", "vmferry.steps", "x"),
        ("PUBLISH", "/0.celery.pidbox", "x"),
        ("GET", "vmferry:run:x"),
        ("DEL", "celery-task-meta-x"),
        ("SET", "vmferry:lock:vm:x", "x"),
        ("EVAL", "return 1", "0"),
    ],
    "look": [
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("KEYS", "*"),
        ("LPUSH", "vmferry", "x"),
        ("LRANGE", "vmferry", "0", "-1"),
        ("SET", "vmferry:run:x", "x"),
        ("DEL", "vmferry:run:x"),
        ("PUBLISH", "/0.celery.pidbox", "x"),
        ("EVAL", "return 1", "0"),
    ],
}


@pytest.mark.parametrize(("user", "command"), [(user, command) for user, some in FORBIDDEN.items() for command in some])
def test_what_is_forbidden(users: dict[str, str], user: str, command: tuple[str, ...]) -> None:
    with pytest.raises(redis_client.exceptions.NoPermissionError):
        ask(users[user], *command)


def test_who_may_only_look_sees_everything_and_changes_nothing(
    running: Stack, users: dict[str, str], make_guest: Callable[..., Guest]
) -> None:
    guest = make_guest("web-1", start="off", disk=None, network=False)
    moved = running.wait_end(running.client.submit({"vm": guest.name, "destination": "beta"}).id)
    config = running.folder / "look.toml"
    hosts = running.lab.inventory("tcp")
    config.write_text(to_toml({"broker_url": users["look"], "hosts": hosts}))
    with closing(Client(load_settings(config))) as looking:
        assert looking.show(moved.id) == moved
        assert moved.id in [record.id for record in looking.list_runs()]
        assert [record.state for record in looking.watch(moved.id)] == [State.SUCCEEDED]
        for change in (
            lambda: looking.submit({"vm": guest.name, "destination": "gamma"}),
            lambda: looking.cancel(moved.id),
            lambda: looking.retry(moved.id),
        ):
            with pytest.raises(VmferryError) as refused:
                change()  # type: ignore[no-untyped-call]
            assert refused.value.hint
        with pytest.raises(StoreUnavailable, match="permission"):
            looking.submit({"vm": guest.name, "destination": "gamma"}, run_id="must-not-be")
    assert "must-not-be" not in [record.id for record in running.client.list_runs()]
    until(lambda: running.client.show(moved.id) == moved, 5, "the record was changed")
