"""Submit, look, cancel and retry from Python: what ``cli.py`` uses, and what other Python programs may use."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from config.celery import celery_settings
from config.settings import Settings
from tasks.messages import CeleryMessenger
from tasks.model.domain import DomainView
from tasks.model.errors import HypervisorError, InvalidRequest, StoreUnavailable
from tasks.model.host import HostStatus
from tasks.model.plan import Plan
from tasks.model.request import parse_id, parse_request
from tasks.model.run import RunRecord
from tasks.steps.survey import survey
from tasks.wiring import build_runtime
from tasks.workflow import cancel, check_inventory, retry, submit


class Client:
    """One connection to the queue and, for looking, to the hosts.

    Every method may raise ``StoreUnavailable``.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app = Celery("vmferry-client", set_as_current=False)
        self._app.conf.update(celery_settings(settings))
        # A person waits for the answer: a broker that is away is an error after a moment, not something to sit out.
        self._app.conf.task_publish_retry_policy = {"max_retries": 2, "interval_start": 0, "interval_max": 0.5}
        self._runtime = build_runtime(settings, self._app)
        self._messenger = CeleryMessenger(self._app)

    def submit(self, values: dict[str, Any], *, run_id: str | None = None) -> RunRecord:
        """Write the record of a migration, then wake the dispatcher up.

        Raises:
            InvalidRequest: see ``tasks.workflow.submit``.
        """
        self._runtime.store.ping()
        record = submit(self._runtime, values, str(uuid.uuid4()) if run_id is None else run_id)
        self._wake()
        return record

    def show(self, run_id: str) -> RunRecord:
        """The run record.

        Raises:
            UnknownMigration
        """
        return self._runtime.store.load(parse_id(run_id))

    def list_runs(self, *, limit: int = 1000) -> list[RunRecord]:
        """The newest migrations first."""
        return self._runtime.store.list_runs(limit=limit)

    def cancel(self, run_id: str) -> RunRecord:
        """Ask for a migration to be cancelled and rolled back; returns before that has happened.

        Raises:
            UnknownMigration
            InvalidRequest: ``ALREADY_FINISHED``, ``TOO_LATE``.
        """
        record = cancel(self._runtime, parse_id(run_id))
        self._wake()
        return record

    def retry(self, run_id: str) -> RunRecord:
        """Try a finished migration again under its id.

        Raises:
            UnknownMigration
            InvalidRequest: ``NOT_RETRYABLE``.
        """
        record = retry(self._runtime, parse_id(run_id))
        self._wake()
        return record

    def watch(self, run_id: str, *, period_s: float = 0.5) -> Iterator[RunRecord]:
        """The record each time it has changed, until the migration has ended."""
        seen = -1
        while True:
            record = self.show(run_id)
            if record.rev != seen:
                seen = record.rev
                yield record
            if record.is_terminal:
                return
            time.sleep(period_s)

    def plan(self, values: dict[str, Any]) -> Plan:
        """A dry run: looks at the hosts, changes nothing, needs no queue.

        Raises:
            InvalidRequest, HypervisorError
        """
        request = parse_request(values)
        check_inventory(self._runtime, request)
        return survey(self._runtime.hypervisor, self._runtime.hosts, request)

    def hosts(self) -> list[HostStatus]:
        """The inventory, each host looked at."""
        with ThreadPoolExecutor(max_workers=16) as pool:
            return list(pool.map(self._host, self._settings.hosts))

    def vms(self, host: str | None = None) -> tuple[list[DomainView], dict[str, str]]:
        """All VMs of one host or of all; beside them the hosts that could not be asked, and why.

        Raises:
            InvalidRequest: ``UNKNOWN_HOST``.
        """
        if host is not None and host not in self._settings.hosts:
            known = ", ".join(self._settings.hosts) or "none"
            raise InvalidRequest("UNKNOWN_HOST", f"{host} is not in the inventory", f"known hosts: {known}")
        names = [host] if host else list(self._settings.hosts)
        with ThreadPoolExecutor(max_workers=16) as pool:
            answers = list(zip(names, pool.map(self._vms_of, names), strict=True))
        views = [view for _, answer in answers if not isinstance(answer, HypervisorError) for view in answer]
        return views, {name: answer.message for name, answer in answers if isinstance(answer, HypervisorError)}

    def prune(self) -> list[str]:
        """Forget finished records past their retention; returns their ids."""
        store = self._runtime.store
        return store.prune(before=store.now() - self._settings.retention_s)

    def close(self) -> None:
        """Close all connections."""
        self._runtime.hypervisor.close()
        self._app.close()

    def _wake(self) -> None:
        """The record is written; when this message is lost the periodic dispatcher finds it."""
        try:
            self._messenger.send_dispatch()
        except OperationalError as error:
            raise StoreUnavailable(
                "BROKER_UNREACHABLE", f"the broker does not answer: {error}", "check broker_url"
            ) from None

    def _vms_of(self, host: str) -> list[DomainView] | HypervisorError:
        try:
            return list(self._runtime.hypervisor.list_domains(host))
        except HypervisorError as error:
            return error

    def _host(self, name: str) -> HostStatus:
        host = self._settings.hosts[name]
        status = HostStatus(name, reachable=False, max_outgoing=host.max_outgoing, max_incoming=host.max_incoming)
        try:
            used = self._runtime.store.tokens_in_use([f"out:{name}", f"in:{name}"])
            status = replace(status, outgoing=used[f"out:{name}"], incoming=used[f"in:{name}"])
        except StoreUnavailable:
            pass  # the inventory is worth showing without the queue
        try:
            facts = self._runtime.hypervisor.fetch_facts(name)
            views = self._runtime.hypervisor.list_domains(name)
        except HypervisorError as error:
            return replace(status, error=error.message)
        running = sum(view.active for view in views)
        return replace(status, reachable=True, facts=facts, running_vms=running, defined_vms=len(views))
