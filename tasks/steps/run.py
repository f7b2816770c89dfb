"""One step being run: the record, the lease that allows effects, and the journal that is written before them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tasks.model.bandwidth import Flow, Route
from tasks.model.convergence import Convergence
from tasks.model.cordon import Cordon
from tasks.model.disks import NVRAM
from tasks.model.domain import DomainView, Mark
from tasks.model.errors import VmferryError
from tasks.model.ports import Hypervisor
from tasks.model.request import Method
from tasks.model.run import JournalEntry, JournalKind, Progress, RunRecord
from tasks.planning.destination_xml import build_destination_xml
from tasks.planning.outcome import Outcome, decide_outcome
from tasks.steps.lease import Lease
from tasks.steps.verdict import CancelRequested, Detached

DOUBTFUL = frozenset({Outcome.BOTH_RUNNING, Outcome.NOWHERE, Outcome.UNCLEAR, Outcome.INCOMPLETE})
"""Outcomes that two looks at different moments can feign."""


class Store(Protocol):
    """What a step may do to its record."""

    def now(self) -> float:
        """Redis TIME."""

    def active(self) -> list[RunRecord]:
        """Migrations that are under way."""

    def recall_digest(self, key: str) -> str | None:
        """What was remembered of a file."""

    def remember_digest(self, key: str, digest: str) -> None:
        """Keep it for as long as records are kept."""

    def commit(self, before: RunRecord, after: RunRecord, *, guard: Any, deadline_in: float | None = None) -> RunRecord:
        """Fenced write; raises StaleOwner."""


class Shares(Protocol):
    """What transfers are allotted of the links that they share."""

    def ask(self, record: RunRecord, flow: Flow, route: Route, want: int | None = None) -> tuple[Flow, list[Flow]]:
        """Say what one wants to have; returns what one has, and all who share. Raises StaleOwner."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings that steps need; seconds."""

    lease_s: float
    progress_period_s: float
    unreachable_timeout_s: float
    settle_timeout_s: float = 30.0
    """How long a switch-over that looks half done is watched before it counts as unclear."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The convergence settings of one migration."""

    bandwidth_mib_s: int
    auto_converge: bool
    stall_after_s: float
    shut_down_timeout_s: float
    convergence: Convergence
    asks_for_post_copy: bool = False
    """It would be switched to post-copy, if the VM and the hosts can do that."""


