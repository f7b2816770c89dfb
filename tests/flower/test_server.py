"""The server: who is let in, what is kept, what it shows of migrations; no host is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from config.settings import load_settings
from tasks.client import Client
from tests.queue.harness import CHECKOUT, FlowerServer, RedisServer, Worker, wait_for
from tests.scenarios.stack import to_toml

HOSTS = {name: {"uri": f"qemu+unix:///system?socket=/nonexistent/{name}"} for name in ("alpha", "beta")}
PAGES = ("/", "/workers", "/tasks", "/broker", "/migrations", "/migrations/table", "/metrics", "/api/tasks")


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def config(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("flower") / "vmferry.toml"
    file.write_text(to_toml({"broker_url": redis.url, "hosts": HOSTS}))
    return file


@pytest.fixture(scope="module")
def client(config: Path) -> Iterator[Client]:
    with closing(Client(load_settings(config))) as made:
        yield made


@pytest.fixture(scope="module")
def flower(config: Path) -> Iterator[FlowerServer]:
    with FlowerServer(config) as server:
        yield server


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("credentials", ["", "ops:wrong", "ops", ":", "ops:secret2"])
def test_nothing_is_open(flower: FlowerServer, path: str, credentials: str) -> None:
    assert flower.get(path, credentials=credentials)[0] == 401


@pytest.mark.parametrize("path", [page for page in PAGES if page != "/"])
def test_who_has_credentials_is_let_in(flower: FlowerServer, path: str) -> None:
    assert flower.get(path)[0] == 200


def test_tasks_cannot_be_sent_without_credentials(flower: FlowerServer) -> None:
    for path in ("/api/task/send-task/tasks.migrate", "/migrations/cancel/m1", "/api/worker/shutdown/x"):
        assert flower.request("POST", path, {"args": []}, credentials="")[0] == 401


def test_a_page_elsewhere_cannot_use_the_browsers_credentials(flower: FlowerServer) -> None:
    """Fetch metadata say where a request comes from; no header lets other origins read the answer."""
    import http.client
    from base64 import b64encode

    connection = http.client.HTTPConnection("127.0.0.1", flower.port, timeout=15)
    headers = {"Authorization": f"Basic {b64encode(b'ops:secret').decode()}", "Sec-Fetch-Site": "cross-site"}
    for path in ("/migrations/cancel/m1", "/api/task/revoke/m1"):
        connection.request("POST", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 403
        assert answer.getheader("Access-Control-Allow-Origin") is None
    connection.close()


def test_the_password_is_in_no_process_list_and_in_no_log(flower: FlowerServer) -> None:
    assert "secret" not in Path(f"/proc/{flower.pid}/cmdline").read_text()
    assert "secret" not in flower.log()


def start(config: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CHECKOUT / "cli.py"), "flower", "--port", "0", *words]
    values = {"VMFERRY_CONFIG": str(config), "PATH": "/usr/bin:/bin", "HOME": str(config.parent), **env}
    return subprocess.run(command, env=values, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("words", "env", "code"),
    [
        ((), {}, "FLOWER_NEEDS_CREDENTIALS"),
        (("--insecure", "--address", "0.0.0.0"), {}, "FLOWER_INSECURE_ADDRESS"),
        (("--insecure", "--address", ""), {}, "FLOWER_INSECURE_ADDRESS"),
        ((), {"VMFERRY_FLOWER__CREDENTIALS": '["nopassword"]'}, "CONFIG_INVALID"),
        ((), {"VMFERRY_FLOWER__CREDENTIALS": '["a:b"]', "VMFERRY_FLOWER__CERTIFICATE": "/x"}, "CONFIG_INVALID"),
        (("--address", "192.0.2.1"), {"VMFERRY_FLOWER__CREDENTIALS": '["a:b"]'}, "FLOWER_CANNOT_LISTEN"),
        (
            (),
            {"VMFERRY_FLOWER__CREDENTIALS": '["a:b"]', "VMFERRY_FLOWER__STATE_FILE": "/proc/none/state"},
            "FLOWER_STATE_UNWRITABLE",
        ),
    ],
)
def test_refuses_to_start(config: Path, words: tuple[str, ...], env: dict[str, str], code: str) -> None:
    ended = start(config, *words, **env)
    assert ended.returncode == 2, ended.stderr
    assert f"error {code}" in ended.stderr
    assert "hint: " in ended.stderr
    assert "nopassword" not in ended.stderr


def test_insecure_on_loopback_is_allowed_and_its_api_stays_closed(config: Path) -> None:
    with FlowerServer(config, credentials="", extra=("--insecure",)) as server:
        assert server.get("/migrations")[0] == 200
        assert server.get("/api/tasks")[0] == 401


def test_metrics_can_be_opened_for_prometheus(config: Path) -> None:
    with FlowerServer(config, env={"VMFERRY_FLOWER__METRICS_OPEN": "true"}) as server:
        assert server.get("/metrics", credentials="")[0] == 200
        assert server.get("/tasks", credentials="")[0] == 401


def test_behind_a_proxy_with_a_path(config: Path) -> None:
    with FlowerServer(config, env={"VMFERRY_FLOWER__URL_PREFIX": "/flower"}) as server:
        wait_for(lambda: server.get("/flower/healthcheck")[0] == 200, "Flower")
        status, page = server.get("/flower/migrations")
        assert status == 200
        assert 'href="/flower/migrations"' in page
        assert 'data-table="/flower/migrations/table"' in page
        assert server.get("/flower/metrics", credentials="")[0] == 401


def test_why_a_migration_waits_is_shown(flower: FlowerServer, client: Client) -> None:
    """Nobody works on it: it is queued, has no task, and can be cancelled all the same."""
    record = client.submit({"vm": "<b>web&7", "destination": "beta", "source": "alpha"}, run_id="waits-1")
    status, page = flower.get("/migrations")
    assert status == 200
    assert "&lt;b&gt;web&amp;7" in page
    assert "<b>web" not in page
    assert "alpha → beta" in page
    assert 'href="/migrations"' in page
    status, said = flower.request("POST", f"/migrations/cancel/{record.id}")
    assert status == 200, said
    assert client.show(record.id).state == "cancelled"
    status, said = flower.request("POST", f"/migrations/cancel/{record.id}")
    assert (status, "ALREADY_FINISHED" in said) == (409, True)
    assert flower.request("POST", "/migrations/cancel/unknown")[0] == 409
    assert "CANCELLED: cancelled while it was queued" in flower.get("/migrations/table")[1]


def test_read_only(config: Path, client: Client) -> None:
    record = client.submit({"vm": "web-8", "destination": "beta", "source": "alpha"}, run_id="waits-2")
    with FlowerServer(config, env={"VMFERRY_FLOWER__READ_ONLY": "true"}) as server:
        assert server.request("POST", f"/migrations/cancel/{record.id}")[0] == 403
        assert "data-cancel" not in server.get("/migrations/table")[1]
    assert client.show(record.id).state == "queued"


def test_what_it_saw_survives_a_kill9_and_the_number_of_tasks_is_bounded(config: Path, tmp_path: Path) -> None:
    """A worker does 150 tasks; at most 100 are remembered, and these are still known after the crash."""
    env = {"VMFERRY_FLOWER__SAVE_INTERVAL_S": "1", "VMFERRY_FLOWER__MAX_TASKS": "100"}
    with FlowerServer(config, env=env, folder=tmp_path) as server, Worker(config, queues="vmferry"):

        def known() -> dict[str, str]:
            tasks = json.loads(server.get("/api/tasks?limit=1000")[1])
            return {task_id: task["state"] for task_id, task in tasks.items()}

        def all_done() -> bool:
            """Nothing more is heard of any: a late event would bring back one that had been forgotten."""
            return last in known() and set(known().values()) == {"FAILURE"}

        body = {"args": ["none"], "queue": "vmferry"}
        sent = [server.request("POST", "/api/task/send-task/tasks.show", body) for _ in range(150)]
        assert {status for status, _ in sent} == {200}
        last = json.loads(sent[-1][1])["task-id"]
        wait_for(all_done, "the last task", timeout_s=30)
        before = set(known())
        assert len(before) == 100
        saved = saved_at(tmp_path)
        wait_for(lambda: saved_at(tmp_path) > saved, "the state is saved", timeout_s=15)
        server.kill9()
        server.start()
        assert set(known()) == before
        server.request("POST", "/api/task/send-task/tasks.dispatch", {"queue": "vmferry"})
        server.request("POST", "/api/task/send-task/tasks.cancel", {"args": ["none"], "queue": "vmferry"})
        wait_for(lambda: "tasks.cancel" in server.get("/metrics")[1], "events", timeout_s=15)
        assert "tasks.dispatch" not in server.get("/metrics")[1], "housekeeping hides what matters"


def saved_at(folder: Path) -> int:
    file = folder / "state"
    return file.stat().st_mtime_ns if file.exists() else 0


def test_a_state_that_cannot_be_read_is_put_aside(config: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"half of it")
    with FlowerServer(config, folder=tmp_path) as server:
        assert server.get("/tasks")[0] == 200
        assert "cannot be read and is put aside" in server.log()
    assert (tmp_path / "state.corrupt").read_bytes() == b"half of it"
