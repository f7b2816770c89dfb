"""The run record: the durable state of one migration, its states and the only table of allowed transitions."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.model.convergence import Progressed
from tasks.model.disks import DiskCopy, FileCopy
from tasks.model.errors import VmferryError
from tasks.model.finding import Finding
from tasks.model.frozen import Frozen
from tasks.model.pools import Mount
from tasks.model.remedies import NO_REMEDIES, Remedied
from tasks.model.request import DataPath, Method, MigrationRequest, Storage

SCHEMA_VERSION = 5
"""Version of the record's layout; a worker leaves a record of a newer version alone."""


class State(StrEnum):
    """Where a migration is; who may follow stands in ``TRANSITIONS``."""

    QUEUED = "queued"
    """Accepted, waits for the dispatcher (``waiting_for`` says why)."""
    CHECKING = "checking"
    """Admitted; preflight looks at both hosts and changes nothing."""
    PREPARING = "preparing"
    """The source is marked, its autostart cleared, the destination made ready."""
    TRANSFERRING = "transferring"
    """libvirt moves the VM (or its definition)."""
    VERIFYING = "verifying"
    """The destination is compared with what was intended."""
    FINISHING = "finishing"
    """The source definition goes, marks are removed: no way back from here."""
    SUCCEEDED = "succeeded"
    ROLLING_BACK = "rolling_back"
    """Both hosts are read, then what the journal says was done is undone in reverse."""
    FAILED = "failed"
    """Rolled back: the VM is where it was."""
    REFUSED = "refused"
    """Preflight found a blocker: nothing was changed."""
    CANCELLED = "cancelled"
    """Rolled back because somebody asked for it."""
    NEEDS_ATTENTION = "needs_attention"
    """Not settled; the VM's lock is held until an operator resolves it and says ``retry``."""


TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.CHECKING, State.REFUSED, State.CANCELLED}),
    State.CHECKING: frozenset({State.PREPARING, State.REFUSED, State.QUEUED, State.ROLLING_BACK}),
    State.PREPARING: frozenset({State.TRANSFERRING, State.ROLLING_BACK}),
    State.TRANSFERRING: frozenset({State.VERIFYING, State.ROLLING_BACK}),
    State.VERIFYING: frozenset({State.FINISHING, State.ROLLING_BACK}),
    State.FINISHING: frozenset({State.SUCCEEDED, State.ROLLING_BACK}),
    State.ROLLING_BACK: frozenset({State.VERIFYING, State.FAILED, State.CANCELLED, State.NEEDS_ATTENTION}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset({State.QUEUED}),
    State.REFUSED: frozenset({State.QUEUED}),
    State.CANCELLED: frozenset({State.QUEUED}),
    State.NEEDS_ATTENTION: frozenset({State.ROLLING_BACK}),
}
"""Allowed transitions. ``retry`` leads from failed, refused and cancelled back to queued, and from needs_attention to
rolling_back, which reads both hosts again. checking leads back to queued when the VM was moved by hand meanwhile and
the request did not name a source, and when one of the pools that it copies out of or into is in use by as many as are
allowed. rolling_back leads forward to verifying when the hosts show that the VM has moved."""

TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.REFUSED, State.CANCELLED, State.NEEDS_ATTENTION})
"""States in which nobody works on the migration and Celery's result of it is final."""


def check_transition(before: State, after: State) -> None:
    """Refuse a change of state that the table does not allow.

    Raises:
        VmferryError: code ``ILLEGAL_TRANSITION``; always a bug of vmferry.
    """
    if after not in TRANSITIONS[before]:
        raise VmferryError(
            "ILLEGAL_TRANSITION", f"a migration cannot go from {before} to {after}", "this is a bug: report it"
        )


class StepName(StrEnum):
    """The Celery tasks of a chain, named ``tasks.steps.<value>``."""

    PREFLIGHT = "preflight"
    PREPARE = "prepare"
    TRANSFER = "transfer"
    VERIFY = "verify"
    FINISH = "finish"
    ROLLBACK = "rollback"


class ErrorInfo(Frozen):
    """Why a migration did not succeed."""

    code: str
    message: str
    hint: str = ""


class PastError(Frozen):
    """How an attempt ended that was tried again."""

    attempt: int
    at: float | None
    """When it had ended; Redis TIME, seconds since the epoch."""
    state: State
    error: ErrorInfo | None


class Channel(Frozen):
    """Bytes of memory or of disks moved so far; libvirt's own figures."""

    total_bytes: int = 0
    processed_bytes: int = 0
    remaining_bytes: int = 0
    bytes_per_second: int = 0


class Progress(Frozen):
    """A transfer's statistics, memory and disk apart."""

    memory: Channel = Channel()
    disk: Channel = Channel()
    iteration: int = 0
    dirty_pages_per_second: int = 0
    elapsed_ms: int = 0
    downtime_ms: int | None = None
    """libvirt's own figure; known when the transfer has settled."""
    post_copy: bool = False
    """The guest was let run on the destination before all of its memory had arrived."""

    @property
    def begun(self) -> bool:
        """Whether anything is known to be on its way."""
        return bool(self.memory.total_bytes or self.disk.total_bytes)


JournalKind = Literal[
    "source_mark",
    "source_autostart",
    "source_save",
    "source_shut_down",
    "source_pause",
    "post_copy",
    "window",
    "window_close",
    "destination_device",
    "probe",
    "destination_pool",
    "destination_pool_start",
    "proof_volume",
    "source_medium",
    "destination_network",
    "destination_network_start",
    "destination_volume",
    "destination_tpm",
    "destination_tpm_state",
    "destination_definition",
    "destination_snapshot",
    "source_start",
    "transfer",
    "destination_end",
    "destination_restore",
    "destination_start",
    "source_save_remove",
    "destination_resume",
    "source_undefine",
    "destination_autostart",
    "destination_resize",
    "source_file",
]


