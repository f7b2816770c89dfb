"""Drains of the configuration, begun when they are due, by whoever looks: any number of processes at the same time.

A drain's id is made of its name in the configuration and of the moment at which it was due. Whoever looks asks for the
same drain, and that is one drain: no lock, and nobody who has to live for it.
"""

from __future__ import annotations

import logging

from config.recurring import RecurringDrainSettings
from tasks.model.drain import DrainRecord, DrainState, parse_drain
from tasks.model.errors import InvalidRequest
from tasks.model.recurring import Coming, RecurringStatus
from tasks.model.run import ErrorInfo
from tasks.planning.recurrence import (
    Occasion,
    Recurrence,
    next_occasions,
    occasions_between,
    parse_recurrence,
    returns_between,
)
from tasks.workflow.drains import ask_drain, check_drain, taken_away
from tasks.workflow.errands import lift_cordon
from tasks.workflow.runtime import Runtime

log = logging.getLogger(__name__)

LOOK_BACK_S = 14 * 86400.0
"""What was missed longer ago is nobody's news."""
PASSING = frozenset({"DRAIN_UNDER_WAY", "NOT_ENDED"})
"""What stands in the way for now only."""
SHOWN = 3
RETURN = "-back"


def begin_recurring(runtime: Runtime) -> None:
    """Begin what is due; say of what can no longer begin that it was missed."""
    for name in runtime.settings.recurring_drains:
        _look(runtime, name)


def list_recurring(runtime: Runtime) -> list[RecurringStatus]:
    """Each drain of the configuration, with the next times and the newest drain that it has begun."""
    return [_status(runtime, name) for name in runtime.settings.recurring_drains]


def _look(runtime: Runtime, name: str) -> None:
    now, since = runtime.drains.now(), runtime.drains.recurring_mark(name)
    if since is None:  # newly configured: what was due before is not
        runtime.drains.put_recurring_mark(name, now)
        return
    recurrence, since = _recurrence(runtime.settings.recurring_drains[name]), max(since, now - LOOK_BACK_S)
    open_ones = [one.due for one in occasions_between(recurrence, since, now) if not _begin(runtime, name, one, now)]
    for one in returns_between(recurrence, since, now):
        if not _bring_back(runtime, name, one, now):
            open_ones.append(one.returns or now)
    # Only so far that what must wait is looked at again.
    runtime.drains.put_recurring_mark(name, min((now, *(moment - 1.0 for moment in open_ones))))


def _begin(runtime: Runtime, name: str, occasion: Occasion, now: float) -> bool:
    """Tells whether this occasion is dealt with."""
    drain_id, settings = _id(name, occasion), runtime.settings.recurring_drains[name]
    if runtime.drains.find(drain_id) is not None:
        return True
    values = settings.drain_values() | ({} if occasion.ends is None else {"deadline": occasion.ends})
    if not occasion.may_begin(now):
        holder = runtime.drains.under_way().get(settings.host)
        why = f"drain {holder} is under way" if holder else "nobody was there to begin it in time"
        if not occasion.has_time:
            why = "its hours do not exist on this day, on which the clocks are changed"
        hint = f"vmferry drain {settings.host} does it now"
        _refuse(runtime, drain_id, values, ErrorInfo(code="DRAIN_MISSED", message=f"it was due, and {why}", hint=hint))
        return True
    return _ask(runtime, drain_id, values)


def _bring_back(runtime: Runtime, name: str, occasion: Occasion, now: float) -> bool:
    """The same for what comes back; nothing does when nothing went."""
    earlier, back_id = runtime.drains.find(_id(name, occasion)), _id(name, occasion) + RETURN
    if earlier is None or runtime.drains.find(back_id) is not None:
        return True
    host = earlier.request.host
    values = {"host": host, "returns": earlier.id} | runtime.settings.recurring_drains[name].return_values()
    if not occasion.may_return(now):
        why = "nobody was there to begin it" if earlier.is_ended else f"drain {earlier.id} is {earlier.state}"
        hint = f"vmferry drain {host} --return-of {earlier.id} does it now"
        error = ErrorInfo(code="DRAIN_MISSED", message=f"its VMs were to come back, and {why}", hint=hint)
        _refuse(runtime, back_id, values, error)
        return True
    if earlier.is_ended and not taken_away(runtime, earlier):
        lift_cordon(runtime, host, earlier.id)
        return True
    return _ask(runtime, back_id, values)


def _ask(runtime: Runtime, drain_id: str, values: dict[str, object]) -> bool:
    try:
        asked = ask_drain(runtime, values, drain_id)
        if asked.id != drain_id:  # the one before asks for the same, and is under way still
            return False
    except InvalidRequest as error:
        if error.code in PASSING:
            return False
        _refuse(runtime, drain_id, values, ErrorInfo(code=error.code, message=error.message, hint=error.hint))
    else:
        log.info("drain %s has begun, as it was due", drain_id)
    return True


def _refuse(runtime: Runtime, drain_id: str, values: dict[str, object], error: ErrorInfo) -> None:
    """Write down that it did not begin, and why, as a drain that is over."""
    log.error("drain %s was not begun: %s", drain_id, error.message)
    try:
        request = parse_drain(values)
        record = DrainRecord(id=drain_id, request=request, state=DrainState.REFUSED, error=error)
        runtime.drains.create(record.model_copy(update={"finished_at": runtime.drains.now()}))
    except InvalidRequest as refused:
        log.warning("drain %s: %s", drain_id, refused.message)


def _status(runtime: Runtime, name: str) -> RecurringStatus:
    settings = runtime.settings.recurring_drains[name]
    recurrence, now, problem = _recurrence(settings), runtime.drains.now(), ""
    try:
        check_drain(runtime, settings.drain_values())
    except InvalidRequest as error:
        problem = error.message
    known = (runtime.drains.find(_id(name, one)) for one in reversed(_past(recurrence, now)))
    last = next((record for record in known if record is not None), None)
    coming = next_occasions(recurrence, now, SHOWN)
    return RecurringStatus(
        name=name,
        host=settings.host,
        time_zone=settings.time_zone,
        coming=tuple(Coming(id=_id(name, o), due=o.due, ends=o.ends, returns=o.returns) for o in coming),
        last=last.id if last is not None else None,
        last_state=last.state if last is not None else None,
        problem=problem,
    )


def _past(recurrence: Recurrence, now: float) -> list[Occasion]:
    return occasions_between(recurrence, now - 5 * LOOK_BACK_S, now)


def _recurrence(settings: RecurringDrainSettings) -> Recurrence:
    s = settings
    return parse_recurrence(s.at, s.until, s.return_at, list(s.days), list(s.weeks), s.time_zone)


def _id(name: str, occasion: Occasion) -> str:
    return f"{name}-{occasion.stamp}"
