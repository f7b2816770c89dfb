"""The guarded transport on every kind of Redis that the settings allow: results come back, poison is put aside."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from config.celery import POISON_KEY, STEPS_QUEUE
from tests.queue.conftest import Facts
from tests.queue.harness import Program, RedisServer, free_port, wait_for

pytestmark = pytest.mark.queue


PASSWORD = secrets.token_urlsafe(8) + "/:@ %"
"""Needs quoting in a URL."""


def assert_serves(server: RedisServer, url: str) -> None:
    facts = Facts(server, url)
    with facts.worker():
        facts.store.lpush(STEPS_QUEUE, "poison")
        assert facts.send("facts.work", "a").get(timeout=10) == "a"
        assert facts.store.lrange(POISON_KEY, 0, -1) == [b"poison"]
    facts.client.close()


def test_tcp_with_a_password() -> None:
    with RedisServer(address="127.0.0.1", password=PASSWORD) as server:
        assert_serves(server, server.tcp_url)


def test_a_unix_socket_with_a_password() -> None:
    with RedisServer(password=PASSWORD) as server:
        assert_serves(server, server.url.replace("redis+socket", "unix").replace("virtual_host", "db"))


@contextmanager
def tls_server(folder: Path) -> Iterator[tuple[RedisServer, int]]:
    """Redis with a certificate of its own for 127.0.0.1; the server and its TLS port."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=redis"
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "cert"), "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    port = free_port()
    options = {
        "tls-port": str(port),
        "tls-cert-file": str(folder / "cert"),
        "tls-key-file": str(folder / "key"),
        "tls-ca-cert-file": str(folder / "cert"),
        "tls-auth-clients": "no",
    }
    with RedisServer(options=options) as server:
        yield server, port


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_tls_with_the_servers_certificate_known(tmp_path: Path) -> None:
    with tls_server(tmp_path) as (server, port):
        assert_serves(server, f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path / 'cert'}")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_tls_refuses_a_server_that_nobody_vouches_for(tmp_path: Path) -> None:
    with tls_server(tmp_path) as (server, port):
        worker = Facts(server, f"rediss://127.0.0.1:{port}/0").worker()
        try:
            worker.start(ready=False)
            worker.wait_log("CERTIFICATE_VERIFY_FAILED")
            assert " ready." not in worker.log()
        finally:
            worker.stop()


def test_sentinel(tmp_path: Path) -> None:
    port = free_port()
    with RedisServer(address="127.0.0.1") as server:
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f"dir {tmp_path}",
            f"sentinel monitor mymaster 127.0.0.1 {server.port} 1",
        ]
        (tmp_path / "sentinel.conf").write_text("\n".join(lines) + "\n")
        with Program("sentinel", ["redis-server", str(tmp_path / "sentinel.conf"), "--sentinel"]) as sentinel:
            wait_for(lambda: "+monitor master mymaster" in sentinel.log(), "sentinel")
            assert_serves(server, f"sentinel://127.0.0.1:{port}/0")
