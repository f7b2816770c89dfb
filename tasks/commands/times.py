"""Moments and windows as people type them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from tasks.model.errors import InvalidRequest

WindowOption = Annotated[
    str | None, typer.Option(metavar="HH:MM-HH:MM", help="Start only in these hours of the day, over midnight or not.")
]
ZoneOption = Annotated[str, typer.Option("--time-zone", metavar="ZONE", help="Of the window, such as Europe/Berlin.")]
NotBeforeOption = Annotated[
    str | None, typer.Option(metavar="TIME", help="Start no earlier, such as 2026-11-24T22:00; local time.")
]
DeadlineOption = Annotated[str | None, typer.Option(metavar="TIME", help="Start nothing that would end later.")]


def times_of(window: str | None, zone: str, not_before: str | None, deadline: str | None) -> dict[str, Any]:
    """What was said, as a request has it.

    Raises:
        InvalidRequest: ``INVALID_TIME``.
    """
    said = {"window": window, "time_zone": zone if zone != "UTC" else None}
    said |= {"not_before": _moment(not_before), "deadline": _moment(deadline)}  # type: ignore[dict-item]
    return {name: value for name, value in said.items() if value is not None}


def _moment(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        hint = "for example 2026-11-24T22:00, or with a zone 2026-11-24T22:00+01:00"
        raise InvalidRequest("INVALID_TIME", f"{text!r:.60} is no moment", hint) from None
