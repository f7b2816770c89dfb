"""Post-copy: the switch, from which there is no way back, and helping a transfer on that stands still afterwards."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field

from tasks.model.convergence import Forward, Progressed
from tasks.model.domain import DomainState, DomainView
from tasks.model.errors import HypervisorError, OperatorMustFix, OutcomeUnknown
from tasks.model.ports import Hypervisor, TransferOrder
from tasks.parallel import make_thread
from tasks.planning.outcome import in_post_copy, is_broken, is_ours
from tasks.planning.post_copy import Help, decide_help, heard
from tasks.steps.run import StepRun
from tasks.steps.verdict import CancelRequested

log = logging.getLogger(__name__)


SWITCHES_WITHIN_S = 5.0
"""QEMU switches over at once when it was told to: who sees nothing of it after so long knows that it was not."""


class _NotNow(Exception):
    """The hosts do not look as they must."""


def switch_over(run: StepRun) -> bool:
    """Switch to post-copy; False when that cannot be done yet, or nobody knows whether it was done.

    Journaled first, then both hosts are looked at again: from the effect on nothing is aborted, tried again or undone.

    Raises:
        CancelRequested: it was asked for before the intent was written.
    """
    ours = run.intent("post_copy") is None
    if ours and not _ready(run):
        return False
    try:
        run.effect("post_copy", run.source, "", lambda: _switch(run, cancellable=ours))
    except CancelRequested:
        withdraw(run)
        raise
    except _NotNow:
        if ours:  # what another owner intended may have been done, and not be seen yet
            withdraw(run)
        return False
    except OperatorMustFix as error:
        return _refused(run, error)
    except OutcomeUnknown as error:
        log.warning("nobody knows whether %s is in post-copy: %s", run.record.vm, error)
        return False
    return True


def tell_post_copy(run: StepRun) -> None:
    """The VM has moved: say that it was by post-copy, also when nobody was there to see it."""
    if run.record.post_copy_begun and not run.record.progress.post_copy:
        run.save(progress=run.record.progress.model_copy(update={"post_copy": True}))


def _ready(run: StepRun) -> bool:
    """The guest runs at the source, and waits at the destination for its memory: as this migration made it."""
    source, destination = run.look()
    return (
        source is not None
        and source.state is DomainState.RUNNING
        and bool(source.job.active and source.job.is_migration and source.job.memory_total)
        and destination is not None
        and destination.state is DomainState.PAUSED
        and is_ours(destination, run.record.id)
    )


def _switch(run: StepRun, *, cancellable: bool) -> None:
    source = run.hypervisor.find_domain(run.source, run.uuid)
    if source is not None and in_post_copy(source):
        return  # an owner that died had done it
    if not _ready(run):
        raise _NotNow
    run.interrupt_if_asked(cancellable=cancellable)
    if not run.hypervisor.start_post_copy(run.source, run.uuid):
        raise _NotNow


def _refused(run: StepRun, error: OperatorMustFix) -> bool:
    """libvirt said no. Whether it meant it, the hosts say; then the policy goes on without post-copy."""
    log.warning("%s is not switched to post-copy: %s", run.record.vm, error)
    decided = run.record.converging.post_copy_at or 0.0
    if not _ready(run) or run.store.now() - decided < SWITCHES_WITHIN_S:
        return False
    withdraw(run)
    kept = run.record.converging.model_copy(update={"post_copy_at": None, "post_copy_refused": True})
    run.save(converging=kept)
    return True


def withdraw(run: StepRun) -> None:
    """Take the intent back: the hosts show that nothing came of it."""
    entry = run.intent("post_copy")
    if entry is not None:
        run.mark_undone(entry)


@dataclass
class _Resuming:
    """A call that resumes it, which lasts as long as the rest of the transfer, in a daemon thread."""

    hypervisor: Hypervisor
    order: TransferOrder
    returned: threading.Event = field(default_factory=threading.Event)
    error: HypervisorError | None = None

    def start(self) -> None:
        make_thread(self._run, f"resume-{self.order.uuid}").start()

    def _run(self) -> None:
        try:
            self.hypervisor.resume_post_copy(self.order)
        except HypervisorError as error:
            self.error = error
        except Exception:
            log.exception("the call that resumes %s ended in a way it must not", self.order.uuid)
        finally:
            self.returned.set()


class Forwarding:
    """Helps a post-copy on; what it did stands in the record, so that who adopts it does not begin anew."""

    def __init__(self, run: StepRun, *, begun: bool = False) -> None:
        self._run = run
        self._seen = begun
        self._call: _Resuming | None = None

    @property
    def begun(self) -> bool:
        """Whether it was switched over, or is about to be."""
        return self._seen or self._run.record.post_copy_begun

    @property
    def overdue(self) -> bool:
        """Whether nothing was seen to move for longer than it is helped."""
        run, kept = self._run, self._run.record.converging
        since = kept.forward.moved_at or kept.post_copy_at
        limit = run.policy.convergence.post_copy_recovery_s
        return self.begun and since is not None and run.store.now() - since > limit

    @property
    def words(self) -> str | None:
        """What it waits for, for people; None while it goes on."""
        forward = self._run.record.converging.forward
        if not forward.tries:
            return None
        return f"the post-copy stands still since {self._run.store.now() - forward.moved_at:.0f} s"

    def help(self, source: DomainView) -> bool:
        """One look at a transfer in post-copy, by its source; False when a person has to see to it."""
        run = self._run
        self._hear()
        kept, what = decide_help(
            run.record.converging.forward,
            limit_s=run.policy.convergence.post_copy_recovery_s,
            remaining=source.job.memory_remaining if source.job.active else None,
            broken=is_broken(source),
            calling=self._call is not None,
            now=run.store.now(),
        )
        # Written with the next figures; before anything is done, at once.
        run.record = run.record.model_copy(update={"converging": self._with(kept)})
        if what is not Help.WAIT:
            run.save()
        if what is Help.CUT:
            self._cut()
        elif what is Help.RESUME:
            self._resume(kept.tries)
        return what is not Help.ASK

    def _with(self, kept: Forward) -> Progressed:
        return self._run.record.converging.model_copy(update={"forward": kept})

    def _hear(self) -> None:
        """What a call to resume it said when it came back; where the VM is, the hosts say."""
        call = self._call
        if call is None or not call.returned.is_set():
            return
        self._call = None
        code, message = (call.error.code, call.error.message) if call.error else ("", "")
        log.info("the call to resume %s came back: %s", self._run.record.vm, message or "done")
        run = self._run
        run.save(converging=self._with(heard(run.record.converging.forward, code, message, run.store.now())))

    def _cut(self) -> None:
        run = self._run
        run.lease.check()
        try:
            run.hypervisor.break_post_copy(run.source, run.uuid)
        except HypervisorError as error:
            log.info("the connection of %s is cut already: %s", run.record.vm, error)

    def _resume(self, tries: int) -> None:
        run = self._run
        log.warning("%s stands still in post-copy: try %d to resume it", run.record.vm, tries)
        order = TransferOrder(run.uuid, run.source, run.destination, destination_xml="", persistent_xml="")
        self._call = _Resuming(run.hypervisor, order)
        run.lease.check()
        self._call.start()
