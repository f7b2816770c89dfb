"""Private redis-server, Celery worker and beat processes, for tests that kill them.

Every process is the leader of its own process group, is ended by its id, and dies with the test process. ``prefix``
is put before the command, such as ``("ip", "netns", "exec", "hub")``; it must exec in place, so that the id stays the
program's own.
"""

from __future__ import annotations

import base64
import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import quote

import redis

CHECKOUT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 30.0
POLL_S = 0.02

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def wait_for(condition: Callable[[], object], what: str, *, timeout_s: float = 10.0) -> None:
    """Poll ``condition`` until it is true.

    Raises:
        TimeoutError: it was not within ``timeout_s``; ``what`` says what was waited for.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} not within {timeout_s} s")
        time.sleep(POLL_S)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Program:
    """A subprocess with a log file; leaving the ``with`` block kills its whole group.

    ``folder`` holds the log and the program's files and is kept; None: a temporary one, removed by ``stop``.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._keep_folder = folder is not None
        self.folder = folder if folder is not None else Path(tempfile.mkdtemp(prefix=f"vmferry-{name}-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log_path = self.folder / f"{name}.log"
        self._command = list(command)
        self._env = dict(env) if env is not None else None
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id; the group has the same.

        Raises:
            RuntimeError: not started.
        """
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll() if self._process else None

    @property
    def running(self) -> bool:
        """Started and not ended."""
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """Everything it wrote so far, over all its starts."""
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""

    def log_tail(self, characters: int = 4000) -> str:
        """The end of the log."""
        return self.log()[-characters:]

    def wait_log(self, text: str, *, timeout_s: float = 10.0, since: int = 0) -> None:
        """Wait until ``text`` is in the log after position ``since``.

        Raises:
            TimeoutError: it is not; the end of the log is in the message.
        """
        try:
            wait_for(lambda: text in self.log()[since:] or not self.running, f"{text!r}", timeout_s=timeout_s)
        except TimeoutError as error:
            raise TimeoutError(f"{self.name}: {error}\n{self.log_tail()}") from None
        if text not in self.log()[since:]:
            raise TimeoutError(f"{self.name} ended ({self.exit_code}) without {text!r}\n{self.log_tail()}")

    def start(self, *, ready: bool = True) -> Self:
        """Start it; returns once it is ready, or at once when it is not expected to get ready."""
        position = len(self.log())
        self._log = self.log_path.open("ab")
        self._process = subprocess.Popen(
            self._command,
            cwd=CHECKOUT,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        if ready:
            self._wait_ready(position)
        return self

    def _wait_ready(self, position: int) -> None:
        """Nothing to wait for, unless a subclass knows better."""

    def send_signal(self, number: signal.Signals) -> None:
        """Send it to the main process only."""
        os.kill(self.pid, number)

    def kill9(self) -> None:
        """SIGKILL for the main process and all its children; returns when it is gone."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        if self._log:
            self._log.close()

    def wait(self, timeout_s: float = 10.0) -> int:
        """Wait for its end; the exit code.

        Raises:
            TimeoutError: it still runs.
        """
        assert self._process is not None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} still runs\n{self.log_tail()}") from None

    def term(self, timeout_s: float = 10.0) -> float:
        """SIGTERM, as an upgrade does; seconds until it had ended.

        Raises:
            TimeoutError: it still runs.
        """
        began = time.monotonic()
        self.send_signal(signal.SIGTERM)
        self.wait(timeout_s)
        return time.monotonic() - began

    def stop(self) -> None:
        """Kill what is left of it and remove its temporary folder."""
        self.kill9()
        if not self._keep_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer(Program):
    """redis-server as vmferry wants it (AOF every second, noeviction), on a unix socket and, if asked, a TCP address.

    Args:
        folder: of its data, socket and log; None: a temporary one. A socket's path has at most 107 characters.
        address: listen on this address too; None: on the unix socket only.
        port: of ``address``; 0: any free one of this network namespace.
        password: what clients must say; the URLs contain it.
        prefix: command in front, such as one that enters a network namespace.
        options: further settings of redis-server.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        address: str | None = None,
        port: int = 0,
        password: str | None = None,
        prefix: Sequence[str] = (),
        options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__("redis", (), folder=folder)
        self.address = address
        self.port = 0 if address is None else port or free_port("127.0.0.1")
        self.password = password
        self.socket_path = self.folder / "redis.sock"
        settings = {
            "dir": str(self.folder),
            "unixsocket": str(self.socket_path),
            "bind": address or "127.0.0.1",
            "port": str(self.port),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            **({"requirepass": password} if password else {}),
            **(options or {}),
        }
        arguments = [part for key, value in settings.items() for part in (f"--{key}", value)]
        self._command = [*prefix, "redis-server", *arguments]

    def _wait_ready(self, position: int) -> None:  # noqa: ARG002
        def answers() -> bool:
            if not self.running:
                raise RuntimeError(f"redis-server ended ({self.exit_code})\n{self.log_tail()}")
            try:
                return bool(self.client().ping())
            except redis.RedisError:
                return False

        wait_for(answers, "redis-server", timeout_s=START_TIMEOUT_S)

    def client(self, db: int = 0) -> redis.Redis:
        """A client that returns bytes, through the unix socket."""
        return redis.Redis(unix_socket_path=str(self.socket_path), password=self.password, db=db)

    @property
    def url(self) -> str:
        """The broker URL of db 0, through the unix socket."""
        return f"redis+socket://{self._credentials}{self.socket_path}?virtual_host=0"

    @property
    def _credentials(self) -> str:
        return f"default:{quote(self.password, safe='')}@" if self.password else ""

    @property
    def tcp_url(self) -> str:
        """The broker URL of db 0, through TCP.

        Raises:
            RuntimeError: it has no TCP address.
        """
        if self.address is None:
            raise RuntimeError("started without an address")
        return f"redis://{self._credentials}{self.address}:{self.port}/0"

    def client_kill_all(self) -> None:
        """Close every client's connection, normal and pubsub: what clients see of a network blip."""
        client = self.client()
        for kind in ("normal", "pubsub"):
            client.client_kill_filter(_type=kind, skipme=True)

    def kill(self) -> None:
        """SIGKILL; the data stays in the folder."""
        self.kill9()
        self.socket_path.unlink(missing_ok=True)

    def restart(self, away_s: float = 0.0) -> None:
        """Kill it if it runs, and start it again on the same data and addresses after ``away_s`` seconds."""
        self.kill()
        time.sleep(away_s)
        self.start()


class Worker(Program):
    """A Celery worker process.

    Args:
        config_path: becomes VMFERRY_CONFIG; None when the app needs none.
        queues: name or names of the queues that it takes messages from.
        concurrency: slots.
        name: part of its node name, before the @.
        pool: ``threads`` as in production, or another of Celery's.
        app: module of the Celery app.
        env: variables added to this process's environment.
        prefix: command in front, such as one that enters a network namespace.
        extra: further arguments.
        folder: of its log; None: a temporary one.
    """

    def __init__(
        self,
        config_path: Path | None = None,
        *,
        queues: str | Sequence[str] = ("vmferry", "vmferry.steps"),
        concurrency: int = 4,
        name: str = "worker",
        pool: str = "threads",
        app: str = "tasks.app",
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        extra: Sequence[str] = ("--without-mingle", "--without-gossip"),
        folder: Path | None = None,
    ) -> None:
        self.queues = queues
        named = queues if isinstance(queues, str) else ",".join(queues)
        command = [*_celery(prefix, app), "worker", "--pool", pool, "--concurrency", str(concurrency)]
        command += ["--queues", named, "--hostname", f"{name}@%h", "--loglevel", "INFO", *extra]
        super().__init__(name, command, folder=folder, env=_environment(config_path, env))

    def _wait_ready(self, position: int) -> None:
        self.wait_log(" ready.", timeout_s=START_TIMEOUT_S, since=position)


class Beat(Program):
    """A Celery beat process; the arguments are those of Worker."""

    def __init__(
        self,
        config_path: Path | None = None,
        folder: Path | None = None,
        *,
        name: str = "beat",
        app: str = "tasks.app",
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        command = [*_celery(prefix, app), "beat", "--loglevel", "INFO"]
        super().__init__(name, command, folder=folder, env=_environment(config_path, env))

    def _wait_ready(self, position: int) -> None:
        self.wait_log("beat: Starting", timeout_s=START_TIMEOUT_S, since=position)


def _celery(prefix: Sequence[str], app: str) -> list[str]:
    return [*prefix, sys.executable, "-m", "celery", "--app", app]


def _environment(config_path: Path | None, added: Mapping[str, str] | None) -> dict[str, str]:
    env: dict[str, Any] = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(CHECKOUT)}
    if config_path is not None:
        env["VMFERRY_CONFIG"] = str(config_path)
    return {**env, **(added or {})}


class FlowerServer(Program):
    """``vmferry flower`` on a free port.

    Args:
        config_path: becomes VMFERRY_CONFIG.
        credentials: ``name:password``; empty: none, which needs ``--insecure`` among ``extra``.
        state: file in which it keeps what it knows.
        env: further variables of the environment.
    """

    def __init__(
        self,
        config_path: Path,
        *,
        credentials: str = "ops:secret",
        state: Path | None = None,
        env: Mapping[str, str] | None = None,
        extra: Sequence[str] = (),
        folder: Path | None = None,
    ) -> None:
        command = [sys.executable, str(CHECKOUT / "cli.py"), "flower", "--port", "0", *extra]
        super().__init__("flower", command, folder=folder)
        self.credentials = credentials
        added = {"VMFERRY_FLOWER__STATE_FILE": str(state or self.folder / "state")}
        if credentials:
            added["VMFERRY_FLOWER__CREDENTIALS"] = json.dumps([credentials])
        self._env = _environment(config_path, added | dict(env or {}))
        self.port = 0

    def _wait_ready(self, position: int) -> None:
        self.wait_log("Flower: http", timeout_s=START_TIMEOUT_S, since=position)
        line = next(line for line in self.log()[position:].splitlines() if "Flower: http" in line)
        self.port = int(line.rsplit(":", 1)[1].split("/", 1)[0])
        wait_for(lambda: self.get("/healthcheck")[0] != 0, "Flower", timeout_s=START_TIMEOUT_S)

    def get(self, path: str, *, credentials: str | None = None) -> tuple[int, str]:
        """Status and body of a page; ``credentials`` other than its own, or ``""`` for none."""
        return self.request("GET", path, credentials=credentials)

    def request(self, method: str, path: str, body: Any = None, *, credentials: str | None = None) -> tuple[int, str]:
        """Status and body of a request; ``body`` is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        said = self.credentials if credentials is None else credentials
        headers = {"Authorization": f"Basic {base64.b64encode(said.encode()).decode()}"} if said else {}
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()
