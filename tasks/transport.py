"""What stands between Redis and the worker: a message that no worker can read is put aside, and the worker lives.

Anybody who can reach Redis can push anything. Celery's worker ends for some of it (not JSON, a JSON list) and for
some it ends and puts the message back to the head, so that every restart ends too. Here each message of the guarded
queues is read once, the way the worker is going to read it, before kombu sees it; what does not pass goes, byte for
byte, to a Redis list.

kombu resolves a URL's scheme through its registry of transports. That registry is where the guarded ones are put in:
the setting ``broker_transport`` is not honoured for unix sockets, turns TLS off for ``rediss://`` and shows up as the
scheme of the URL that Flower connects to.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from celery import Task, signals
from celery.exceptions import InvalidTaskError
from celery.worker.request import Request
from kombu.transport import TRANSPORT_ALIASES, get_transport_cls
from kombu.transport import redis as kombu_redis
from kombu.transport.virtual import Channel
from kombu.utils.functional import retry_over_time
from kombu.utils.json import dumps, loads
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

log = logging.getLogger(__name__)

Text = Annotated[str, StringConstraints(min_length=1)]

KEEP_RETRIES = 100
"""Attempts, at most one second apart, to keep a message while Redis is away."""
REASON_LENGTH = 300


class DeliveryInfo(BaseModel):
    """Where kombu would put the message back."""

    exchange: str
    routing_key: str


class Properties(BaseModel):
    """What kombu's bookkeeping needs."""

    delivery_tag: Text
    delivery_info: DeliveryInfo


class Headers(BaseModel):
    """What Celery's worker relies on in a protocol 2 message."""

    model_config = ConfigDict(strict=True)

    task: Text
    id: Text
    eta: str | None = None
    expires: str | None = None
    timelimit: Annotated[list[float | None], Field(min_length=2, max_length=2)] | None = None


_properties = TypeAdapter(Properties)
_headers = TypeAdapter(Headers)
_body = TypeAdapter[Any](tuple[list[Any], dict[str, Any], dict[str, Any] | None])


