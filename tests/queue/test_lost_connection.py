"""Redis goes away while a message is in work: the connection is given up, and that is all."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import kombu
import kombu.transport
import pytest

from tasks.transport import GuardedChannel, GuardedTransport
from tests.queue.harness import RedisServer


def drain(connection: Any) -> None:
    """Take everything that has come."""
    with suppress(TimeoutError):
        while True:
            connection.drain_events(timeout=0.5)


def test_closing_a_lost_connection_with_messages_in_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """kombu closes it a second time when the transport has forgotten its address; seen to end a worker."""
    kit: Any = kombu
    monkeypatch.setitem(kombu.transport._transport_cache, "redis", GuardedTransport)
    arrived: list[Any] = []
    with RedisServer() as server:
        connection = kit.Connection(server.url)
        queue = kit.Queue("work")
        for number in range(2):
            connection.Producer().publish({"number": number}, routing_key="work", serializer="json", declare=[queue])
        assert isinstance(connection.default_channel, GuardedChannel)
        channel: Any = connection.default_channel
        kit.Consumer(channel, [queue], callbacks=[lambda body, _: arrived.append(body)]).consume()
        drain(connection)
        assert arrived == [{"number": 0}, {"number": 1}]
        server.kill()
        with suppress(*connection.connection_errors):
            channel._disconnect_pools()
        channel.connection.client = None
        channel.close()
        server.start()
        # What was in work is still known to Redis, and is given out again when its time is over.
        assert server.client().hlen("unacked") == 2


@pytest.mark.parametrize("call", ["ack", "reject"])
def test_a_message_that_is_done_when_its_connection_is_gone(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """A thread ends its task between the loss and the new connection; seen to end a control worker."""
    kit: Any = kombu
    monkeypatch.setitem(kombu.transport._transport_cache, "redis", GuardedTransport)
    arrived: list[Any] = []
    with RedisServer() as server:
        connection = kit.Connection(server.url)
        queue = kit.Queue("work")
        connection.Producer().publish({}, routing_key="work", serializer="json", declare=[queue])
        channel: Any = connection.default_channel
        kit.Consumer(channel, [queue], callbacks=[lambda _, message: arrived.append(message)]).consume()
        drain(connection)
        channel._disconnect_pools()
        channel.connection = None  # as Channel.close leaves it
        getattr(arrived[0], call)()
        assert server.client().hlen("unacked") == 1
