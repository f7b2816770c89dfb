"""The tasks about drains that other systems may send, and the one that moves drains on."""

from __future__ import annotations

import inspect
import uuid
from typing import Any

from tasks import workflow
from tasks.app import app
from tasks.model.drain import DrainRequest
from tasks.model.errors import InvalidRequest
from tasks.wiring import worker_runtime


def _parse(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[str, Any], str]:
    names = [name for name in DrainRequest.model_fields if name != "host"] + ["id"]
    parameters = [inspect.Parameter("host", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    parameters += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in names]
    try:
        values = dict(inspect.Signature(parameters).bind(*args, **kwargs).arguments)
    except TypeError as error:
        raise InvalidRequest(
            "INVALID_REQUEST", f"tasks.drain: {error}", "see the arguments in docs/drains.md"
        ) from None
    drain_id = values.pop("id", None)
    said = {name: value for name, value in values.items() if value is not None or name == "host"}
    return said, str(uuid.uuid4()) if drain_id is None else drain_id


@app.task(name="tasks.drain", typing=False)
def drain(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """Ask for a host to be emptied; returns the drain's record at once. Asked again it is the same drain."""
    runtime = worker_runtime()
    record = workflow.ask_drain(runtime, *_parse(args, kwargs))
    runtime.turns.want("drains")
    workflow.advance_drains(runtime)
    return runtime.drains.load(record.id).model_dump(mode="json")


@app.task(name="tasks.show_drain")
def show_drain(id: str) -> dict[str, Any]:  # noqa: A002 - as in tasks.show
    """The drain's record."""
    return worker_runtime().drains.load(id).model_dump(mode="json")


@app.task(name="tasks.cancel_drain")
def cancel_drain(id: str) -> dict[str, Any]:  # noqa: A002
    """Cancel a drain, with what is queued or under way; returns its record."""
    return workflow.cancel_drain(worker_runtime(), id).model_dump(mode="json")


@app.task(name="tasks.advance_drains", ignore_result=True, send_events=False)
def advance_drains() -> None:
    """Begin drains that are due, and look at every one that is not over."""
    runtime = worker_runtime()
    workflow.begin_recurring(runtime)
    if workflow.advance_drains(runtime):
        workflow.dispatch(runtime)
