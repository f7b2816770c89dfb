"""Celery's settings, from ours.

What is set here and is not Celery's default was chosen by measuring Celery 5.7 on Redis; ``tests/queue`` pins the
behaviour that each choice rests on. A setting without a comment says what its name says.
"""

from __future__ import annotations

import ssl
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from kombu.entity import Exchange, Queue

from config.settings import Settings

CONTROL_QUEUE = "vmferry"
"""Callers' tasks, dispatcher, reconciler: short tasks only."""
STEPS_QUEUE = "vmferry.steps"
"""Steps of migrations: a task here may hold its worker slot for hours."""

POISON_KEY = "vmferry:poison"
"""Redis list of messages that no worker can read, newest first; see tasks/transport.py."""
POISON_LIMIT = 1000
"""Messages kept there."""

VISIBILITY_TIMEOUT_S = 60
SOCKET_TIMEOUT_S = 10.0
HEALTH_CHECK_S = 25
REPUBLISH_PERIOD_S = 60.0
PRUNE_PERIOD_S = 3600.0

CERT_REQS = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


def celery_settings(settings: Settings) -> dict[str, object]:
    """Everything for ``app.conf.update``."""
    return {
        **_broker(settings),
        **_results(settings),
        **_tasks(),
        **_worker(settings),
        "timezone": "UTC",
        "enable_utc": True,
        # In memory: the schedule is what is written here, and a file of last runs would only ask for a writable place.
        "beat_scheduler": "celery.beat:Scheduler",
        "beat_schedule": beat_schedule(settings),
    }


def _broker(settings: Settings) -> dict[str, object]:
    url = celery_url(settings.broker_url)
    return {
        "broker_url": url,
        "broker_use_ssl": tls_options(settings.broker_url),
        "broker_connection_retry": True,
        "broker_connection_retry_on_startup": True,
        # Celery's default gives up after 100 attempts, and the worker ends.
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            # Only messages that were taken and not yet started or, for tasks that acknowledge late, not yet finished
            # depend on it. Those take seconds, so the messages of a dead worker come back soon.
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            # The defaults, 10 s x 10, add up to 100 s before what a dead worker had taken is seen.
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            # By default these keys are shared by every application of the Redis db, each sweeping with its own timeout.
            "unacked_key": "vmferry:unacked",
            "unacked_index_key": "vmferry:unacked_index",
            "unacked_mutex_key": "vmferry:unacked_mutex",
            # The default, none, lets a publish hang for ever when Redis vanished without closing the connection.
            "socket_timeout": SOCKET_TIMEOUT_S,
            "socket_connect_timeout": SOCKET_TIMEOUT_S,
            "socket_keepalive": True,
            "health_check_interval": HEALTH_CHECK_S,
            "guarded_queues": (CONTROL_QUEUE, STEPS_QUEUE),
            "poison_key": POISON_KEY,
            "poison_limit": POISON_LIMIT,
            **({"master_name": settings.sentinel_master} if url.startswith("sentinel") else {}),
        },
    }


def _results(settings: Settings) -> dict[str, object]:
    origin = settings.result_backend or settings.broker_url
    url = celery_url(origin)
    sentinel = {"master_name": settings.sentinel_master} if url.startswith("sentinel") else {}
    return {
        "result_backend": url,
        "result_backend_transport_options": sentinel,
        "redis_backend_use_ssl": tls_options(origin),
        "redis_socket_timeout": SOCKET_TIMEOUT_S,
        "redis_socket_connect_timeout": SOCKET_TIMEOUT_S,
        # redis-py's unix socket connection does not know the argument.
        "redis_socket_keepalive": not url.startswith("redis+socket"),
        "redis_retry_on_timeout": True,
        "redis_backend_health_check_interval": HEALTH_CHECK_S,
        # As long as the records: a caller who comes late finds either both or none.
        "result_expires": settings.retention_s,
        "result_failure_expires": settings.retention_s,
        "result_extended": True,
        # Without these and the publish retries below, Redis being away for 40 s at the end of a step leaves the step
        # STARTED for ever and the next one unsent, and a connection lost within 30 ms of a step's end now and then
        # stores a FAILURE that did not happen.
        "result_backend_always_retry": True,
        "result_backend_max_retries": 100,
        "result_backend_base_sleep_between_retries_ms": 20,
        "result_backend_max_sleep_between_retries_ms": 1000,
    }


