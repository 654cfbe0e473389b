"""Messages by the batch: in kombu's order, noted in the same step, none lost or kept when a connection is."""

import logging
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, OutOfMemoryError, ReadOnlyError, ResponseError

from homeloop.adapters.celery.pool._redis_take import MOST_BYTES, is_for_good

from .conftest import WAIT


@pytest.mark.needs("redis")
def test_no_more_are_received_than_the_prefetch_limit_says_and_all_are_noted(
    consuming, redis: "Redis[str]", prefix: str
) -> None:  # type: ignore[no-untyped-def]
    """In their order; acknowledged ones make room, and are taken off before the hub waits again."""
    here = consuming(["first"], 10)
    here.send(0, *range(25))
    here.start()
    here.run_until(lambda: len(here.received) == 10)
    here.hub.run_once()
    assert here.bodies() == list(range(10))
    assert (redis.hlen(f"{prefix}unacked"), redis.zcard(f"{prefix}unacked_index")) == (10, 10)
    for message in here.received:
        message.ack()
    assert redis.hlen(f"{prefix}unacked") == 10
    here.run_until(lambda: len(here.received) == 20)
    assert here.bodies() == list(range(20))
    assert redis.hlen(f"{prefix}unacked") == 10
    assert redis.llen(f"{prefix}first") == 5


@pytest.mark.needs("redis")
def test_queues_take_turns_and_priorities_go_first(consuming) -> None:  # type: ignore[no-untyped-def]
    """As with kombu: one of each queue in turn, whichever is the first."""
    here = consuming(["first", "second"], 8)
    here.send(0, *range(20))
    here.send(1, *range(100, 104))
    here.send(1, 200, priority=3)  # the lower number goes first in Redis
    here.start()
    here.run_until(lambda: len(here.received) == 8)
    assert sorted(here.bodies()) == [0, 1, 2, 3, 100, 101, 102, 103]
    for message in here.received:
        message.ack()
    here.run_until(lambda: len(here.received) == 16)
    for message in here.received[8:]:
        message.ack()
    here.run_until(lambda: len(here.received) == 24)
    assert here.bodies()[8:] == list(range(4, 20))
    here.received[-1].ack()
    here.run_until(lambda: len(here.received) == 25)
    assert here.bodies()[-1] == 200


@pytest.mark.needs("redis")
@pytest.mark.parametrize("strategy", ["priority", "sorted"])
def test_another_order_of_queues_is_kept(consuming, strategy: str) -> None:  # type: ignore[no-untyped-def]
    """Kombu's own: the first queue is emptied first (which one that is, kombu 5.5 leaves to a set)."""
    bodies = {"a first": [*range(6)], "b second": [*range(100, 106)]}
    here = consuming([*bodies], 100, queue_order_strategy=strategy)
    here.send(1, *bodies["b second"])
    here.send(0, *bodies["a first"])
    here.start()
    first, second = here.channel._queue_cycle.consume(2)
    here.run_until(lambda: len(here.received) == 12)
    assert here.bodies() == bodies[first] + bodies[second]


@pytest.mark.needs("redis")
def test_without_emulated_acknowledgements_nothing_is_noted(  # type: ignore[no-untyped-def]
    consuming, redis: "Redis[str]", prefix: str
) -> None:
    """``ack_emulation=False``: received as by kombu."""
    here = consuming(["first"], 100, ack_emulation=False)
    here.send(0, *range(5))
    here.start()
    here.run_until(lambda: len(here.received) == 5)
    assert (here.bodies(), redis.hlen(f"{prefix}unacked")) == (list(range(5)), 0)


@pytest.mark.needs("redis")
def test_who_asks_before_each_message_is_asked(consuming) -> None:  # type: ignore[no-untyped-def]
    """Celery's ``worker_disable_prefetch`` puts a function of its own in the place of ``can_consume``."""
    here = consuming(["first"], 100)
    here.send(0, *range(20))
    here.consumer.channel.qos.can_consume = lambda: len(here.received) < 3
    here.start()
    here.run_until(lambda: len(here.received) >= 3)
    here.hub.run_once()
    assert here.bodies() == [0, 1, 2]


@pytest.mark.needs("redis")
def test_what_was_received_and_not_acknowledged_is_given_back_on_closing(
    consuming, redis: "Redis[str]", prefix: str
) -> None:  # type: ignore[no-untyped-def]
    """Delivered or not; and acknowledgements that were not sent yet are."""
    here = consuming(["first"], 10)
    here.send(0, *range(10))

    def first_only(message: Any) -> None:
        here.received.append(message)
        if len(here.received) == 3:
            raise ConnectionError("on purpose")

    here.consumer.on_message = first_only
    here.start()
    with pytest.raises(ConnectionError, match="on purpose"):
        here.run_until(lambda: False)
    here.received[0].ack()
    here.close()
    assert redis.llen(f"{prefix}first") == 9
    assert (redis.hlen(f"{prefix}unacked"), redis.zcard(f"{prefix}unacked_index")) == (0, 0)


