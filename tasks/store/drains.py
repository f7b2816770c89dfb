"""Drains in Redis: a record each, and which host is being emptied by which."""

from __future__ import annotations

import json
from typing import Any

import redis

from tasks.model.drain import DrainRecord, DrainState, check_drain_transition
from tasks.model.errors import InvalidRequest, StaleOwner, UnknownMigration
from tasks.model.event import drain_event
from tasks.store.runs import PREFIX, load_script, read_clock, translated

HOLDING = frozenset({DrainState.PLANNING, DrainState.PAUSED, DrainState.CANCELLING})
"""States in which a drain's queued migrations wait."""


class DrainStore:
    """All drains of one Redis database. Every method raises ``StoreUnavailable`` when Redis does not answer."""

    def __init__(self, client: redis.Redis, *, retention_s: int, events_kept: int) -> None:
        self._redis = client
        self._retention_s = retention_s
        self._events_kept = events_kept
        self._write = client.register_script(load_script("drain.lua"))

    def now(self) -> float:
        """Redis TIME, seconds since the epoch."""
        return read_clock(self._redis)

    def create(self, record: DrainRecord) -> DrainRecord:
        """The new drain; the one that is there when the same was asked for before, by this id or for this host.

        Raises:
            InvalidRequest: ``ID_TAKEN``, ``DRAIN_UNDER_WAY``.
        """
        verdict, detail = self._put(record, None)
        if verdict == "conflict":
            message = f"another drain has the id {record.id}"
            raise InvalidRequest("ID_TAKEN", message, f"look at it: vmferry show {record.id}")
        if verdict == "busy":
            message = f"{record.request.host} is being emptied already, by drain {detail}, which was asked otherwise"
            raise InvalidRequest("DRAIN_UNDER_WAY", message, f"vmferry watch {detail}, or vmferry cancel {detail}")
        return self.load(detail)

    def commit(self, before: DrainRecord, after: DrainRecord) -> DrainRecord:
        """Write ``after`` if the record is still what ``before`` says.

        Raises:
            StaleOwner: it is not; nothing was written.
            InvalidRequest: ``DRAIN_UNDER_WAY``: another drain of the host began meanwhile.
        """
        check_drain_transition(before.state, after.state)
        verdict, detail = self._put(after, before)
        if verdict == "busy":
            message = f"{after.request.host} is being emptied by drain {detail}"
            raise InvalidRequest("DRAIN_UNDER_WAY", message, f"vmferry watch {detail}, or vmferry cancel {detail}")
        if verdict != "ok":
            raise StaleOwner("STALE_OWNER", f"drain {before.id} moved on")
        return after.model_copy(update={"rev": before.rev + 1})

    def load(self, drain_id: str) -> DrainRecord:
        """The record.

        Raises:
            UnknownMigration: ``UNKNOWN_ID``.
        """
        found = self.find(drain_id)
        if found is None:
            raise UnknownMigration("UNKNOWN_ID", f"no drain has the id {drain_id}", "vmferry drains shows all")
        return found

    def find(self, drain_id: str) -> DrainRecord | None:
        """The record, or None."""
        with translated():
            fields: dict[str, str] = self._redis.hgetall(f"{PREFIX}drain:{drain_id}")  # type: ignore[assignment]
        return _parse(fields) if fields else None

    def newest(self, limit: int) -> list[DrainRecord]:
        """The newest first; expired ones are left out."""
        with translated():
            ids: list[str] = self._redis.zrevrange(f"{PREFIX}drains", 0, limit - 1)  # type: ignore[assignment]
        return [record for drain_id in ids if (record := self.find(drain_id)) is not None]

    def under_way(self) -> dict[str, str]:
        """Host -> id of the drain that empties it."""
        with translated():
            return dict(self._redis.hgetall(f"{PREFIX}drained"))  # type: ignore[arg-type]

    def held(self) -> set[str]:
        """Ids of drains whose queued migrations wait."""
        with translated():
            return set(self._redis.smembers(f"{PREFIX}drains:held"))  # type: ignore[arg-type]

    def recurring_mark(self, name: str) -> float | None:
        """Up to when the occasions of a recurring drain were dealt with; None when it was never looked at."""
        with translated():
            found: str | None = self._redis.hget(f"{PREFIX}recurring", name)  # type: ignore[assignment]
        return None if found is None else float(found)

    def put_recurring_mark(self, name: str, at: float) -> None:
        """Remember it."""
        with translated():
            self._redis.hset(f"{PREFIX}recurring", name, f"{at:.6f}")

    def _put(self, record: DrainRecord, before: DrainRecord | None) -> tuple[str, str]:
        changed = before is None or before.state is not record.state
        event = drain_event(record, before.state if before else None).model_dump_json() if changed else ""
        args: list[Any] = [
            *(PREFIX, record.id, record.request.host, before.rev if before else 0, record.model_dump_json()),
            *("0" if record.is_ended else "1", record.request.fingerprint(), self._retention_s, event),
            *(self._events_kept, "1" if record.state in HOLDING else "0"),
        ]
        with translated():
            verdict, detail, _ = self._write(args=args)
        return str(verdict), str(detail)


def _parse(fields: dict[str, str]) -> DrainRecord:
    values = json.loads(fields["body"]) | {"rev": int(fields["rev"]), "submitted_at": float(fields["submitted_at"])}
    return DrainRecord.model_validate(values)
