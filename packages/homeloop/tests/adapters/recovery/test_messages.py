"""What recovery sends of its own accord: what is in it, and what becomes of it when the broker hangs."""

import asyncio
import base64
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context
from cryptography.fernet import Fernet
from kombu import Connection

from homeloop.adapters.celery import UserSeal, install
from homeloop.adapters.celery._checkpoints import lease_clock
from homeloop.adapters.celery._keys import fernet_of
from homeloop.adapters.celery.recovery import PostgresStore
from homeloop.adapters.celery.recovery._messages import Messages
from homeloop.adapters.celery.recovery._outbox import Outbox
from homeloop.adapters.celery.recovery._records import Claim, LostTask, Terms
from homeloop.errors import TaskLostError, UserContextError

LEASE = 1.0  # seconds; what hangs is given up after half of it
OVER = -1.0  # seconds; over at once
NEVER_DEAD, DEAD = 5, 0  # losses
TERMS = Terms("shop", LEASE, 60, 600, DEAD, 600)
KEY = Fernet.generate_key()

Scenario = Callable[[PostgresStore, Outbox, Callable[[int], Awaitable[LostTask]]], Awaitable[None]]


@pytest.fixture
def app(redis_url: str, lines, close_client: Callable[[Celery], None]) -> Iterator[Any]:
    """An app that reaches Redis over a line, with a queue of its own."""
    line = lines(redis_url)
    app: Any = Celery("shop", broker=line.url, backend=line.url)
    app.conf.update(task_default_queue=f"homeloop-test-{uuid.uuid4()}", task_publish_retry=False)
    install(app)
    app.line = line
    yield app
    line.close()  # or what hangs would do so for ever
    close_client(app)
    with Connection(redis_url) as connection:
        connection.default_channel.queue_delete(app.conf.task_default_queue)


def play(own_database: str, app: Any, scenario: Scenario) -> None:
    """Run a scenario on a store whose table is there."""

    async def whole() -> None:
        store, messages = PostgresStore(own_database), Messages(app, fernet_of([KEY]))
        await store.prepare()
        message = messages.take(analyse_of(app), request("1"))

        async def lose(max_losses: int) -> LostTask:
            await store.claim(Claim("shop", "1", "analyse", 0, 0, 0, "here", message), OVER, NEVER_DEAD)
            (lost,) = await store.sweep("shop", OVER, max_losses, 10)
            return lost

        try:
            await scenario(store, Outbox(store, messages, TERMS), lose)
        finally:
            await asyncio.to_thread(app.line.close)

    asyncio.run(whole())


def analyse_of(app: Any) -> Any:
    @app.task(name="analyse")
    async def analyse(document: str, *, password: str) -> None: ...

    return analyse


def request(task_id: str) -> Context:
    return Context(
        id=task_id, args=["a.pdf"], kwargs={"password": "secret"}, expires="2020-01-01T00:00:00+00:00",
        argsrepr="('a.pdf',)", kwargsrepr="{'password': '***'}",
        delivery_info={"exchange": "", "routing_key": "q"},
    )  # fmt: skip


@pytest.mark.needs("redis")
def test_c3_what_is_sent_again_shows_as_much_as_its_sender_did(app: Any) -> None:
    """And does not expire: it has begun in time."""
    messages, queue = Messages(app, fernet_of([KEY])), app.conf.task_default_queue
    asked = request("1")
    asked.delivery_info["routing_key"] = queue
    messages.send("analyse", "1", messages.take(analyse_of(app), asked))
    with app.connection_for_read() as connection:
        message = connection.default_channel.basic_get(queue)
    assert message.headers["kwargsrepr"] == "{'password': '***'}"
    assert message.headers["argsrepr"] == "('a.pdf',)"
    assert message.headers["expires"] is None
    assert json.loads(message.body)[1] == {"password": "secret"}


@pytest.mark.needs("redis", "postgres")
def test_c3_a_broker_that_hangs_is_waited_for_once(app: Any, own_database: str) -> None:
    """What could not be sent is due at once, and is no loss; no second thread goes where the first one hangs."""

    async def scenario(store: PostgresStore, outbox: Outbox, lose: Callable[[int], Awaitable[LostTask]]) -> None:
        lost = await lose(NEVER_DEAD)
        app.line.hang()
        await outbox.send(lost)
        assert outbox.is_stuck
        for _ in range(5):
            (again,) = await store.sweep("shop", LEASE, 1, 10)
            assert (again.losses, again.is_dead) == (1, False)
            await outbox.send(again)

    play(own_database, app, scenario)


@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")  # Celery's
@pytest.mark.needs("redis", "postgres")
def test_c3_who_waits_for_a_dead_task_is_told_as_soon_as_that_can_be(app: Any, own_database: str) -> None:
    """The result backend hangs: a later sweep finds the task again, and no other one after that."""

    async def scenario(store: PostgresStore, outbox: Outbox, lose: Callable[[int], Awaitable[LostTask]]) -> None:
        app.line.hang()
        await outbox.bury(await lose(DEAD))
        assert outbox.is_stuck
        app.line.heal()
        (again,) = await store.sweep("shop", LEASE, DEAD, 10)
        later = Outbox(store, outbox._messages, TERMS)
        await later.bury(again)
        result = app.AsyncResult("1")
        with pytest.raises(TaskLostError, match="has lost its worker"):
            await asyncio.to_thread(result.get, timeout=LEASE)
        assert await store.sweep("shop", LEASE, DEAD, 10) == []

    play(own_database, app, scenario)


def test_c3_what_is_sealed_is_good_for_one_thing_alone(app: Any) -> None:
    """A checkpoint is no user and no message, whatever is the same otherwise; nor is it another app's."""
    fernet = fernet_of([KEY])
    ours = Messages(app, fernet)
    sealed = ours.seal("payload", "1", {"id": "root", "claims": {}})
    assert ours.open("payload", "1", sealed) == {"id": "root", "claims": {}}
    theirs = Messages(Celery("mail", set_as_current=False), fernet)
    with pytest.raises(UserContextError, match="the user of task 1 was tampered with"):
        UserSeal([KEY]).open(sealed.decode(), "1")
    for messages, kind, task_id in ((ours, "message", "1"), (ours, "payload", "2"), (theirs, "payload", "1")):
        with pytest.raises(UserContextError):
            messages.open(kind, task_id, sealed)
    for nonsense in (b"", base64.b64encode(b"x"), Fernet(KEY).encrypt(b"1"), Fernet(KEY).encrypt(b"[1, 2]")):
        with pytest.raises(UserContextError):
            ours.open("payload", "1", nonsense)


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="no clock here that goes on while suspended")
def test_c3_leases_end_while_the_machine_is_suspended() -> None:
    """They are measured with the clock that goes on."""
    before, now = time.clock_gettime(time.CLOCK_BOOTTIME), lease_clock()
    assert before <= now <= time.clock_gettime(time.CLOCK_BOOTTIME)
