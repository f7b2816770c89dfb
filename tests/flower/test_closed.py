"""What other people's pages, and people without the password, could try."""

from __future__ import annotations

import http.client
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from config.settings import load_settings
from tasks.client import Client
from tests.queue.harness import FlowerServer, RedisServer
from tests.scenarios.stack import to_toml

HOSTS = {name: {"uri": f"qemu+unix:///system?socket=/nonexistent/{name}"} for name in ("alpha", "beta")}
ELSEWHERE = [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://elsewhere.example"}, {"Host": "elsewhere.example"}]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with RedisServer() as server:
        file = tmp_path_factory.mktemp("closed") / "vmferry.toml"
        file.write_text(to_toml({"broker_url": server.url, "hosts": HOSTS}))
        yield file


@pytest.fixture(scope="module")
def client(config: Path) -> Iterator[Client]:
    with closing(Client(load_settings(config))) as made:
        yield made


def ask(
    server: FlowerServer, method: str, path: str, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str]]:
    """Status and headers of the answer; what is sent is said in ``headers`` alone."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=15)
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def basic(login: str) -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(login.encode()).decode()}"}


@pytest.fixture(scope="module")
def open_flower(config: Path) -> Iterator[FlowerServer]:
    # What opens Flower's API to every page of the web when nobody has to log in.
    env = {"FLOWER_UNAUTHENTICATED_API": "true"}
    with FlowerServer(config, credentials="", extra=("--insecure",), env=env) as server:
        yield server


@pytest.mark.parametrize("headers", ELSEWHERE, ids=lambda headers: next(iter(headers)))
def test_without_a_login_another_sites_page_cannot_cancel(
    open_flower: FlowerServer, client: Client, headers: dict[str, str]
) -> None:
    run_id = f"nightly-{next(iter(headers))}"
    client.submit({"vm": run_id, "destination": "beta", "source": "alpha"}, run_id=run_id)
    assert ask(open_flower, "POST", f"/migrations/cancel/{run_id}", headers)[0] in (401, 403)
    assert client.show(run_id).state == "queued"


def test_without_a_login_another_sites_page_cannot_read(open_flower: FlowerServer) -> None:
    """Neither by a header that lets it, nor under a name that was made to point at this machine."""
    for path in ("/tasks", "/migrations/table", "/api/tasks"):
        _, headers = ask(open_flower, "GET", path, {"Origin": "http://elsewhere.example"})
        assert not [name for name in headers if name.startswith("access-control")], path
    for path in ("/tasks", "/migrations", "/migrations/table", "/metrics", "/workers?json=1"):
        assert ask(open_flower, "GET", path, {"Host": "elsewhere.example"})[0] in (401, 403), path
        assert ask(open_flower, "GET", path, {"Host": f"localhost:{open_flower.port}"})[0] == 200, path


def test_without_a_login_the_api_stays_closed(open_flower: FlowerServer) -> None:
    for path in ("/api/task/send-task/tasks.migrate", "/api/task/revoke/x", "/api/worker/shutdown/x"):
        assert ask(open_flower, "POST", path)[0] in (401, 403), path


def test_nothing_can_be_shown_inside_another_sites_page(config: Path) -> None:
    """Where a visitor's click could be led onto Terminate or Cancel."""
    with FlowerServer(config) as server:
        for path in ("/tasks", "/migrations", "/workers"):
            assert ask(server, "GET", path, basic(server.credentials))[1].get("x-frame-options") == "DENY", path


@pytest.mark.parametrize("login", ["ops:pässwort", "öps:secret", "\N{SNOWMAN}"])
def test_a_login_in_any_script_is_refused_like_another(config: Path, login: str) -> None:
    with FlowerServer(config) as server:
        for path in ("/tasks", "/migrations", "/metrics", "/api/tasks"):
            assert ask(server, "GET", path, basic(login))[0] == 401, path
        assert "Traceback" not in server.log()


def test_a_password_that_could_never_be_given_is_refused_at_start(config: Path) -> None:
    server = FlowerServer(config, credentials="ops:pässwort")
    try:
        server.start(ready=False)
        assert server.wait(30) == 2
        assert "CONFIG_INVALID" in server.log()
        assert "sswort" not in server.log()
    finally:
        server.stop()


def test_every_path_of_flower_but_the_health_check_asks_for_the_login(config: Path) -> None:
    from flower.urls import handlers

    patterns = [h.regex.pattern if hasattr(h, "regex") else h[0] for h in handlers]
    paths = {p.rstrip("$").replace("(.+)", "x").replace("(.*)", "js/flower.js").replace("/?", "") for p in patterns}
    paths = {path for path in paths if not path.startswith((".", "/static", "/login", "/logout"))}
    with FlowerServer(config) as server:
        let_in = {
            (m, path) for path in paths for m in ("GET", "POST") if ask(server, m, path)[0] not in (401, 403, 405)
        }
    assert let_in == {("GET", "/healthcheck")}