class JournalEntry(Frozen):
    """One effect on a host, recorded before it happens (``done=False``) and confirmed after it."""

    kind: JournalKind
    host: str
    name: str = ""
    """Which one, where an effect of this kind may be had several times on one host, for example ``pool/volume``."""
    value: str = ""
    """What is needed to undo it, for example the autostart flag as it was (``"1"``)."""
    at: float
    """Redis TIME, seconds since the epoch."""
    done: bool = False
    undone: bool = False


class StepTiming(Frozen):
    """When a step ran; Redis TIME, seconds since the epoch."""

    step: StepName
    attempt: int
    started_at: float
    ended_at: float | None = None


class Control(BaseModel):
    """The part of a record that decides who may write it; changed only by compare-and-set in Redis."""

    model_config = ConfigDict(frozen=True)

    rev: int = 0
    """Grows with every write."""
    state: State = State.QUEUED
    attempt: int = 1
    step: StepName | None = None
    """The step whose turn it is; None while queued and when terminal."""
    fence: int = 0
    """Grows with every claim; a write with an older fence is refused."""
    owner: str = ""
    """Who holds the lease; empty between two steps."""
    deadline: float = 0.0
    """End of the lease (owned) or of the hand-over (not owned), Redis TIME; 0 when nobody has to act."""
    send: int = 0
    """How many times the chain of this attempt was sent."""
    resend_not_before: float = 0.0
    cancel_requested: bool = False


class RunRecord(Control):
    """The durable state of one migration. The record wins over Flower and over Celery's results."""

    schema_version: int = SCHEMA_VERSION
    id: str
    request: MigrationRequest
    fingerprint: str
    vm: str
    """The VM's name once resolved, until then what the request said."""
    uuid: str | None = None
    source: str | None = None
    destination: str
    method: Method | None = None
    storage: Storage | None = None
    data_path: DataPath | None = None
    """By which way the contents of its disks go; None when none is copied."""
    waiting_for: str | None = None
    """Why it is queued or deferred, in one sentence."""
    stalled: bool = False
    """The transfer makes no progress; it is still being observed."""
    progress: Progress = Progress()
    converging: Progressed = Progressed()
    """What the policy has decided so far."""
    findings: tuple[Finding, ...] = ()
    error: ErrorInfo | None = None
    past: tuple[PastError, ...] = ()
    """How earlier attempts ended."""
    journal: tuple[JournalEntry, ...] = ()
    created: tuple[str, ...] = ()
    """What was made on a host, in words for people (the journal is what rollback reads)."""
    copies: tuple[DiskCopy, ...] = ()
    """Disks that are copied; the others stay where they are."""
    nvram: str = ""
    """File of the source with the UEFI variables, when they are copied."""
    emulated: bool = False
    """QEMU emulates the VM's CPUs, no hardware runs them."""
    post_copy: bool = False
    """Its policy may switch it to post-copy: that is made possible when the transfer starts."""
    agent: bool = False
    """A guest agent was connected before it went: *verify* asks it."""
    tpm: str = ""
    """Directory of an emulated TPM's state, on both hosts, when it is copied."""
    files: tuple[FileCopy, ...] = ()
    """Files beside the disks that go along."""
    decided_off: bool = False
    """What is copied was decided anew when the VM had been shut down."""
    pools: tuple[str, ...] = ()
    """Pools that it copies out of and into, ``host/pool``; known when it was looked at."""
    expected_bytes: int = 0
    """What it has to move at least, as far as that is known before it is looked at: its memory."""
    drain: str = ""
    """Id of the drain that it belongs to."""
    mounts: tuple[Mount, ...] = ()
    """Network file systems that disks stay on."""
    remedied: Remedied = NO_REMEDIES
    """What the remedies that were asked for do."""
    ledger: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Guest-side name -> checksum of each piece of the disk's file that has arrived, in order."""
    writing: str = ""
    """The piece that is being written, ``<target>.<number>``: whoever goes on with it must not leave holes out."""
    deleted: tuple[str, ...] = ()
    """Files of the source that were deleted at the end, as the request said; in words."""
    kept: tuple[str, ...] = ()
    """What is left on a host on purpose, in words for people."""
    left_to_do: tuple[str, ...] = ()
    """What a person still has to do after a success, in words for people."""
    timings: tuple[StepTiming, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    tries: int = 0
    """How often the current step was put off because of a passing fault."""
    forwards: int = 0
    """How often rollback found that the VM has moved, and sent it on to verify."""
    unadoptable: bool = False
    submitted_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None

    @property
    def post_copy_begun(self) -> bool:
        """Whether it was, or is about to be, switched to post-copy: from there on it only goes forward."""
        return any(entry.kind == "post_copy" and not entry.undone for entry in self.journal)

    @property
    def is_terminal(self) -> bool:
        """Whether nobody works on it any more."""
        return self.state in TERMINAL

    @property
    def mirrored_off(self) -> bool:
        """Whether it is shut off, and started paused so that its disks can be mirrored."""
        return self.method is Method.OFFLINE and self.data_path is DataPath.HOSTS


OF_ALL_ATTEMPTS = (
    *("rev", "fence", "deadline", "resend_not_before"),
    *("id", "request", "fingerprint", "vm", "destination", "past", "drain", "labels", "submitted_at"),
)
"""What is about the migration; everything else is about one attempt."""


def next_attempt(record: RunRecord) -> RunRecord:
    """The record of a migration that begins anew, as if nothing had been seen or done."""
    kept = {name: getattr(record, name) for name in OF_ALL_ATTEMPTS}
    return RunRecord(**kept, source=record.request.source, attempt=record.attempt + 1)
