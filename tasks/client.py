"""Submit, look, cancel and retry from Python: what ``cli.py`` uses, and what other Python programs may use."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from celery import Celery
from kombu.exceptions import OperationalError
from pydantic import ValidationError

from config.celery import celery_settings
from config.settings import Settings
from tasks.messages import CeleryMessenger
from tasks.model.cordon import Cordon
from tasks.model.domain import DomainView
from tasks.model.drain import DrainRecord
from tasks.model.errors import HostUnreachable, HypervisorError, InvalidRequest, StoreUnavailable
from tasks.model.event import Told
from tasks.model.host import HostFacts, HostStatus
from tasks.model.plan import Plan
from tasks.model.recurring import RecurringStatus
from tasks.model.report import Report
from tasks.model.request import parse_id
from tasks.model.run import RunRecord
from tasks.model.webhook import Delivery, Undelivered
from tasks.parallel import gather
from tasks.planning.draining import by_hand
from tasks.store.events import BEGINNING
from tasks.wiring import build_runtime
from tasks.workflow import (
    ask_drain,
    cancel,
    cancel_drain,
    last_drain_of,
    list_recurring,
    pause_drain,
    plan_drain,
    plan_migration,
    resume_drain,
    retry,
    retry_drain,
    submit,
)

T = TypeVar("T")

WAIT_FOR_EVENTS_S = 2.0
"""One wait for the next event; shorter than what Redis has to answer at all."""

HOSTS_AT_ONCE = 64
"""Those that hang do not make the others wait, up to this many."""
ANSWER_S = 20.0
"""Beyond the connect timeout, for a host that took the connection."""


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

    def current_runs(self, *, limit: int) -> list[RunRecord]:
        """What is under way, what waits and what is newest, each at most ``limit``; in no order.

        In the drain of a host those under way are the oldest, and not among the newest.
        """
        store = self._runtime.store
        found = [*store.active(limit=limit), *store.queued(limit=limit), *store.list_runs(limit=limit)]
        return list({record.id: record for record in found}.values())

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
        return plan_migration(self._runtime, values)

    def drain(self, values: dict[str, Any], *, drain_id: str | None = None) -> DrainRecord:
        """Ask for a host to be emptied; the same question again is the same drain.

        Raises:
            InvalidRequest: see ``tasks.workflow.ask_drain``.
        """
        record = ask_drain(self._runtime, values, str(uuid.uuid4()) if drain_id is None else drain_id)
        self._wake(drains=True)
        return record

    def plan_drain(self, values: dict[str, Any]) -> DrainRecord:
        """A dry run: what would become of each VM of a host.

        Raises:
            InvalidRequest, HypervisorError
        """
        return plan_drain(self._runtime, values)

    def last_drain_of(self, host: str) -> DrainRecord:
        """The newest drain of a host that moved VMs. Raises ``InvalidRequest`` (``NOTHING_TO_RETURN``)."""
        return last_drain_of(self._runtime, host)

    def find_drain(self, drain_id: str) -> DrainRecord | None:
        """The drain's record, None when there is no such drain."""
        return self._runtime.drains.find(drain_id)

    def list_drains(self, *, limit: int = 50) -> list[DrainRecord]:
        """The newest drains first."""
        return self._runtime.drains.newest(limit)

    def recurring_drains(self) -> list[RecurringStatus]:
        """Drains of the configuration, and when they begin."""
        return list_recurring(self._runtime)

    def watch_drain(
        self, drain_id: str, *, period_s: float = 0.5
    ) -> Iterator[tuple[DrainRecord, dict[str, RunRecord]]]:
        """The drain and its migrations, by their ids, again and again until it has ended."""
        while True:
            record = self._runtime.drains.load(drain_id)
            found = (self._runtime.store.find(vm.migration) for vm in record.vms if vm.migration)
            yield record, {run.id: run for run in found if run is not None}
            if record.is_ended:
                return
            time.sleep(period_s)

    def report(self, any_id: str) -> Report:
        """All that is known of a migration, or of a drain and all the migrations that it ever asked for.

        Raises:
            UnknownMigration
        """
        store = self._runtime.store
        drain = self.find_drain(parse_id(any_id))
        if drain is None:
            runs = [store.load(any_id)]
        else:
            ids = (drain.migration_id(number) for number in range(1, drain.asked + 1))
            runs = [run for run in map(store.find, ids) if run is not None]
        samples = {run.id: store.samples(run.id) for run in runs}
        return Report(id=any_id, made_at=store.now(), runs=runs, samples=samples, drain=drain)

    def pause_drain(self, drain_id: str) -> DrainRecord:
        """Let arrive what is under way, and start nothing new. Raises ``InvalidRequest`` (``NOT_RUNNING``)."""
        return pause_drain(self._runtime, drain_id)

    def resume_drain(self, drain_id: str) -> DrainRecord:
        """Go on. Raises ``InvalidRequest`` (``NOT_PAUSED``)."""
        record = resume_drain(self._runtime, drain_id)
        self._wake(drains=True)
        return record

    def cancel_drain(self, drain_id: str) -> DrainRecord:
        """End it, with what is queued or under way. Raises ``InvalidRequest`` (``ALREADY_FINISHED``)."""
        record = cancel_drain(self._runtime, drain_id)
        self._wake(drains=True)
        return record

    def retry_drain(self, drain_id: str) -> DrainRecord:
        """Look again, and try what did not move. Raises ``InvalidRequest`` (``NOT_RETRYABLE``)."""
        record = retry_drain(self._runtime, drain_id)
        self._wake(drains=True)
        return record

    def cordon(self, host: str, reason: str = "") -> Cordon:
        """Let nothing move to a host, from the next preflight on; what is on its way arrives.

        Raises:
            InvalidRequest: ``UNKNOWN_HOST``, ``INVALID_REQUEST``.
        """
        self._check_host(host)
        try:
            return self._runtime.cordons.put(host, by_hand(self._runtime.cordons.find(host), reason))
        except ValidationError:
            raise InvalidRequest("INVALID_REQUEST", "the reason is too long", "255 characters at most") from None

    def uncordon(self, host: str) -> bool:
        """Let VMs move to a host again; tells whether it was cordoned.

        Raises:
            InvalidRequest: ``UNKNOWN_HOST``, unless it is cordoned.
        """
        lifted = self._runtime.cordons.lift(host)
        if not lifted:
            self._check_host(host)
        return lifted

    def hosts(self) -> list[HostStatus]:
        """The inventory, each host looked at."""
        calls: dict[str, Callable[[], Any]] = {"queue": self._queue_of_hosts, "hosts": self._look_at_hosts}
        seen = gather(calls, at_once=2, timeout_s=self._patience_s + 1.0)
        queue: tuple[dict[str, int] | None, dict[str, Cordon]] = seen.get("queue") or (None, {})
        used, cordons = queue
        found = [self._status(name, seen.get("hosts", {}).get(name), used) for name in self._settings.hosts]
        return [
            replace(status, cordon=cordons[status.name].words) if status.name in cordons else status for status in found
        ]

    def vms(self, host: str | None = None) -> tuple[list[DomainView], dict[str, str]]:
        """All VMs of one host or of all; beside them the hosts that could not be asked, and why.

        Raises:
            InvalidRequest: ``UNKNOWN_HOST``.
        """
        if host is not None:
            self._check_host(host)
        names = [host] if host else list(self._settings.hosts)
        answers = self._ask_all(names, lambda name: list(self._runtime.hypervisor.list_domains(name)))
        views = [view for answer in answers.values() if not isinstance(answer, HypervisorError) for view in answer]
        return views, {name: answer.message for name, answer in answers.items() if isinstance(answer, HypervisorError)}

    def events(self, *, after: str = "", last: int = 50, follow: bool = False) -> Iterator[Told]:
        """Changes of state: those after a position, else the newest; then, with ``follow``, each as it happens.

        Raises:
            InvalidRequest: ``INVALID_POSITION``.
        """
        store = self._runtime.events
        page = store.read(after) if after else store.newest(max(last, 1))
        position = after or (page[-1].position if page else BEGINNING)
        page = page if after or last else []
        while True:
            for told in page:
                position = told.position
                yield told
            if not page and not follow:
                return
            page = store.read(position, wait_s=WAIT_FOR_EVENTS_S if follow and not page else 0.0)

    def events_lost(self, after: str) -> bool:
        """Whether events after a position may have fallen off the stream already.

        Raises:
            InvalidRequest: ``INVALID_POSITION``.
        """
        return self._runtime.events.lost_after(after)

    def webhooks(self) -> dict[str, tuple[Delivery | None, int]]:
        """How far each configured webhook was told, and how many events could not be delivered to it."""
        store = self._runtime.webhooks
        return {name: (store.find(name), len(store.undelivered(name))) for name in self._settings.webhooks}

    def undelivered(self, name: str) -> list[Undelivered]:
        """What could not be delivered to a webhook, oldest first.

        Raises:
            InvalidRequest: ``UNKNOWN_WEBHOOK``.
        """
        if name not in self._settings.webhooks:
            known = ", ".join(self._settings.webhooks) or "none"
            raise InvalidRequest("UNKNOWN_WEBHOOK", f"there is no webhook {name}", f"configured: {known}")
        return self._runtime.webhooks.undelivered(name)

    def prune(self) -> list[str]:
        """Forget finished records past their retention; returns their ids."""
        store = self._runtime.store
        return store.prune(before=store.now() - self._settings.retention_s)

    def close(self) -> None:
        """Close all connections."""
        self._runtime.hypervisor.close()
        self._app.close()

    def _check_host(self, host: str) -> None:
        if host not in self._settings.hosts:
            known = ", ".join(self._settings.hosts) or "none"
            raise InvalidRequest("UNKNOWN_HOST", f"{host} is not in the inventory", f"known hosts: {known}")

    def _wake(self, *, drains: bool = False) -> None:
        """The record is written; when this message is lost the periodic dispatcher finds it."""
        try:
            if drains:
                self._runtime.turns.want("drains")
                self._messenger.send_advance()
            else:
                self._messenger.send_dispatch()
        except OperationalError as error:
            raise StoreUnavailable(
                "BROKER_UNREACHABLE", f"the broker does not answer: {error}", "check broker_url"
            ) from None

    @property
    def _patience_s(self) -> float:
        rounds = 1 + len(self._settings.hosts) // HOSTS_AT_ONCE
        return rounds * self._settings.connect_timeout_s + ANSWER_S

    def _ask_all(self, names: Sequence[str], ask: Callable[[str], T]) -> dict[str, T | HypervisorError]:
        """Each host's answer, or why there is none."""

        def carefully(name: str) -> T | HypervisorError:
            try:
                return ask(name)
            except HypervisorError as error:
                return error

        calls = {name: partial(carefully, name) for name in names}
        found = gather(calls, at_once=HOSTS_AT_ONCE, timeout_s=self._patience_s)
        return {name: found.get(name, _silent(name)) for name in names}

    def _queue_of_hosts(self) -> tuple[dict[str, int], dict[str, Cordon]] | None:
        """Limits in use, and cordons; None when the queue cannot be asked: the inventory is worth showing without."""
        try:
            names = [f"{way}:{name}" for name in self._settings.hosts for way in ("out", "in")]
            return self._runtime.store.tokens_in_use(names), self._runtime.cordons.all()
        except StoreUnavailable:
            return None

    def _look_at_hosts(self) -> dict[str, tuple[HostFacts, list[DomainView]] | HypervisorError]:
        hypervisor = self._runtime.hypervisor
        names = list(self._settings.hosts)
        return self._ask_all(names, lambda name: (hypervisor.fetch_facts(name), list(hypervisor.list_domains(name))))

    def _status(
        self, name: str, seen: tuple[HostFacts, list[DomainView]] | HypervisorError | None, used: dict[str, int] | None
    ) -> HostStatus:
        host = self._settings.hosts[name]
        status = HostStatus(name, reachable=False, max_outgoing=host.max_outgoing, max_incoming=host.max_incoming)
        if used is not None:
            status = replace(status, outgoing=used[f"out:{name}"], incoming=used[f"in:{name}"])
        if seen is None or isinstance(seen, HypervisorError):
            return replace(status, error=(seen or _silent(name)).message)
        facts, views = seen
        running = sum(view.active for view in views)
        return replace(status, reachable=True, facts=facts, running_vms=running, defined_vms=len(views))


def _silent(host: str) -> HostUnreachable:
    return HostUnreachable("HOST_SILENT", f"{host} took the connection and did not answer in time")