def _tasks() -> dict[str, object]:
    return {
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "task_queues": [queue(CONTROL_QUEUE), queue(STEPS_QUEUE)],
        "task_default_queue": CONTROL_QUEUE,
        "task_routes": {"tasks.steps.*": {"queue": STEPS_QUEUE}},
        # A misspelt queue name is an error instead of a queue that nobody reads.
        "task_create_missing_queues": False,
        "task_track_started": True,
        "task_send_sent_event": True,
        # Early: a connection blip puts back what is unacknowledged, and Celery would start the running step a second
        # time within 0.1 s. Lost messages are the reconciler's business.
        "task_acks_late": False,
        "task_publish_retry": True,
        # The default gives up after 3 attempts: the next step of a chain would not be sent.
        "task_publish_retry_policy": {
            "max_retries": 100,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 1,
        },
    }


def _worker(settings: Settings) -> dict[str, object]:
    return {
        "worker_pool": "threads",
        "worker_concurrency": settings.step_concurrency,
        "worker_prefetch_multiplier": 1,
        # Leaves messages in Redis until a slot is free: a prefetched one waits behind a transfer of hours while other
        # workers idle, and runs twice after a connection blip.
        "worker_disable_prefetch": True,
        # Made for late acknowledgement; here it would only take one message at a time after a reconnection.
        "worker_enable_prefetch_count_reduction": False,
        "worker_detect_quorum_queues": False,
        "worker_send_task_events": True,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }


def queue(name: str) -> Queue:
    """A durable queue, declared as a plain client declares it when it only knows the name."""
    exchange = Exchange(name, type="direct")  # type: ignore[no-untyped-call]
    return Queue(name, exchange, routing_key=name)  # type: ignore[no-untyped-call]


def beat_schedule(settings: Settings) -> dict[str, dict[str, object]]:
    """What runs periodically; all of it harmless when it runs twice or is missed once."""
    return {
        "reconcile": _every(settings.reconcile_period_s, "tasks.reconcile"),
        "dispatch": _every(settings.reconcile_period_s, "tasks.dispatch"),
        "webhooks": _every(settings.reconcile_period_s, "tasks.deliver_webhooks"),
        "drains": _every(settings.reconcile_period_s, "tasks.advance_drains"),
        "republish": _every(REPUBLISH_PERIOD_S, "tasks.republish"),
        "prune": _every(PRUNE_PERIOD_S, "tasks.prune"),
    }


def _every(period_s: float, task: str) -> dict[str, object]:
    # What piled up while no worker ran is thrown away instead of run. Generous, since the sender's clock is compared
    # with the worker's: an expiry of one period would stop the reconciler on hosts whose clocks are seconds apart.
    expires_s = max(60.0, 12 * period_s)
    return {"task": task, "schedule": period_s, "options": {"queue": CONTROL_QUEUE, "expires": expires_s}}


def celery_url(url: str) -> str:
    """The URL as Celery and kombu spell it: ``unix://`` becomes ``redis+socket://``, TLS options move to settings."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query)
    if parts.scheme == "unix":
        renamed = [("virtual_host" if key == "db" else key, value) for key, value in query]
        # By hand: urlunsplit leaves out the empty host of a scheme that it does not know.
        return f"redis+socket://{parts.netloc}{parts.path}" + (f"?{urlencode(renamed)}" if renamed else "")
    if parts.scheme == "rediss":
        return urlunsplit(parts._replace(query=urlencode([p for p in query if not p[0].startswith("ssl_")])))
    return url


def tls_options(url: str) -> dict[str, object] | None:
    """TLS options from a ``rediss://`` URL's ``ssl_…`` parameters, None for the other schemes.

    The server's certificate is verified unless ``ssl_cert_reqs`` says otherwise; kombu's own default verifies nothing.

    Raises:
        ValueError: ``ssl_cert_reqs`` is none of required, optional, none.
    """
    parts = urlsplit(url)
    if parts.scheme != "rediss":
        return None
    given: dict[str, object] = {key: value for key, value in parse_qsl(parts.query) if key.startswith("ssl_")}
    reqs = str(given.get("ssl_cert_reqs", "required")).lower().removeprefix("cert_")
    if reqs not in CERT_REQS:
        raise ValueError(f"ssl_cert_reqs must be one of {', '.join(CERT_REQS)}")
    given["ssl_cert_reqs"] = CERT_REQS[reqs]
    if "ssl_check_hostname" in given:
        given["ssl_check_hostname"] = str(given["ssl_check_hostname"]).lower() != "false"
    return given
