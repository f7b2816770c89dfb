"""From settings to the real store, hypervisor and Celery app; one runtime a process, built when first needed."""

from __future__ import annotations

import logging
import threading

from celery import Celery

from config.settings import Settings
from tasks.hypervisor.adapter import LibvirtHypervisor
from tasks.hypervisor.address import HostAddress
from tasks.messages import CeleryMessenger
from tasks.model.errors import HypervisorError
from tasks.store import (
    CordonStore,
    DrainStore,
    EventStore,
    QueueStore,
    RateStore,
    RunStore,
    ShareStore,
    TurnStore,
    WebhookStore,
    connect,
)
from tasks.workflow import Runtime

log = logging.getLogger(__name__)

_lock = threading.Lock()
_runtime: Runtime | None = None


def build_runtime(settings: Settings, app: Celery) -> Runtime:
    """A runtime on the real libvirt and the real Redis; connects to neither yet."""
    client = connect(settings.record_url or settings.broker_url, sentinel_master=settings.sentinel_master)
    addresses = {
        name: HostAddress(uri=host.uri, peer_uri=host.peer_uri, migration_address=host.migration_address)
        for name, host in settings.hosts.items()
    }
    return Runtime(
        settings=settings,
        store=RunStore(client, retention_s=settings.retention_s, events_kept=settings.events_kept),
        queue=QueueStore(client),
        cordons=CordonStore(client),
        events=EventStore(client),
        drains=DrainStore(client, retention_s=settings.retention_s, events_kept=settings.events_kept),
        turns=TurnStore(client),
        shares=ShareStore(client),
        webhooks=WebhookStore(client),
        rates=RateStore(client, retention_s=settings.retention_s),
        hypervisor=LibvirtHypervisor(addresses, connect_timeout_s=settings.connect_timeout_s),
        messenger=CeleryMessenger(app),
    )


def worker_runtime() -> Runtime:
    """This worker process's runtime."""
    global _runtime
    with _lock:
        if _runtime is None:
            from tasks.app import app, settings

            _runtime = build_runtime(settings, app)
        return _runtime


def warm_up(runtime: Runtime) -> None:
    """Open a connection to every host before the first step needs it: over SSH that takes half a second each.

    A host that does not answer now is no error; whoever needs it will say so.
    """

    def look(host: str) -> None:
        try:
            runtime.hypervisor.fetch_facts(host)
        except HypervisorError as error:
            log.info("%s does not answer yet: %s", host, error.message)

    for host in runtime.hosts:
        threading.Thread(target=look, args=(host,), name=f"warm-up-{host}", daemon=True).start()
