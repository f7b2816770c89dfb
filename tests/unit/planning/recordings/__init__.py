"""Statistics of real transfers, as libvirt gave them: what the pure decision about convergence is tested on.

Made by ``python -m tests.unit.planning.recordings``, which needs what a lab needs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tasks.model.domain import JobStats

FOLDER = Path(__file__).parent
FIELDS = (
    "elapsed_ms",
    "memory_total",
    "memory_processed",
    "memory_remaining",
    "memory_iteration",
    "memory_dirty_rate",
    "memory_postcopy_requests",
)
"""What is kept of each look; the rest does not differ, or is not looked at."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One transfer, looked at twice a second."""

    name: str
    how: str
    """What was moved, and how, for people."""
    ended: str
    """How the call ended: ``moved`` or ``aborted``."""
    looks: tuple[tuple[float, JobStats], ...]
    """Seconds since the first look, and what libvirt said."""

    @property
    def took_s(self) -> float:
        """From the first look to the last."""
        return self.looks[-1][0]


def load(name: str) -> Recording:
    """A recording."""
    values = json.loads((FOLDER / f"{name}.json").read_text())
    looks = tuple(
        (row[0], JobStats(active=True, is_migration=True, **dict(zip(FIELDS, row[1:], strict=True))))
        for row in values["looks"]
    )
    return Recording(name, values["how"], values["ended"], looks)


def save(recording: Recording) -> None:
    """Write it, one look a line."""
    rows = [json.dumps([at, *(getattr(job, field) for field in FIELDS)]) for at, job in recording.looks]
    head = {"how": recording.how, "ended": recording.ended, "fields": ["at_s", *FIELDS]}
    body = json.dumps(head, indent=1).rstrip("\n}") + ',\n "looks": [\n  ' + ",\n  ".join(rows) + "\n ]\n}\n"
    (FOLDER / f"{recording.name}.json").write_text(body)
