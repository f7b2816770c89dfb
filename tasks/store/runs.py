"""Run records in Redis: every change is one Lua call that compares before it sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

import redis

from tasks.model.errors import LimitReached, StaleOwner, StoreUnavailable, UnknownMigration, VmferryError
from tasks.model.event import event_of
from tasks.model.lane import RANK_S, lane_of
from tasks.model.report import Sample, sample_of
from tasks.model.run import SCHEMA_VERSION, Control, RunRecord, State, StepName, check_transition

PREFIX = "vmferry:"
SAMPLES_KEPT = 120
"""Samples of one transfer, about 40 bytes each."""
_CONTROL = frozenset(Control.model_fields)
Guard = Literal["rev", "fence"]


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of a submitted record."""

    verdict: Literal["created", "same", "conflict"]
    record: RunRecord


@dataclass(frozen=True, slots=True)
class Limits:
    """What a migration must acquire before it starts: named token sets with their sizes, and the VM's lock."""

    tokens: Mapping[str, int]
    lock: str


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether all tokens were taken; if not, which one was missing and who holds it."""

    record: RunRecord
    admitted: bool
    missing: str = ""
    holder: str = ""


def load_script(name: str) -> str:
    """The text of one of our Lua scripts."""
    return files("tasks.store").joinpath(name).read_text(encoding="utf-8")


@contextmanager
def translated() -> Iterator[None]:
    """Redis's errors as ours.

    Raises:
        StoreUnavailable: ``REDIS_AUTH_FAILED`` or ``REDIS_UNREACHABLE``.
    """
    try:
        yield
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise StoreUnavailable(
            "REDIS_AUTH_FAILED", f"Redis refuses the credentials: {error}", "check broker_url"
        ) from None
    except redis.RedisError as error:
        if "NOAUTH" in str(error) or "WRONGPASS" in str(error):
            raise StoreUnavailable(
                "REDIS_AUTH_FAILED", f"Redis refuses the credentials: {error}", "check broker_url"
            ) from None
        raise StoreUnavailable(
            "REDIS_UNREACHABLE", f"Redis does not answer: {error}", "is it running? check broker_url"
        ) from None


def read_clock(client: redis.Redis) -> float:
    """Redis TIME, seconds since the epoch."""
    with translated():
        seconds, micros = client.time()
    return float(seconds) + float(micros) / 1e6


class RunStore:
    """All run records of one Redis database.

    Every method raises ``StoreUnavailable`` when Redis does not answer within its time-outs.
    """

    def __init__(self, client: redis.Redis, *, retention_s: int, events_kept: int = 20_000) -> None:
        self._redis = client
        self._events_kept = events_kept
        self._retention_s = retention_s
        self._submit = client.register_script(load_script("submit.lua"))
        self._write = client.register_script(load_script("write.lua"))

    # -- reading ------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Redis TIME, seconds since the epoch: the only clock that leases and timers know."""
        return read_clock(self._redis)

    def load(self, run_id: str) -> RunRecord:
        """The record.

        Raises:
            UnknownMigration: ``UNKNOWN_ID``.
        """
        with translated():
            fields: dict[str, str] = self._redis.hgetall(f"{PREFIX}run:{run_id}")  # type: ignore[assignment]
        return self._explained([(_parse(run_id, fields), fields.get("lane", ""))])[0]

    def find(self, run_id: str) -> RunRecord | None:
        """The record, or None."""
        try:
            return self.load(run_id)
        except UnknownMigration:
            return None

    def list_runs(self, *, limit: int = 1000) -> list[RunRecord]:
        """The newest records first; expired and newer ones are left out."""
        return self._load_many(self._ids("runs", limit))

    def queued(self, *, limit: int = 500) -> list[RunRecord]:
        """Waiting records, oldest first."""
        with translated():
            ids: list[str] = self._redis.zrange(f"{PREFIX}queued", 0, limit - 1)  # type: ignore[assignment]
        return self.queued_among(ids)

    def queued_among(self, ids: Sequence[str]) -> list[RunRecord]:
        """Those of them that still wait, in the same order."""
        return [record for record, _ in self._load_rows(ids) if record.state is State.QUEUED]

    def enlist(self, run_id: str) -> None:
        """Put a migration into its lane that an older vmferry queued without."""
        record = self.load(run_id)
        if record.state is State.QUEUED:
            order = {"guard": _guard(record, "rev"), "lane": lane_of(record), "lead": _lead(record)}
            self._run(run_id, order)

    def active(self, *, limit: int = 500) -> list[RunRecord]:
        """Records that somebody works on or is about to; those whose lease or hand-over ends first."""
        with translated():
            ids: list[str] = self._redis.zrange(f"{PREFIX}deadlines", 0, limit - 1)  # type: ignore[assignment]
        return self._load_many(ids)

    def due(self) -> list[RunRecord]:
        """Records whose lease or hand-over deadline has passed."""
        now = self.now()
        with translated():
            ids: list[str] = self._redis.zrangebyscore(f"{PREFIX}deadlines", "-inf", now)  # type: ignore[assignment]
        return self._load_many(ids)

    def recently_finished(self, window_s: float) -> list[RunRecord]:
        """Records that finished within the last ``window_s`` seconds."""
        now = self.now()
        with translated():
            ids: list[str] = self._redis.zrangebyscore(f"{PREFIX}finished", now - window_s, "+inf")  # type: ignore[assignment]
        return self._load_many(ids)

    def tokens_in_use(self, names: list[str]) -> dict[str, int]:
        """How many migrations hold each token set."""
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            for name in names:
                pipe.scard(f"{PREFIX}tokens:{name}")
            return dict(zip(names, map(int, pipe.execute()), strict=True))

    def _ids(self, index: str, limit: int) -> list[str]:
        with translated():
            ids: list[str] = self._redis.zrevrange(f"{PREFIX}{index}", 0, limit - 1)  # type: ignore[assignment]
        return ids

    def _load_many(self, ids: Sequence[str]) -> list[RunRecord]:
        return self._explained(self._load_rows(ids))

    def _explained(self, rows: Sequence[tuple[RunRecord, str]]) -> list[RunRecord]:
        """Why a whole lane waits stands with the lane, not in each record."""
        queued = {r.id for r, lane in rows if lane and r.state is State.QUEUED}
        if not queued:
            return [record for record, _ in rows]
        with translated():
            whys: dict[str, str] = self._redis.hgetall(f"{PREFIX}lanes:why")  # type: ignore[assignment]
        return [
            r.model_copy(update={"waiting_for": whys[lane]}) if r.id in queued and lane in whys else r
            for r, lane in rows
        ]

    def _load_rows(self, ids: Sequence[str]) -> list[tuple[RunRecord, str]]:
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            for run_id in ids:
                pipe.hgetall(f"{PREFIX}run:{run_id}")
            rows = pipe.execute()
        found = []
        for run_id, fields in zip(ids, rows, strict=True):
            if fields and int(fields["schema"]) <= SCHEMA_VERSION:
                found.append((_parse(run_id, fields), fields.get("lane", "")))
        return found

    # -- submission ---------------------------------------------------------------------------------------------

    def submit(self, record: RunRecord, *, waiter: str = "") -> Submission:
        """Create the record unless its id is taken; ``waiter`` is a Celery result id to be settled with it."""
        with translated():
            verdict, _ = self._submit(
                args=[
                    *(PREFIX, record.id, record.fingerprint, _body(record), SCHEMA_VERSION, waiter),
                    *(event_of(record, None).model_dump_json(), self._events_kept),
                    *(lane_of(record), _lead(record)),
                ]
            )
        return Submission(verdict, self.load(record.id))

    def waiters(self, run_id: str) -> set[str]:
        """Result ids other than its own that are settled with this migration."""
        with translated():
            return set(self._redis.smembers(f"{PREFIX}waiters:{run_id}"))  # type: ignore[arg-type]

    # -- ownership ----------------------------------------------------------------------------------------------

    def claim(self, run_id: str, *, attempt: int, step: StepName, owner: str, lease_s: float) -> RunRecord | None:
        """Take the lease on a step whose turn it is; None when it is not its turn or somebody else works on it."""
        order = {"guard": {"attempt": attempt, "step": step.value}, "claim": owner, "deadline_in": lease_s}
        verdict, _, fields = self._run(run_id, order)
        return _parse(run_id, fields) if verdict == "ok" else None

    def renew(self, record: RunRecord, lease_s: float) -> bool:
        """Extend the lease; returns whether cancelling was asked for.

        Raises:
            StaleOwner: somebody else owns the migration by now.
        """
        order = {"guard": _guard(record, "fence"), "deadline_in": lease_s}
        verdict, detail, fields = self._run(record.id, order)
        if verdict != "ok":
            raise StaleOwner("STALE_OWNER", f"{record.id}: the lease is gone ({verdict} {detail})")
        return fields["cancel_requested"] == "1"

    # -- the one function that changes records --------------------------------------------------------------------

    def commit(
        self,
        before: RunRecord,
        after: RunRecord,
        *,
        guard: Guard,
        deadline_in: float | None = None,
        resend_in: float | None = None,
        release: Literal["tokens", "all"] | None = None,
        acquire: Mapping[str, int] | None = None,
    ) -> RunRecord:
        """Write ``after`` if the record is still what ``before`` says (by revision, or by fence and owner).

        ``acquire``: tokens that it must have from now on beside those that it has: all of them, or nothing is written.
        Keeps the queue, the index of finished records and the retention in step with the state.

        Raises:
            StaleOwner: it is not; nothing was written, and the caller must stop.
            LimitReached: a token was not to be had.
            VmferryError: ``ILLEGAL_TRANSITION``.
        """
        order: dict[str, Any] = {"guard": _guard(before, guard), "set": _control(after), "body": _body(after)}
        order |= {"deadline_in": deadline_in, "resend_in": resend_in, "release": release}
        order |= {"acquire": {"tokens": dict(acquire)} if acquire else None}
        if after.progress != before.progress and after.progress.begun:
            order |= {"sample": sample_of(after.progress).packed(), "samples_kept": SAMPLES_KEPT}
        if after.state is not before.state:
            check_transition(before.state, after.state)
            order |= self._consequences(before, after) | self._event(before, after)
        if after.state is State.QUEUED and (before.state is not State.QUEUED or lane_of(before) != lane_of(after)):
            order |= {"lane": lane_of(after), "lead": _lead(after)}
        verdict, detail, fields = self._run(before.id, {k: v for k, v in order.items() if v is not None})
        if verdict == "full":
            raise LimitReached(detail)
        if verdict != "ok":
            raise StaleOwner("STALE_OWNER", f"{before.id}: the record moved on ({verdict} {detail})")
        return _parse(before.id, fields)

    def samples(self, run_id: str) -> list[Sample]:
        """What was seen of a migration's transfers, oldest first."""
        with translated():
            rows: list[str] = self._redis.lrange(f"{PREFIX}samples:{run_id}", 0, -1)  # type: ignore[assignment]
        return [_sample(row) for row in rows]

    def recall_digest(self, key: str) -> str | None:
        """The digest remembered under a key that names a file's host, path, size and time of change."""
        with translated():
            found = self._redis.get(_digest_key(key))
        return str(found) if found is not None else None

    def remember_digest(self, key: str, digest: str) -> None:
        """Keep a digest for as long as records are kept."""
        with translated():
            self._redis.set(_digest_key(key), digest, ex=self._retention_s)

    def _consequences(self, before: RunRecord, after: RunRecord) -> dict[str, Any]:
        order: dict[str, Any] = {}
        if before.state is State.QUEUED:
            order["queue"] = False
        if after.is_terminal:
            order["finish"] = 0 if after.state is State.NEEDS_ATTENTION else self._retention_s
        if before.is_terminal:
            order["reopen"] = True
            order["set"] = _control(after) | {"cancel_requested": 0}
        return order

    def _event(self, before: RunRecord, after: RunRecord) -> dict[str, Any]:
        return {"event": event_of(after, before.state).model_dump_json(), "events_kept": self._events_kept}

    def admit(self, before: RunRecord, after: RunRecord, limits: Limits, *, deadline_in: float) -> Admission:
        """Take all tokens and the VM's lock and write ``after``, or do nothing at all.

        Raises:
            StaleOwner: the record is no longer what ``before`` says.
        """
        check_transition(before.state, after.state)
        acquire = {"tokens": dict(limits.tokens), "lock": limits.lock}
        order: dict[str, Any] = {"guard": _guard(before, "rev"), "set": _control(after), "body": _body(after)}
        order |= {"acquire": acquire, "queue": False, "deadline_in": deadline_in, "resend_in": deadline_in}
        order |= self._event(before, after)
        verdict, detail, fields = self._run(before.id, order)
        if verdict == "ok":
            return Admission(_parse(before.id, fields), admitted=True)
        if verdict in ("full", "locked"):
            return Admission(before, admitted=False, missing=verdict, holder=detail)
        raise StaleOwner("STALE_OWNER", f"{before.id}: the record moved on ({verdict} {detail})")

    def request_cancel(self, record: RunRecord) -> RunRecord:
        """Set ``cancel_requested`` if the record has not changed its state since it was read.

        Raises:
            StaleOwner: it has; read it again.
        """
        order = {"guard": {"state": record.state.value, "attempt": record.attempt}, "set": {"cancel_requested": 1}}
        verdict, detail, fields = self._run(record.id, order)
        if verdict != "ok":
            raise StaleOwner("STALE_OWNER", f"{record.id}: the record moved on ({verdict} {detail})")
        return _parse(record.id, fields)

    # -- results and retention --------------------------------------------------------------------------------------

    def unpublished(self) -> list[RunRecord]:
        """Finished records whose Celery result is not known to be stored."""
        with translated():
            ids: set[str] = self._redis.smembers(f"{PREFIX}unpublished")  # type: ignore[assignment]
        return self._load_many(sorted(ids))

    def mark_published(self, run_id: str) -> None:
        """The Celery results of this migration are stored."""
        with translated():
            self._redis.srem(f"{PREFIX}unpublished", run_id)

    def prune(self, *, before: float) -> list[str]:
        """Forget records that finished before a moment (Redis TIME); returns their ids. Never those in
        needs_attention, and never one that is not finished."""
        with translated():
            ids: list[str] = self._redis.zrangebyscore(f"{PREFIX}finished", "-inf", before)  # type: ignore[assignment]
        gone = []
        for run_id in ids:
            record = self.find(run_id)
            if record is not None and (not record.is_terminal or record.state is State.NEEDS_ATTENTION):
                continue
            self._forget(run_id)
            gone.append(run_id)
        return gone

    def _forget(self, run_id: str) -> None:
        with translated():
            pipe = self._redis.pipeline(transaction=True)
            pipe.delete(*(f"{PREFIX}{kind}:{run_id}" for kind in ("run", "waiters", "samples")))
            for index in ("runs", "finished", "deadlines", "queued"):
                pipe.zrem(f"{PREFIX}{index}", run_id)
            pipe.srem(f"{PREFIX}unpublished", run_id)
            pipe.execute()

    def ping(self) -> None:
        """Raise ``StoreUnavailable`` unless Redis answers."""
        with translated():
            self._redis.ping()

    def _run(self, run_id: str, order: dict[str, Any]) -> tuple[str, str, dict[str, str]]:
        order["schema"] = SCHEMA_VERSION
        with translated():
            verdict, detail, _, flat = self._write(args=[PREFIX, run_id, json.dumps(order)])
        return verdict, detail, dict(zip(flat[::2], flat[1::2], strict=True))


