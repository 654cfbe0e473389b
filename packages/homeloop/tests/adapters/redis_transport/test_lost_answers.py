"""A connection is lost when Redis has done what it was asked for, and nobody has heard of it."""

from typing import Any

import pytest
from redis import Redis

from homeloop.adapters.celery.pool import _redis_take as taking

from .conftest import WAIT, LossyRelay


@pytest.fixture(autouse=True)
def known_script(redis: "Redis[str]") -> None:
    """Redis knows the script, so that the first time it is called by its name is the only one."""
    redis.script_load(taking.SCRIPT)


@pytest.mark.needs("redis")
@pytest.mark.parametrize(
    "options", [{}, {"retry_on_timeout": True}], ids=["redis-py gives up", "redis-py tries again"]
)
def test_messages_whose_batch_was_lost_come_all_the_same(  # type: ignore[no-untyped-def]
    consuming, relay: LossyRelay, redis: "Redis[str]", prefix: str, options: dict[str, Any]
) -> None:
    """Each once, in their order, and nothing is noted that was not received."""
    here = consuming(["first"], 10, url=relay.url, **options)
    here.send(0, *range(25))
    relay.to_lose = [b".answers."]
    here.start()
    here.run_until(lambda: len(here.received) == 10)
    assert here.bodies() == list(range(10))
    assert not relay.to_lose
    noted = set(redis.hkeys(f"{prefix}unacked"))
    assert noted == {message.delivery_tag for message in here.received}
    assert redis.llen(f"{prefix}first") == 15
    for message in here.received:
        message.ack()
    here.run_until(lambda: len(here.received) == 20)
    assert here.bodies() == list(range(20))


@pytest.mark.needs("redis")
def test_a_batch_that_is_lost_again_is_given_back_when_the_channel_closes(  # type: ignore[no-untyped-def]
    consuming, relay: LossyRelay, redis: "Redis[str]", prefix: str
) -> None:
    """The worker has an error then, and connects anew; it need not wait for the visibility timeout."""
    here = consuming(["first"], 10, url=relay.url)
    here.send(0, *range(10))
    relay.to_lose = [b".answers.", b".answers."]
    here.start()
    with pytest.raises(here.channel.connection_errors):
        here.run_until(lambda: False)
    assert (len(here.received), redis.hlen(f"{prefix}unacked"), redis.llen(f"{prefix}first")) == (0, 10, 0)
    here.connection.collect()
    assert (redis.hlen(f"{prefix}unacked"), redis.zcard(f"{prefix}unacked_index")) == (0, 0)
    assert redis.llen(f"{prefix}first") == 10


@pytest.mark.needs("redis")
def test_a_message_that_redis_has_handed_out_is_noted_by_another_connection(  # type: ignore[no-untyped-def]
    consuming, relay: LossyRelay, redis: "Redis[str]", prefix: str
) -> None:
    """Kombu would forget it: it is on no list any more, and noted nowhere."""
    here = consuming(["first"], 1, url=relay.url, polling_interval=WAIT)
    here.start()
    here.run_until(lambda: here.channel._in_poll)
    relay.to_lose = [b"ZADD"]
    here.send(0, 1)
    here.run_until(lambda: here.received)
    assert not relay.to_lose
    assert redis.hkeys(f"{prefix}unacked") == [here.received[0].delivery_tag]
