"""The workflow on a real Redis and a fake hypervisor, its messages delivered by hand, in any order."""

from __future__ import annotations

from typing import Any

from config.settings import HostSettings, Settings
from tasks import workflow
from tasks.model.run import RunRecord, State, StepName
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
from tasks.workflow import Handled, Runtime, run_step
from tests.fakes.hypervisor import FakeHypervisor, domain_xml

UUID = "11111111-2222-3333-4444-555555555555"
HOSTS = ("alpha", "beta", "gamma")
DONE = Handled.ADVANCED
AT_SOURCE = {"alpha": (True, True, False)}
MOVED = {"beta": (True, True, False)}


class Messages:
    """A Messenger that keeps what it is told."""

    def __init__(self) -> None:
        self.sent: list[tuple[RunRecord, tuple[StepName, ...]]] = []
        self.results: dict[str, str] = {}
        self.settled: list[tuple[str, State]] = []
        self.advances = self.dispatches = 0

    def send_steps(self, record: RunRecord, steps: tuple[StepName, ...]) -> None:
        self.sent.append((record, steps))

    def send_advance(self) -> None:
        self.advances += 1

    def send_dispatch(self, *, thorough: bool = True) -> None:  # noqa: ARG002
        self.dispatches += 1

    def store_started(self, result_id: str) -> None:
        self.results.setdefault(result_id, "STARTED")

    def store_settled(self, result_id: str, record: RunRecord) -> None:
        self.results[result_id] = record.state
        self.settled.append((result_id, record.state))

    def has_settled(self, result_id: str) -> bool:
        return self.results.get(result_id, "STARTED") != "STARTED"

    def forget(self, result_id: str) -> None:
        self.results.pop(result_id, None)


class Bench:
    """A runtime whose messages are delivered by hand."""

    def __init__(self, url: str, **settings: Any) -> None:
        client = connect(url)
        client.flushdb()
        inventory = {name: HostSettings(uri=f"qemu+tcp://{name}/system") for name in HOSTS}
        timers: dict[str, Any] = {"lease_s": 5.0, "progress_period_s": 0.01, "unreachable_timeout_s": 0.0}
        self.fake = FakeHypervisor(*HOSTS)
        self.messages = Messages()
        self.runtime = Runtime(
            settings=Settings(broker_url=url, **{"hosts": inventory} | timers | settings),
            store=RunStore(client, retention_s=60),
            queue=QueueStore(client),
            cordons=CordonStore(client),
            events=EventStore(client),
            turns=TurnStore(client),
            shares=ShareStore(client),
            webhooks=WebhookStore(client),
            rates=RateStore(client, retention_s=60),
            drains=DrainStore(client, retention_s=60, events_kept=1000),
            hypervisor=self.fake,
            messenger=self.messages,
        )

    def vm(self, host: str = "alpha", *, running: bool = True, autostart: bool = True) -> None:
        self.fake.add_domain(host, domain_xml("web-7", UUID), running=running)
        self.fake.set_autostart(host, UUID, enabled=autostart)

    def submit(self, run_id: str = "m", **values: Any) -> RunRecord:
        record = workflow.submit(self.runtime, {"vm": "web-7", "destination": "beta"} | values, run_id)
        workflow.dispatch(self.runtime)
        return record

    def step(self, name: str, run_id: str = "m") -> Handled:
        return self._run(StepName(name), self.record(run_id))

    def deliver_all(self, run_id: str = "m") -> RunRecord:
        """Deliver all that was sent, also what is late: whatever is not the turn of a step steps aside."""
        delivered = 0
        while delivered < len(self.messages.sent):
            record, steps = self.messages.sent[delivered]
            delivered += 1
            for name in steps:
                self._run(name, record)
        return self.record(run_id)

    def _run(self, name: StepName, record: RunRecord) -> Handled:
        """And what the control worker does when it is told to meanwhile."""
        before = self.messages.dispatches
        handled = run_step(self.runtime, name, record.id, record.attempt)
        if self.messages.dispatches > before:
            workflow.dispatch(self.runtime, thorough=False)
        return handled

    def record(self, run_id: str = "m") -> RunRecord:
        return self.runtime.store.load(run_id)

    def where(self) -> dict[str, tuple[bool, bool, bool]]:
        """Host: active, autostart, marked."""
        views = {host: self.fake.find_domain(host, UUID) for host in HOSTS}
        return {h: (v.active, v.autostart, v.mark is not None) for h, v in views.items() if v is not None}