def _lead(record: RunRecord) -> float:
    """How far its priority puts it before others that came earlier, seconds."""
    return record.request.priority * RANK_S


def _sample(row: str) -> Sample:
    at, *figures = row.split(",")
    memory, disk, dirty, sent = map(int, figures)
    return Sample(at=float(at), memory_kib=memory, disk_kib=disk, dirty_kib_s=dirty, sent_kib_s=sent)


def _digest_key(key: str) -> str:
    return f"vmferry:digest:{hashlib.sha256(key.encode(errors='surrogateescape')).hexdigest()}"


def _guard(record: RunRecord, guard: Guard) -> dict[str, object]:
    if guard == "rev":
        return {"rev": record.rev}
    return {"fence": record.fence, "owner": record.owner, "attempt": record.attempt}


def _control(record: RunRecord) -> dict[str, object]:
    """What ``commit`` may set; fence and deadlines have operations of their own, and a request to cancel that came
    in meanwhile is never taken back by an owner who has not heard of it."""
    control: dict[str, object] = {
        "state": record.state.value,
        "attempt": record.attempt,
        "step": record.step.value if record.step else "",
        "owner": record.owner,
        "send": record.send,
    }
    return control | {"cancel_requested": 1} if record.cancel_requested else control


def _body(record: RunRecord) -> str:
    # Half of a record says that nothing was said; a default that changes its meaning is a new SCHEMA_VERSION.
    return record.model_dump_json(exclude=set(_CONTROL), exclude_defaults=True)


def _parse(run_id: str, fields: Mapping[str, str]) -> RunRecord:
    if not fields:
        raise UnknownMigration("UNKNOWN_ID", f"no migration has the id {run_id}", "vmferry list shows all")
    if int(fields["schema"]) > SCHEMA_VERSION:
        raise VmferryError("RECORD_TOO_NEW", f"{run_id} was written by a newer vmferry", "upgrade this one")
    values = json.loads(fields["body"])
    values |= {name: fields[name] for name in _CONTROL if name not in ("step", "cancel_requested")}
    values["step"] = fields["step"] or None
    values["cancel_requested"] = fields["cancel_requested"] == "1"
    values["submitted_at"] = float(fields["submitted_at"])
    return RunRecord.model_validate(values)