@dataclass
class StepRun:
    """What a step works with. Only the owner of the lease has one."""

    record: RunRecord
    lease: Lease
    store: Store
    hypervisor: Hypervisor
    hosts: tuple[str, ...]
    """The inventory's host names."""
    cordon_of: Callable[[str], Cordon | None]
    """The cordon of a host, now."""
    policy: Policy
    limits: Limits
    shares: Shares
    route: Route = field(default_factory=Route)
    """Links with a limited bandwidth that it goes over."""
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set when the worker shuts down."""
    report: Callable[[Progress], None] = lambda progress: None  # noqa: ARG005
    """Told of every progress that the record is told of; for people who watch, and must not fail."""

    # -- who and where ------------------------------------------------------------------------------------------

    @property
    def uuid(self) -> str:
        """The VM's UUID; known from preflight on."""
        return _known(self.record.uuid, "uuid")

    @property
    def source(self) -> str:
        """Inventory name of the source."""
        return _known(self.record.source, "source")

    @property
    def destination(self) -> str:
        """Inventory name of the destination."""
        return self.record.destination

    @property
    def method(self) -> Method:
        """The chosen method."""
        if self.record.method is None:
            raise VmferryError("RECORD_INCOMPLETE", f"{self.record.id} has no method yet", "this is a bug: report it")
        return self.record.method

    # -- looking --------------------------------------------------------------------------------------------------

    def look(self) -> tuple[DomainView | None, DomainView | None]:
        """The VM on the source and on the destination, now."""
        return self.hypervisor.find_domain(self.source, self.uuid), self.hypervisor.find_domain(
            self.destination, self.uuid
        )

    @property
    def mark(self) -> Mark:
        """What this owner marks what it makes with."""
        return Mark(self.record.id, self.record.attempt, self.record.fence)

    def destination_xml(self, xml: str, *, marked: bool = True) -> str:
        """A definition of the source as the destination shall have it."""
        fetch = self.hypervisor.fetch_hostname
        return build_destination_xml(
            xml,
            mark=self.mark if marked else None,
            source=fetch(self.source),
            destination=fetch(self.destination),
            copies=self.record.copies,
            media=self.record.files,
            remedied=self.record.remedied,
            nvram=next((file.path for file in self.record.files if file.key == NVRAM), ""),
        )

    def outcome(self) -> Outcome:
        """Where the VM is, read from both hosts now.

        The hosts are read one after the other. When the VM switches over in between, the two looks belong to different
        moments, so that what would alarm a person is believed only when a second look says so as well.
        """
        first = self._decide(*self.look())
        return first if first not in DOUBTFUL else self._decide(*self.look())

    def _decide(self, source: DomainView | None, destination: DomainView | None) -> Outcome:
        off = self.record.mirrored_off
        return decide_outcome(self.method, source, destination, self.record.id, mirrored_off=off)

    # -- the record -------------------------------------------------------------------------------------------------

    def save(self, **changes: Any) -> None:
        """Write to the record, fenced; extends the lease as well."""
        after = self.record.model_copy(update=changes)
        self.record = self.store.commit(self.record, after, guard="fence", deadline_in=self.limits.lease_s)
        if "progress" in changes:
            self.report(self.record.progress)

    def interrupt_if_asked(self, *, cancellable: bool = True) -> None:
        """The point at which a step may be stopped.

        Raises:
            LeaseLost, Detached, CancelRequested
        """
        self.lease.check()
        if self.stopping.is_set():
            raise Detached
        if cancellable and (self.lease.cancel_requested or self.record.cancel_requested):
            raise CancelRequested

    # -- effects ------------------------------------------------------------------------------------------------------

    def effect(
        self,
        kind: JournalKind,
        host: str,
        value: str,
        act: Callable[[], None],
        *,
        name: str = "",
        created: str = "",
    ) -> None:
        """Do something to a host: journal it, check the lease, act, confirm.

        Skips what an earlier owner of this attempt has already confirmed.
        """
        earlier = self.intent(kind, host, name)
        if earlier is not None and earlier.done:
            return
        # An intent written by an owner that died keeps its value: it was read before anything was changed.
        value = value if earlier is None else earlier.value
        entry = JournalEntry(kind=kind, host=host, name=name, value=value, at=self.store.now())
        kept = tuple(e for e in self.record.journal if e is not earlier)
        words = self.record.created + ((created,) if created and created not in self.record.created else ())
        self.save(journal=(*kept, entry), created=words)
        self.lease.check()
        act()
        self.save(journal=(*kept, entry.model_copy(update={"done": True})))

    def intent(self, kind: JournalKind, host: str | None = None, name: str = "") -> JournalEntry | None:
        """The latest journal entry of a kind (on a host, with a name) that was not undone."""
        return next(
            (
                e
                for e in reversed(self.record.journal)
                if e.kind == kind and e.name == name and not e.undone and host in (None, e.host)
            ),
            None,
        )

    def mark_undone(self, entry: JournalEntry) -> None:
        """Note in the journal that an effect was undone."""
        journal = tuple(
            e.model_copy(update={"undone": True}) if e is entry or e == entry else e for e in self.record.journal
        )
        self.save(journal=journal)


def _known(value: str | None, name: str) -> str:
    if value is None:
        raise VmferryError("RECORD_INCOMPLETE", f"the record has no {name} yet", "this is a bug: report it")
    return value
