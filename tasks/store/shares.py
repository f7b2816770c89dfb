"""What each transfer is allotted of the links that it goes over, in Redis; MiB/s."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import redis

from tasks.model.bandwidth import Flow, Route
from tasks.model.errors import StaleOwner
from tasks.model.run import RunRecord
from tasks.store.runs import PREFIX, load_script, translated


class ShareStore:
    """All allotments of one Redis database. Every method raises ``StoreUnavailable`` when Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._share = client.register_script(load_script("share.lua"))

    def ask(self, record: RunRecord, flow: Flow, route: Route, want: int | None = None) -> tuple[Flow, list[Flow]]:
        """Be one of those who share the links, and say what one wants to have; returns what one has, and all of them.

        To have less: when less is used already. To have more: it is given as far as nobody else is allotted it, and
        may be used from now on.

        Raises:
            StaleOwner: somebody else owns the migration by now.
        """
        order: dict[str, Any] = {"links": flow.links, "least": flow.least, "most": flow.most}
        order |= {"limits": dict(route.limits)} | ({} if want is None else {"want": want})
        with translated():
            verdict, held, _, rows = self._share(
                args=[PREFIX, record.id, record.fence, record.owner, json.dumps(order)]
            )
        if verdict != "ok":
            raise StaleOwner("STALE_OWNER", f"{record.id}: somebody else owns it by now")
        return replace(flow, held=int(held)), _flows(rows)

    def all(self) -> list[Flow]:
        """Everyone who shares links now."""
        with translated():
            rows: dict[str, str] = self._redis.hgetall(f"{PREFIX}shares")  # type: ignore[assignment]
        return [_flow(run_id, text) for run_id, text in rows.items()]


def _flows(rows: Sequence[str]) -> list[Flow]:
    return [_flow(run_id, text) for run_id, text in zip(rows[::2], rows[1::2], strict=True)]


def _flow(run_id: str, text: str) -> Flow:
    said = json.loads(text)
    return Flow(run_id, tuple(said["links"]), said["least"], said["most"], int(said["held"]), said["rank"])
