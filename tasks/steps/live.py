"""A live transfer: libvirt's one blocking call in a thread of its own, and the observer that reads its statistics.

The call sits in a daemon thread so that a worker told to stop can leave: the transfer is peer to peer and goes on
without it. What the call returns is only a reason to look; where the VM is, both hosts say.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tasks.model.domain import JobStats
from tasks.model.errors import HypervisorError, RetryLater
from tasks.model.ports import Hypervisor, TransferOrder
from tasks.model.request import Method
from tasks.model.run import Channel, ErrorInfo, JournalEntry, Progress
from tasks.parallel import make_thread
from tasks.planning.outcome import Outcome, in_post_copy
from tasks.steps.converging import Converging
from tasks.steps.paused import refuse_running
from tasks.steps.post_copy import Forwarding, withdraw
from tasks.steps.run import StepRun
from tasks.steps.sharing import Sharing
from tasks.steps.verdict import CancelRequested, Detached, Interrupted

log = logging.getLogger(__name__)

LOOKS_CLOSELY_S = 5.0
"""How long the first figures of the disks are waited for with short periods."""
SETTLING = frozenset({Outcome.IN_PROGRESS, Outcome.UNSETTLED})


class Withdrawn(Interrupted):
    """Nobody waits for the transfer any more, which has not been started."""


@dataclass
class Call:
    """The blocking call, and what it said when it came back.

    It may be a while until it is sent: a connection is made, or the domain's lock is waited for. Until then it can be
    withdrawn, so that it never starts a transfer that nobody watches, of a VM that was rolled back meanwhile.
    """

    hypervisor: Hypervisor
    order: TransferOrder
    check: Callable[[], None]
    """The lease's: raises when this worker must not act any more."""
    returned: threading.Event = field(default_factory=threading.Event)
    error: HypervisorError | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _sent: bool = False
    _withdrawn: bool = False

    def start(self) -> None:
        """Run it in a daemon thread."""
        make_thread(self._run, f"transfer-{self.order.uuid}").start()

    def withdraw(self) -> bool:
        """Whether nothing comes of it any more but what both hosts show: it will not be sent, or has come back."""
        with self._lock:
            self._withdrawn = True
            return not self._sent or self.returned.is_set()

    def _begin(self) -> None:
        with self._lock:
            if self._withdrawn:
                raise Withdrawn
            self.check()
            self._sent = True

    def _run(self) -> None:
        try:
            self.hypervisor.transfer(self.order, self._begin)
        except HypervisorError as error:
            self.error = error
        except Interrupted as why:
            log.info("the transfer of %s was not started: %r", self.order.uuid, why)
        except Exception:
            log.exception("the transfer call of %s ended in a way it must not", self.order.uuid)
        finally:
            self.returned.set()


def start_and_watch(run: StepRun) -> Outcome:
    """Start the transfer and observe it to its end."""
    run.interrupt_if_asked()
    mib_s = Sharing(run).begin()
    withdraw(run)  # of a transfer that failed while nobody watched
    call = Call(run.hypervisor, _order(run, mib_s), run.lease.check)
    entry = JournalEntry(kind="transfer", host=run.destination, at=run.store.now())
    state = "paused" if run.record.mirrored_off else "running"
    running = f"{state} instance of {run.record.vm} on {run.destination}"
    # The intent, before the irreversible effect; the lease is checked after this write, as it may have taken long.
    run.save(journal=(*run.record.journal, entry), created=(*run.record.created, running), error=None)
    run.interrupt_if_asked()
    call.start()
    try:
        return watch(run, call)
    except BaseException:
        call.withdraw()
        raise


def watch(run: StepRun, call: Call | None = None, *, cancellable: bool = True, post_copy: bool = False) -> Outcome:
    """Observe until both hosts show an outcome. Without ``call`` the transfer was started by another worker.

    ``post_copy``: it was seen to be in post-copy, whatever the journal says.
    """
    observer = _Observer(run, call, begun=post_copy)
    while True:
        ended = observer.wait()
        observer.interrupt_if_asked(cancellable=cancellable and not run.record.post_copy_begun)
        outcome = observer.look(ended=ended)
        if outcome is not None:
            return outcome


