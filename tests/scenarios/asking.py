"""Asking for a guest to be moved with remedies, and what preflight said."""

from __future__ import annotations

from typing import Any

from tasks.model.finding import Severity
from tasks.model.run import RunRecord
from tests.lab import Guest
from tests.scenarios.stack import Stack


def move(running: Stack, guest: Guest, *remedies: str, **asked: Any) -> RunRecord:
    """To beta, to its end."""
    values = {"vm": guest.name, "destination": "beta", "remedies": list(remedies)} | asked
    return running.wait_end(running.client.submit(values).id)


def findings(record: RunRecord) -> dict[str, tuple[Severity, str, str]]:
    """By code: severity, message and hint."""
    return {finding.code: (finding.severity, finding.message, finding.hint) for finding in record.findings}
