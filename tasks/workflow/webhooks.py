"""Telling other systems by HTTP: the stream of events, in its order, at least once."""

from __future__ import annotations

import logging
from collections.abc import Callable

from config.settings import WebhookSettings
from tasks.model.event import Told
from tasks.model.webhook import Delivery, Undelivered
from tasks.planning.webhooks import headers_of, is_wanted, wait_after
from tasks.workflow.runtime import Runtime
from tasks.workflow.turns import turn

log = logging.getLogger(__name__)

AT_A_TIME_S = 20.0
"""How long one look may be busy with one webhook: others wait for the same threads."""
BEGINNING = "0-0"
Post = Callable[[str, bytes, dict[str, str], float], str]


def deliver_webhooks(runtime: Runtime, post: Post) -> int:
    """Tell every webhook what it was not told yet; returns how many events were taken."""
    return sum(_deliver(runtime, name, hook, post) for name, hook in runtime.settings.webhooks.items())


def _deliver(runtime: Runtime, name: str, hook: WebhookSettings, post: Post) -> int:
    with turn(runtime, f"webhook:{name}") as mine:
        return _tell(runtime, name, hook, post) if mine else 0


def _tell(runtime: Runtime, name: str, hook: WebhookSettings, post: Post) -> int:
    kept = runtime.webhooks.find(name)
    if kept is None:  # a webhook that is new hears of what happens from now on
        newest = runtime.events.newest(1)
        kept = Delivery(position=newest[-1].position if newest else BEGINNING)
        runtime.webhooks.put(name, kept)
    began, taken = runtime.store.now(), 0
    if began < kept.next_at:
        return 0
    while page := runtime.events.read(kept.position):
        for told in page:
            if not is_wanted(told.event, hook.kinds, hook.states):
                kept = Delivery(position=told.position)
                continue
            error = _post(runtime, hook, told, post)
            if error and not _put_off(runtime, name, hook, told, kept, error):
                return taken
            kept = Delivery(position=told.position)
            runtime.webhooks.put(name, kept)
            taken += not error
            if runtime.stopping.is_set() or runtime.store.now() - began > AT_A_TIME_S:
                return taken
        runtime.webhooks.put(name, kept)
    return taken


def _post(runtime: Runtime, hook: WebhookSettings, told: Told, post: Post) -> str:
    body = told.model_dump_json().encode()
    headers = headers_of(told, body, hook.secret.get_secret_value(), runtime.store.now())
    return post(hook.url, body, headers, hook.timeout_s)


def _put_off(runtime: Runtime, name: str, hook: WebhookSettings, told: Told, kept: Delivery, error: str) -> bool:
    """Note when to try again; whether it is given up instead, being too old by now."""
    now = runtime.store.now()
    if now - told.at > hook.give_up_s:
        log.warning("webhook %s: %s given up after %d tries: %s", name, told.position, kept.tries + 1, error)
        lost = Undelivered(position=told.position, at=now, error=error, event=told.event.model_dump_json())
        runtime.webhooks.give_up(name, lost, Delivery(position=told.position))
        return True
    tries = kept.tries + 1
    log.info("webhook %s: %s not delivered (try %d): %s", name, told.position, tries, error)
    waiting = {"tries": tries, "next_at": now + wait_after(tries), "error": error}
    runtime.webhooks.put(name, kept.model_copy(update=waiting))
    return False