def _order(run: StepRun, mib_s: int) -> TransferOrder:
    """Read the definition again, with its passwords, right where it is used; it is never stored.

    ``mib_s``: its limit. libvirt takes it for each disk, and for memory, which goes when all disks are done: then it
    gets all of it.
    """
    hypervisor = run.hypervisor
    view = hypervisor.find_domain(run.source, run.uuid)
    live = hypervisor.fetch_xml(run.source, run.uuid, secure=True, migratable=True)
    persistent = view is None or view.persistent
    inactive = hypervisor.fetch_xml(run.source, run.uuid, inactive=True, secure=True) if persistent else live
    copies = run.record.copies
    return TransferOrder(
        uuid=run.uuid,
        source=run.source,
        destination=run.destination,
        destination_xml=run.destination_xml(live),
        persistent_xml=run.destination_xml(inactive),
        bandwidth_mib_s=max(1, mib_s // max(1, len(copies))) if mib_s else 0,
        max_downtime_ms=next(iter(run.policy.convergence.downtime_steps_ms), 0),
        auto_converge=run.policy.auto_converge,
        post_copy=run.policy.convergence.wants_post_copy,
        disks=tuple(copy.target for copy in copies),
        incremental=any(copy.backing for copy in copies),
        paused=run.record.mirrored_off,
        live=run.method is Method.LIVE or run.record.mirrored_off,
    )


class _Observer:
    """Reads statistics into the record, notices stalls and time-outs, and decides when the transfer is over."""

    def __init__(self, run: StepRun, call: Call | None, *, begun: bool = False) -> None:
        self._run = run
        self._call = call
        self._started = self._moved_on = time.monotonic()
        self._last = JobStats(active=False, is_migration=False)
        self._settling_since: float | None = None
        self._forward = Forwarding(run, begun=begun)
        self._converging = Converging(run)
        self._sharing = Sharing(run, self._limit)
        self._ended = False
        """The call has returned, and both hosts were looked at since."""
        self._begun = False
        """The job was seen."""

    def wait(self) -> bool:
        """Sleep for one period, or until the call returns; tells whether it has."""
        period = self._run.limits.progress_period_s
        if self._call is None:
            self._run.stopping.wait(period)
            return False
        if self._call.returned.is_set():
            if self._ended:
                # Only the hosts' last changes of state are awaited; in post-copy that may be a while.
                self._run.stopping.wait(period if self._forward.begun else 0.05)
            self._ended = True
            return True
        return self._call.returned.wait(0.05 if self._at_its_beginning() else period)

    def interrupt_if_asked(self, *, cancellable: bool) -> None:
        """The point at which it may be left: never between the call and the job, when both hosts look as if nothing had
        been started.

        Raises:
            LeaseLost, Detached, CancelRequested
        """
        try:
            self._run.interrupt_if_asked(cancellable=cancellable)
        except (CancelRequested, Detached):
            if self._call is None or self._begun or self._call.withdraw():
                raise

    def _at_its_beginning(self) -> bool:
        """Small disks are mirrored in less than a period, and libvirt's account of the end does not have them."""
        if not self._converging.begun:
            return True
        unseen = self._run.record.copies and not self._last.disk_total
        return bool(unseen) and time.monotonic() - self._started < LOOKS_CLOSELY_S

    def look(self, *, ended: bool) -> Outcome | None:
        """The outcome, or None while it is open. A host that does not answer leaves it open."""
        try:
            if self._forward.begun:
                return self._look_forward()
            if not ended:
                job = self._run.hypervisor.fetch_job(self._run.source, self._run.uuid)
                if job.active and job.is_migration:
                    self._begun = True
                    if self._run.record.mirrored_off:
                        refuse_running(self._run)
                    self._note(job)
                    return None
                if self._call is not None:
                    return None  # not begun yet, or at its very end: the call itself will say
            outcome = self._run.outcome()
        except RetryLater as error:
            if self._forward.overdue:
                raise
            self._put_off(f"cannot look: {error.message}")
            return None
        return self._settle(outcome)

    def _look_forward(self) -> Outcome | None:
        """In post-copy what the call says ends nothing: it comes back when the link is lost, and the rest goes on."""
        run = self._run
        source = run.hypervisor.find_domain(run.source, run.uuid)
        try:
            outcome = run.outcome()
        except RetryLater:
            if source is None or not in_post_copy(source):
                raise
            outcome = Outcome.IN_PROGRESS  # the link is lost, to us as well: the source alone can be helped
        if source is None or outcome is not Outcome.IN_PROGRESS:
            return self._settle(outcome)
        self._settling_since = None
        if source.job.active and source.job.is_migration:
            self._note(source.job)
        return None if self._forward.help(source) else outcome

    def _settle(self, outcome: Outcome) -> Outcome | None:
        if outcome in SETTLING:
            self._settling_since = self._settling_since or time.monotonic()
            if time.monotonic() - self._settling_since < self._run.limits.settle_timeout_s:
                return None
        self._note_end(outcome)
        return outcome

    def _note(self, job: JobStats) -> None:
        if (job.memory_processed, job.disk_processed) != (self._last.memory_processed, self._last.disk_processed):
            self._moved_on = time.monotonic()
        self._last = job
        self._sharing.look(again=len(self._run.record.copies) > 1 and job.disk_remaining > 0)
        stalled = time.monotonic() - self._moved_on > self._run.policy.stall_after_s
        progress = progress_of(job).model_copy(update={"post_copy": self._forward.begun})
        self._converging.look(job, progress=progress, stalled=stalled, waiting_for=self._forward.words)

    def _limit(self, mib_s: int) -> bool:
        run = self._run
        # Without others on its links a disk keeps what it began with: changing that leaves a trace in the VM's log.
        disks = tuple(copy.target for copy in run.record.copies) if run.route.links else ()
        return run.hypervisor.set_bandwidth(run.source, run.uuid, mib_s, disks)

    def _put_off(self, why: str) -> None:
        stalled = time.monotonic() - self._moved_on > self._run.policy.stall_after_s
        self._run.save(stalled=stalled, waiting_for=why)

    def _note_end(self, outcome: Outcome) -> None:
        run = self._run
        changes: dict[str, object] = {"stalled": False, "waiting_for": None}
        if outcome in (Outcome.MOVED, Outcome.ARRIVED):
            final = self._final_job()
            if final is not None:
                changes["progress"] = _completed(progress_of(final), run.record.progress)
            elif self._forward.begun:
                changes["progress"] = run.record.progress.model_copy(update={"post_copy": True})
        elif self._call is not None and self._call.error is not None and run.record.error is None:
            error = self._call.error
            changes["error"] = ErrorInfo(code=error.code, message=error.message, hint=error.hint)
        run.save(**changes)

    def _final_job(self) -> JobStats | None:
        """libvirt's own account of the finished transfer; nice to have, never worth failing for.

        After a post-copy the destination has none, and the source may.
        """
        run = self._run
        try:
            return run.hypervisor.fetch_completed_job(run.destination, run.uuid) or (
                run.hypervisor.fetch_completed_job(run.source, run.uuid)
            )
        except HypervisorError as error:
            log.info("no statistics of the finished transfer: %s", error)
            return None


def _completed(final: Progress, last: Progress) -> Progress:
    """libvirt's account of a finished transfer leaves out what was seen while it ran: the disks, and post-copy."""
    seen: dict[str, object] = {"post_copy": last.post_copy}
    return final.model_copy(update=seen if final.disk.total_bytes else seen | {"disk": last.disk})


def progress_of(job: JobStats) -> Progress:
    """libvirt's statistics as the record shows them."""
    return Progress(
        memory=Channel(
            total_bytes=job.memory_total,
            processed_bytes=job.memory_processed,
            remaining_bytes=job.memory_remaining,
            bytes_per_second=job.memory_bps,
        ),
        disk=Channel(
            total_bytes=job.disk_total,
            processed_bytes=job.disk_processed,
            remaining_bytes=job.disk_remaining,
            bytes_per_second=job.disk_bps,
        ),
        iteration=job.memory_iteration,
        dirty_pages_per_second=job.memory_dirty_rate,
        elapsed_ms=job.elapsed_ms,
        downtime_ms=job.downtime_ms,
    )
