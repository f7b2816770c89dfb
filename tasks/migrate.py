"""The tasks that other systems may send: migrate, cancel, retry, show. Their names and arguments are a contract."""

from __future__ import annotations

import inspect
import logging
import time
from typing import Any

from celery.exceptions import Ignore, Reject

from config.logging import log_context
from tasks.app import app
from tasks.model.errors import InvalidRequest, StoreUnavailable
from tasks.model.request import parse_id
from tasks.wiring import worker_runtime
from tasks.workflow import cancel as cancel_run
from tasks.workflow import dispatch, submit
from tasks.workflow import retry as retry_run

log = logging.getLogger(__name__)


def _signature(
    vm: Any,
    destination: Any,
    source: Any = None,
    method: Any = "auto",
    storage: Any = "auto",
    policy: Any = "default",
    id: Any = None,  # noqa: A002 - the public contract names it
    labels: Any = None,
    *,
    pools: Any = None,
    devices: Any = None,
    sizes: Any = None,
    accept: Any = None,
    verify: Any = None,
    remedies: Any = None,
    source_disks: Any = None,
    shut_down: Any = None,
    data_path: Any = None,
    window: Any = None,
    time_zone: Any = None,
    not_before: Any = None,
    deadline: Any = None,
    priority: Any = None,
) -> None:
    """The arguments of ``tasks.migrate``, in their order; later ones have to be named."""


_MAY_BE_NULL = (
    *("labels", "pools", "devices", "sizes", "accept", "remedies", "verify", "source_disks", "shut_down", "data_path"),
    *("window", "time_zone", "not_before", "deadline", "priority"),
)
"""Arguments that may be null, which is the same as not said."""


def _parse(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    try:
        values = dict(inspect.signature(_signature).bind(*args, **kwargs).arguments)
    except TypeError as error:
        raise InvalidRequest("INVALID_REQUEST", f"tasks.migrate: {error}", "see the arguments in the README") from None
    run_id = values.pop("id", None)
    for name in _MAY_BE_NULL:
        if values.get(name, ...) is None:
            del values[name]
    return values, run_id


@app.task(
    name="tasks.migrate", bind=True, typing=False, acks_late=True, ignore_result=True, store_errors_even_if_ignored=True
)
def migrate(self: Any, *args: Any, **kwargs: Any) -> None:
    """Write the record of a migration; its result appears under the migration's id when it has ended.

    Acknowledged late: a worker that dies here leaves the message, and writing the same record twice is harmless.
    """
    runtime, own_id = worker_runtime(), self.request.id
    try:
        values, run_id = _parse(args, kwargs)
        submit(runtime, values, run_id if run_id is not None else own_id, waiter=own_id)
    except InvalidRequest as error:
        if runtime.store.find(own_id) is not None:
            # The message's own id belongs to a migration: its result must not be replaced by this message's error.
            with log_context(id=own_id):
                log.warning("refused, result of the running migration %s kept: %s", own_id, error)
            raise Ignore from None
        raise
    except StoreUnavailable as error:
        log.warning("put back: %s", error)
        time.sleep(1.0)
        raise Reject(error, requeue=True) from None
    dispatch(runtime)


@app.task(name="tasks.cancel")
def cancel(id: str) -> dict[str, Any]:  # noqa: A002 - the public contract names it
    """Cancel a migration; returns its record."""
    runtime = worker_runtime()
    record = cancel_run(runtime, parse_id(id))
    dispatch(runtime)
    return record.model_dump(mode="json")


@app.task(name="tasks.retry")
def retry(id: str) -> dict[str, Any]:  # noqa: A002
    """Try a finished migration again; returns its record."""
    return retry_run(worker_runtime(), parse_id(id)).model_dump(mode="json")


@app.task(name="tasks.show")
def show(id: str) -> dict[str, Any]:  # noqa: A002
    """The run record."""
    return worker_runtime().store.load(parse_id(id)).model_dump(mode="json")