def find_problem(raw: bytes, channel: Channel) -> str | None:
    """Why no worker can read the message, None when it can. Tells nothing of the message's values."""
    try:
        payload = loads(raw.decode())  # type: ignore[no-untyped-call]
        _properties.validate_python(payload["properties"])
        headers, body = _read(payload, channel)
        _headers.validate_python(headers)
        _body.validate_python(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        return f"{error.title} {where}: {first['msg']}"[:REASON_LENGTH]
    except Exception as error:  # noqa: BLE001 - whatever it is, the worker would have met it
        return f"{type(error).__name__}: {error}"[:REASON_LENGTH]
    return None


def _read(payload: Any, channel: Channel) -> tuple[Any, Any]:
    """Headers and body, by kombu's own means; raises anything."""
    message = channel.Message(payload, channel=channel)  # type: ignore[no-untyped-call]
    message.accept = {"application/json"}
    if message.errors:
        message._reraise_error()  # type: ignore[no-untyped-call]
    return message.headers, message.payload


class GuardedQoS(kombu_redis.QoS):
    """kombu's list of messages in work, whose end never ends the worker."""

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Put back what is in work, when a connection is given up; without Redis it comes back by itself, later.

        kombu closes a lost connection twice, the second time without knowing its address any more: with messages in
        work that is an AttributeError or an AssertionError, and the worker would exit because Redis was restarted.
        """
        try:
            super().restore_unacked_once(stderr)  # type: ignore[no-untyped-call]
        except (*self.channel.connection_errors, AttributeError, AssertionError) as error:
            log.info("%d messages in work are not put back: %s", len(self._delivered), type(error).__name__)
            self._delivered.clear()

    def ack(self, delivery_tag: str) -> None:
        """Done with it. A task that ends while its connection is given up comes too late: seen to end a worker."""
        with self._unless_given_up(delivery_tag):
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """The same, for what is not to be done."""
        with self._unless_given_up(delivery_tag):
            super().reject(delivery_tag, requeue)  # type: ignore[no-untyped-call]

    @contextmanager
    def _unless_given_up(self, delivery_tag: str) -> Iterator[None]:
        """A closed channel has lost its connection, and with it the address; what it held is given out again."""
        try:
            yield
        except AttributeError:
            if self.channel.connection is not None:
                raise
            log.info("%s is not acknowledged, its connection was given up: it comes again", delivery_tag)


class GuardedChannel(kombu_redis.Channel):
    """kombu's Redis channel; unreadable messages of ``guarded_queues`` go to the list ``poison_key``."""

    QoS = GuardedQoS

    guarded_queues: tuple[str, ...] = ()
    poison_key = "poison"
    poison_limit = 1000
    guard_options = ("guarded_queues", "poison_key", "poison_limit")

    from_transport_options = (*kombu_redis.Channel.from_transport_options, *guard_options)  # type: ignore[assignment]

    def _get_client(self) -> Any:
        """The client class of this channel: the place where kombu's replies to BRPOP come by unparsed."""
        channel = self

        class GuardedClient(super()._get_client()):  # type: ignore[misc]
            def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
                reply = super().parse_response(connection, command_name, **options)
                return channel.sift(reply) if command_name == "BRPOP" and reply else reply

        return GuardedClient

    def sift(self, reply: tuple[bytes, bytes]) -> tuple[bytes, bytes] | None:
        """The reply, or what Redis says when nothing came, once an unreadable message is put aside."""
        key, raw = reply
        queue = key.decode(errors="replace").rsplit(self.sep, 1)[0]
        problem = find_problem(raw, self) if queue in self.guarded_queues else None
        if problem is None:
            return reply
        self.put_aside(raw, queue, problem)
        return None

    def _deliver_fanout_message(self, message: Any, exchange: str) -> bool:
        """Broadcasts, such as control commands, reach all workers at once: an unreadable one would end them all."""
        try:
            _read(message, self)
        except Exception as error:  # noqa: BLE001 - as in find_problem
            log.error("unreadable broadcast on %s ignored: %s", exchange, type(error).__name__)  # noqa: TRY400
            return False
        delivered: bool = super()._deliver_fanout_message(message, exchange)  # type: ignore[no-untyped-call]
        return delivered

    def put_aside(self, raw: bytes, queue: str, problem: str) -> None:
        """Keep the message, byte for byte; the oldest falls off when there are more than ``poison_limit``."""
        retry_over_time(  # type: ignore[no-untyped-call]
            self._keep, self.connection_errors, (raw,), max_retries=KEEP_RETRIES, interval_max=1
        )
        log.error("unreadable message of %s put aside in %s: %s", queue, self.poison_key, problem)

    def _keep(self, raw: bytes) -> None:
        with self.conn_or_acquire() as client, client.pipeline() as pipe:
            pipe.lpush(self.poison_key, raw).ltrim(self.poison_key, 0, self.poison_limit - 1).execute()


class GuardedSentinelChannel(GuardedChannel, kombu_redis.SentinelChannel):
    """The same, for a Redis that is found through Sentinel."""

    from_transport_options = (  # type: ignore[assignment]
        *kombu_redis.SentinelChannel.from_transport_options,
        *GuardedChannel.guard_options,
    )


class GuardedTransport(kombu_redis.Transport):
    """kombu's Redis transport with the guarded channel."""

    Channel = GuardedChannel


class GuardedSentinelTransport(kombu_redis.SentinelTransport):
    """kombu's Sentinel transport with the guarded channel."""

    Channel = GuardedSentinelChannel


TRANSPORTS: dict[str, type[kombu_redis.Transport]] = {
    "redis": GuardedTransport,
    "rediss": GuardedTransport,
    "sentinel": GuardedSentinelTransport,
}


@signals.celeryd_init.connect
def guard_worker(**_: Any) -> None:
    """Before a worker process opens its first connection: let the Redis schemes mean the guarded transports.

    Raises:
        RuntimeError: kombu has resolved a scheme already, and would go on using its own transport.
    """
    for scheme, transport in TRANSPORTS.items():
        TRANSPORT_ALIASES[scheme] = f"{transport.__module__}:{transport.__qualname__}"
        if get_transport_cls(scheme) is not transport:
            raise RuntimeError(f"a connection of scheme {scheme} was opened before the worker was set up")


class GuardedRequest(Request):
    """The worker's view of a message; whatever it cannot make sense of is an invalid task, not the worker's end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(*args, **kwargs)
        except InvalidTaskError:
            raise
        except Exception as error:
            raise InvalidTaskError(f"{type(error).__name__}: {error}") from error


class GuardedTask(Task):
    """The base of all tasks."""

    Request = "tasks.transport:GuardedRequest"


@signals.task_rejected.connect
@signals.task_unknown.connect
def _keep_rejected(message: Any, exc: Exception | None = None, **_: Any) -> None:
    """Celery drops what it calls invalid or unknown; an older worker may only not know the task yet."""
    if isinstance(message.channel, GuardedChannel):
        raw = dumps(message.serializable()).encode()  # type: ignore[no-untyped-call]
        queue = message.delivery_info.get("routing_key", "")
        message.channel.put_aside(raw, queue, f"{type(exc).__name__}: {exc}"[:REASON_LENGTH])
