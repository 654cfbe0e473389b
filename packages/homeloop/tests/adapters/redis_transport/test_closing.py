"""What an acknowledgement may meet: a channel that is closing or closed, a broker that is gone or refuses."""

import logging
import operator
import socket
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ReadOnlyError

from .conftest import Consuming


def received(consuming, redis: "Redis[str]", prefix: str, number: int) -> Consuming:  # type: ignore[no-untyped-def]
    """A consumer that has so many messages, none of them acknowledged."""
    here: Consuming = consuming(["first"], number)
    here.send(0, *range(number))
    here.start()
    here.run_until(lambda: len(here.received) == number)
    assert redis.hlen(f"{prefix}unacked") == number
    return here


def settle(message: Any, how: str, errors: tuple[type[BaseException], ...]) -> None:
    """Do what Celery's consumer does with a message: errors of these kinds are logged."""
    log = logging.getLogger("settled")
    if how == "ack":
        message.ack_log_error(log, errors)
    else:
        message.reject_log_error(log, errors, requeue=how == "requeue")


def move_broker(here: Consuming, port: int) -> None:
    """Break the consumer's connections, and have new ones opened to that port."""
    for pool in (here.channel._kept.connection_pool, here.channel.client.connection_pool):
        pool.disconnect()
        pool.reset()
        pool.connection_kwargs["port"] = port


@pytest.fixture
def nowhere() -> Iterator[int]:
    """A port that nobody listens on."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]


HOW = pytest.mark.parametrize("how", ["ack", "reject", "requeue"])


@pytest.mark.needs("redis")
@HOW
@pytest.mark.parametrize("close", ["channel.close", "connection.release", "connection.collect"])
def test_an_acknowledgement_may_come_after_the_channel_was_closed(  # type: ignore[no-untyped-def]
    consuming, redis: "Redis[str]", prefix: str, how: str, close: str
) -> None:
    """Its message was given back then: a worker that lost its connection goes on with another one."""
    here = received(consuming, redis, prefix, 2)
    errors = here.channel.connection_errors
    operator.attrgetter(close)(here)()
    assert redis.llen(f"{prefix}first") == 2
    for message in here.received:
        settle(message, how, errors)
        assert message.acknowledged
    assert redis.llen(f"{prefix}first") == 2
    assert (redis.hlen(f"{prefix}unacked"), redis.zcard(f"{prefix}unacked_index")) == (0, 0)


@pytest.mark.needs("redis")
@HOW
def test_a_channel_that_has_never_received_anything_refuses_as_a_lost_connection_does(  # type: ignore[no-untyped-def]
    consuming, how: str
) -> None:
    """An error of a kind that kombu's callers expect."""
    channel = consuming(["first"], 1).connection.channel()
    channel.close()
    settle_it = channel.basic_ack if how == "ack" else partial(channel.basic_reject, requeue=how == "requeue")
    with pytest.raises(channel.connection_errors, match="the channel is closed"):
        settle_it("tag")


@pytest.mark.needs("redis")
@HOW
def test_with_the_broker_gone_it_is_an_error_that_the_caller_expects(  # type: ignore[no-untyped-def]
    consuming, redis: "Redis[str]", prefix: str, how: str, nowhere: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the channel closes, while it does, and after it; the broker has the message still."""
    here = received(consuming, redis, prefix, 3)
    errors = here.channel.connection_errors
    here.received[0].ack()  # and not sent
    move_broker(here, nowhere)
    if how != "ack":  # that one waits for the hub
        settle(here.received[1], how, errors)
    with suppress(*errors):
        here.channel.close()
    assert "couldn't ack ['" in caplog.text
    here.connection.collect()
    settle(here.received[2], how, errors)
    assert caplog.text.count("Couldn't") == (1 if how == "ack" else 2)
    assert redis.hlen(f"{prefix}unacked") == 3


@pytest.mark.needs("redis")
def test_what_could_not_be_sent_goes_with_the_next_acknowledgement_of_a_closed_channel(  # type: ignore[no-untyped-def]
    consuming, redis: "Redis[str]", prefix: str, nowhere: int
) -> None:
    """The broker is there again."""
    here = received(consuming, redis, prefix, 3)
    here.received[0].ack()
    pool = here.channel._kept.connection_pool
    port = pool.connection_kwargs["port"]
    move_broker(here, nowhere)
    with suppress(*here.channel.connection_errors):
        here.channel.close()
    pool.reset()
    pool.connection_kwargs["port"] = port
    here.received[1].ack()
    assert set(redis.hkeys(f"{prefix}unacked")) == {here.received[2].delivery_tag}


@pytest.mark.needs("redis")
def test_closing_goes_on_when_the_connection_it_waits_on_is_dead(  # type: ignore[no-untyped-def]
    consuming, redis: "Redis[str]", prefix: str
) -> None:
    """Kombu reads from it first; acknowledgements are sent and messages given back all the same."""
    here = received(consuming, redis, prefix, 5)
    here.channel.basic_qos(prefetch_count=10)
    here.run_until(lambda: here.channel._in_poll)
    waiting = here.channel._in_poll
    here.received[0].ack()
    waiting._sock.shutdown(socket.SHUT_RDWR)
    here.close()
    assert redis.llen(f"{prefix}first") == 4
    assert (redis.hlen(f"{prefix}unacked"), redis.zcard(f"{prefix}unacked_index")) == (0, 0)


@pytest.mark.needs("redis")
def test_a_channel_may_be_closed_by_who_receives_a_message_of_a_batch(  # type: ignore[no-untyped-def]
    consuming, redis: "Redis[str]", prefix: str
) -> None:
    """The rest of the batch is given back, and not delivered."""
    here = consuming(["first"], 10)
    here.send(0, *range(10))

    def third_closes(message: Any) -> None:
        here.received.append(message)
        if len(here.received) == 3:
            here.channel.close()

    here.consumer.on_message = third_closes
    here.start()
    here.run_until(lambda: len(here.received) == 3)
    here.hub.run_once()
    assert here.bodies() == [0, 1, 2]
    assert (redis.llen(f"{prefix}first"), redis.hlen(f"{prefix}unacked")) == (10, 0)


@pytest.mark.needs("redis")
def test_acknowledgements_that_redis_refuses_do_not_keep_messages_from_being_given_back(  # type: ignore[no-untyped-def]
    consuming, redis: "Redis[str]", prefix: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a replica does, until it is made the master."""
    here = received(consuming, redis, prefix, 3)
    here.received[0].ack()

    def refused() -> None:
        raise ReadOnlyError("You can't write against a read only replica.")

    monkeypatch.setattr(here.channel.qos, "send_acks", refused)
    here.channel.close()
    assert "couldn't ack ['" in caplog.text
    assert redis.llen(f"{prefix}first") == 2
