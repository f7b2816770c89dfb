"""Flower, started with our settings: nothing is open without credentials, memory is bounded, state is kept."""

from __future__ import annotations

import atexit
import ipaddress
import logging
import os
import signal
from pathlib import Path
from typing import Any

from celery import Celery
from flower.app import Flower, rewrite_handler
from flower.command import extract_settings, sigterm_handler
from flower.options import options
from flower.urls import settings as tornado_settings
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop

from config.logging import configure_logging
from config.settings import FlowerSettings, Settings
from tasks.client import Client
from tasks.model.errors import ConfigurationError
from tasks.monitor.access import Gate, NoFrames, Refusal
from tasks.monitor.events import MigrationEvents
from tasks.monitor.pages import handlers
from tasks.monitor.templates import OurLoader

log = logging.getLogger(__name__)

COLUMNS = "name,args,state,result,received,runtime,worker,uuid"
"""Of the page of tasks: what is moved from where to where, and how far it is, stand beside the name."""
PURGE_WORKERS_S = 3600
"""Workers that are gone for so long leave the metrics, so that restarts do not add up there."""


def run_flower(settings: Settings, app: Celery, *, insecure: bool = False) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: see ``check_access``; ``FLOWER_CANNOT_LISTEN``, ``FLOWER_STATE_UNWRITABLE``.
    """
    check_access(settings.flower, insecure=insecure)
    # Arguments and results of tasks are nobody else's business.
    os.umask(0o077)
    # Where nobody has to log in, Flower would open its API, to every page of the web, if somebody had set this.
    os.environ.pop("FLOWER_UNAUTHENTICATED_API", None)
    _set_options(settings.flower)
    extract_settings()
    configure_logging(settings)
    logging.getLogger("tornado.access").setLevel(logging.WARNING)  # pages renew themselves every few seconds
    client = Client(settings)
    flower = make_flower(settings.flower, app, client)
    atexit.register(flower.stop)
    signal.signal(signal.SIGTERM, sigterm_handler)
    try:
        port = flower.start_http_server()
    except OSError as error:
        where = f"{settings.flower.address}:{settings.flower.port}"
        message = f"cannot listen on {where}: {error.strerror}"
        raise ConfigurationError("FLOWER_CANNOT_LISTEN", message, "set [flower] address and port") from None
    scheme = "https" if settings.flower.certificate else "http"
    log.info("Flower: %s://%s:%s%s", scheme, settings.flower.address, port, settings.flower.url_prefix)
    try:
        flower.start()
    except (KeyboardInterrupt, SystemExit):
        pass
    finally:
        client.close()


def check_access(flower: FlowerSettings, *, insecure: bool) -> None:
    """Whoever can use Flower can send any task and stop any worker: it takes credentials, or must not be reachable.

    Raises:
        ConfigurationError: ``FLOWER_NEEDS_CREDENTIALS``, ``FLOWER_INSECURE_ADDRESS``.
    """
    if flower.credentials:
        return
    if not insecure:
        raise ConfigurationError(
            "FLOWER_NEEDS_CREDENTIALS",
            "Flower commands every worker, and no credentials are set",
            'set [flower] credentials = ["name:password"], or VMFERRY_FLOWER__CREDENTIALS=\'["name:password"]\'',
        )
    if not _is_loopback(flower.address):
        message = f"without credentials Flower listens on loopback addresses only, not on {flower.address}"
        raise ConfigurationError("FLOWER_INSECURE_ADDRESS", message, "set credentials, or address = 127.0.0.1")


class GatedFlower(Flower):
    """Flower behind a gate, in which many callers can wait for results at the same time; each occupies a thread."""

    max_workers = 64
    gate: Gate

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """The handler of the request, or the refusal."""
        if not self.gate.admits(request):
            return self.get_handler_delegate(request, Refusal)
        return super().find_handler(request, **kwargs)


def make_gate(flower: FlowerSettings) -> Gate:
    """Everything is closed but the health check, and the metrics where the settings open them."""
    paths = ("/healthcheck", "/metrics") if flower.metrics_open else ("/healthcheck",)
    known = tuple(secret.get_secret_value().encode() for secret in flower.credentials)
    names = None if known else frozenset({"localhost", "127.0.0.1", "::1", "[::1]", flower.address})
    return Gate(known, frozenset(flower.url_prefix.rstrip("/") + path for path in paths), names)


def make_flower(flower: FlowerSettings, app: Celery, client: Client) -> Flower:
    """Flower's application with our pages before its own."""
    loader = OurLoader(tornado_settings["template_path"], autoescape="xhtml_escape")
    events = MigrationEvents(
        app,
        io_loop=IOLoop.current(),
        db=options.db,
        persistent=options.persistent,
        state_save_interval=options.state_save_interval,
        max_workers_in_memory=options.max_workers,
        max_tasks_in_memory=options.max_tasks,
    )
    made = GatedFlower(capp=app, options=options, events=events, **(tornado_settings | {"template_loader": loader}))
    made.gate = make_gate(flower)
    made.add_transform(NoFrames)
    made.vmferry_client = client
    ours = [rewrite_handler(h, flower.url_prefix) if flower.url_prefix else h for h in handlers()]
    made.add_handlers(".*", ours)
    return made


def _set_options(flower: FlowerSettings) -> None:
    """Flower's options; those it would read from the environment or a file of its own have no say."""
    chosen: dict[str, Any] = {
        "address": flower.address,
        "port": flower.port,
        "basic_auth": [secret.get_secret_value() for secret in flower.credentials],
        "url_prefix": flower.url_prefix.strip("/") or None,
        "max_tasks": flower.max_tasks,
        "read_only": flower.read_only,
        "persistent": True,
        "db": str(_state_file(flower)),
        "state_save_interval": int(flower.save_interval_s * 1000),
        "tasks_columns": COLUMNS,
        "purge_offline_workers": PURGE_WORKERS_S,
    }
    if flower.certificate:
        chosen |= {"certfile": flower.certificate, "keyfile": flower.key}
    for name, value in chosen.items():
        setattr(options, name, value)


def _state_file(flower: FlowerSettings) -> Path:
    """Where the settings say; else systemd's state directory, else the user's."""
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    default = Path(os.environ.get("STATE_DIRECTORY") or Path(home) / "vmferry") / "flower"
    file = Path(flower.state_file or default)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{file.parent} cannot be made: {error.strerror}"
        raise ConfigurationError("FLOWER_STATE_UNWRITABLE", message, "set [flower] state_file") from None
    if not os.access(file.parent, os.W_OK):
        raise ConfigurationError("FLOWER_STATE_UNWRITABLE", f"{file.parent} is not writable", "set [flower] state_file")
    return file


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