@pytest.fixture
def restricted(redis: "Redis[str]", redis_url: str) -> Iterator[Callable[..., str]]:
    """Return the address of a Redis that refuses some commands."""
    user = f"homeloop-{uuid.uuid4().hex}"

    def make(*commands: str) -> str:
        redis.acl_setuser(
            user, enabled=True, passwords=["+secret"], keys=["*"], channels=["*"],
            categories=["+@all"], commands=[f"-{command}" for command in commands],
        )  # fmt: skip
        parts = urlsplit(redis_url)
        return parts._replace(netloc=f"{user}:secret@{parts.hostname}:{parts.port or 6379}").geturl()

    yield make
    redis.acl_deluser(user)


@pytest.mark.needs("redis")
def test_without_the_script_messages_come_one_by_one(  # type: ignore[no-untyped-def]
    consuming, restricted: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    """A server may refuse what it does; the log says so once."""
    here = consuming(["first"], 10, url=restricted("lindex"))
    here.send(0, *range(5))
    here.start()
    with caplog.at_level(logging.WARNING):
        here.run_until(lambda: len(here.received) == 5)
    assert here.bodies() == list(range(5))
    assert caplog.text.count("one by one") == 1


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (NoPermissionError("this user has no permissions to run the 'evalsha' command"), True),
        (ResponseError("unknown command 'EVALSHA', with args beginning with: "), True),
        (ResponseError("The user executing the script can't run this command or subcommand"), True),
        (ReadOnlyError("You can't write against a read only replica."), False),
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), False),
        (ResponseError("BUSY Redis is busy running a script."), False),
    ],
)
def test_what_redis_refuses_for_good(error: ResponseError, is_it: bool) -> None:
    """What it does not know, or does not let this user do; a replica may become the master."""
    assert is_for_good(error) == is_it


@pytest.mark.needs("redis")
def test_a_script_that_was_refused_for_a_passing_reason_is_tried_again(  # type: ignore[no-untyped-def]
    consuming, redis: "Redis[str]", prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Until then messages come one by one."""
    here = consuming(["first"], 10)
    here.send(0, *range(10))
    answers = here.channel._taker.answers
    redis.rpush(answers, "not what it should be")
    here.start()
    with caplog.at_level(logging.WARNING):
        here.run_until(lambda: len(here.received) == 1)
    assert "one by one" in caplog.text
    redis.delete(answers)
    here.run_until(lambda: len(here.received) > 1)
    assert here.bodies() == list(range(10))


@pytest.mark.needs("redis")
def test_a_batch_is_bounded_by_its_bytes_too(consuming) -> None:  # type: ignore[no-untyped-def]
    """Redis serves nobody else while it copies them; the rest comes with the next one."""
    here = consuming(["first", "second"], 100)
    large = "x" * (MOST_BYTES // 8)
    for queue in (0, 1):
        here.send(queue, *[large] * 20)
    sizes: list[int] = []
    take = here.channel._taker.take

    def counted(*args: Any) -> Any:
        taken = take(*args)
        sizes.append(sum(len(item) for _, item in taken))
        return taken

    here.channel._taker.take = counted
    here.start()
    here.run_until(lambda: len(here.received) == 40)
    assert max(sizes) < MOST_BYTES + 2 * len(large)
    assert min(size for size in sizes if size) <= MOST_BYTES


@pytest.mark.needs("redis")
def test_without_a_hub_acknowledgements_are_sent_at_once(consuming, redis: "Redis[str]", prefix: str) -> None:  # type: ignore[no-untyped-def]
    """Nobody knows when such a consumer would look for news again."""
    here = consuming(["first"], 10)
    here.send(0, 1, 2)
    here.consumer.consume()
    while len(here.received) < 2:
        here.connection.drain_events(timeout=WAIT)
    here.received[0].ack()
    assert redis.hlen(f"{prefix}unacked") == 1


@pytest.mark.needs("redis")
def test_consumers_that_do_not_acknowledge_get_messages_that_nobody_notes(
    consuming, redis: "Redis[str]", prefix: str
) -> None:  # type: ignore[no-untyped-def]
    """Or they would be delivered again."""
    here = consuming(["first"], 10)
    here.consumer.no_ack = True
    here.send(0, *range(5))
    here.start()
    here.run_until(lambda: len(here.received) == 5)
    assert redis.hlen(f"{prefix}unacked") == 0
