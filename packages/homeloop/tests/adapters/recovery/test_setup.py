"""What recovery asks of an app and of a function, and what it is where there is no worker to be lost."""

import asyncio
import math
import pickle
import subprocess
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from celery import Celery
from cryptography.fernet import Fernet

from homeloop import default_runtime
from homeloop.adapters.celery import install, user_aware_task
from homeloop.adapters.celery.recovery import Checkpoint, PostgresStore, RecoveryContext, recover_tasks
from homeloop.errors import AdapterError, ConfigurationError, LeaseLostError, TaskLostError, UserContextError

STORE = PostgresStore("postgresql://127.0.0.1:1/none")  # nothing is opened
KEYS = [Fernet.generate_key()]


@pytest.fixture
def app() -> Celery:
    app = Celery("setup", broker="memory://", backend="cache+memory://")
    install(app)
    return app


def test_c3_a_task_called_here_keeps_its_checkpoints_to_itself(app: Celery) -> None:
    """Direct calls and apply() need no store; callers never pass the context."""

    @app.task(bind=True)
    @user_aware_task(recovery_enabled=True, checkpoint_frequency=10)
    async def work(self, number: int, recovery_ctx: RecoveryContext) -> list[bool]:
        assert recovery_ctx.resume_from is None
        return [await recovery_ctx.checkpoint("step", percent) for percent in (0, 5, 10, 95, 100, 100, 50)]

    expected = [True, False, True, True, True, True, False]
    assert work(1) == expected
    assert work.apply((1,)).get() == expected
    assert work.apply(kwargs={"number": 1}).get() == expected
    with pytest.raises(TypeError, match="number"):
        work.delay()
    default_runtime().close()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"at": datetime(2026, 1, 2)}, "Object of type datetime is not JSON serializable"),
        ({("a", 1): 2}, "keys must be str"),
        ([b"x"], "Object of type bytes is not JSON serializable"),
    ],
    ids=["value", "key", "bytes"],
)
def test_c3_a_payload_that_json_does_not_know_is_refused(app: Celery, payload: object, reason: str) -> None:
    """Naming the task, the type and what to pass; also where nothing is sealed, so that a unit test sees it."""

    @app.task(name="shop.pack")
    @user_aware_task(recovery_enabled=True)
    async def pack(recovery_ctx: RecoveryContext) -> None:
        await recovery_ctx.checkpoint("step", 10, payload)

    with pytest.raises(TypeError) as refused:
        pack.apply(task_id="number-7").get()
    assert "the checkpoint of task shop.pack[number-7] cannot be written" in str(refused.value)
    assert reason in str(refused.value)
    assert "pass None, numbers, text" in str(refused.value)
    default_runtime().close()


def test_c3_tasks_with_recovery_are_delivered_again_unless_they_say_otherwise(app: Celery) -> None:
    """Else a message would be lost between its acknowledgement and the first line of its task."""
    recovered = user_aware_task(recovery_enabled=True)

    @app.task
    @recovered
    async def plain() -> None: ...

    @app.task(acks_late=False, reject_on_worker_lost=False)
    @recovered
    async def otherwise() -> None: ...

    @app.task
    @user_aware_task
    async def other() -> None: ...

    settings = [(each.acks_late, bool(each.reject_on_worker_lost)) for each in (plain, otherwise, other)]
    assert settings == [(True, True), (False, False), (False, False)]


def test_c3_recovery_is_refused_where_it_cannot_be() -> None:
    """A sync function, an app without install, without a name, set up twice, without keys."""
    with pytest.raises(AdapterError, match="must be async def"):

        @user_aware_task(recovery_enabled=True)
        def sync() -> None: ...

    with pytest.raises(AdapterError, match=r"call install\('bare'\) first"):
        recover_tasks(Celery("bare", set_as_current=False), STORE, keys=KEYS)
    nameless, named = Celery(set_as_current=False), Celery("named", set_as_current=False)
    for each in (nameless, named):
        install(each)
    with pytest.raises(ConfigurationError, match="the app has no name"):
        recover_tasks(nameless, STORE, keys=KEYS)
    with pytest.raises(UserContextError, match="needs a key"):
        recover_tasks(named, STORE, keys=[])
    recover_tasks(named, STORE, keys=KEYS)
    with pytest.raises(ConfigurationError, match="is set up already"):
        recover_tasks(named, STORE, keys=KEYS)


NO_NUMBERS = [-1, "x", math.nan, math.inf, None, True]
NO_TERMS = {
    "lease": [0, *NO_NUMBERS],
    "sweep_interval": [0, *NO_NUMBERS],
    "resend_after": NO_NUMBERS,
    "max_losses": [1.5, *NO_NUMBERS],
    "keep": NO_NUMBERS,
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in NO_TERMS.items() for value in values]
)
def test_c3_terms_that_are_none_are_refused(app: Celery, name: str, value: Any) -> None:
    """With the argument's name and what it may be; afterwards recovery can be set up."""
    with pytest.raises(
        ConfigurationError, match=rf"^recover_tasks: {name} is {value!r}; pass a (finite|whole) number"
    ):
        recover_tasks(app, STORE, keys=KEYS, **{name: value})
    recover_tasks(app, STORE, keys=KEYS, resend_after=0, max_losses=0, keep=0)


@pytest.mark.parametrize("store", [None, "postgresql://127.0.0.1/shop", PostgresStore], ids=str)
def test_c3_what_is_no_store_is_refused(app: Celery, store: Any) -> None:
    """Also the class of one; nor is anything an app that is none."""
    with pytest.raises(ConfigurationError, match=r"^recover_tasks: store is .*; pass a PostgresStore"):
        recover_tasks(app, store, keys=KEYS)
    with pytest.raises(ConfigurationError, match=r"^recover_tasks: app is None; pass the Celery app"):
        recover_tasks(None, STORE, keys=KEYS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dsn": "mysql://ada:secret@x"}, "dsn is a 'mysql' address; pass one like \"postgresql://"),
        ({"dsn": "host=secret"}, "dsn is no address but of type str; "),
        ({"dsn": 4}, "dsn is no address but of type int; "),
        ({"connect": "pool"}, "connect is 'pool'; pass a function"),
        ({"dsn": "postgresql://x", "table": 4}, "4 is no table's name"),
    ],
)
def test_c3_a_database_that_is_none_is_refused(arguments: dict[str, Any], message: str) -> None:
    """Without showing the password."""
    with pytest.raises(ConfigurationError) as refused:
        PostgresStore(**arguments)
    assert message in str(refused.value)
    assert "secret" not in str(refused.value)


def test_c3_a_context_refuses_what_is_no_percent() -> None:
    """And remembers how far it is."""

    async def scenario() -> None:
        context = RecoveryContext("1", resume_from=Checkpoint("half", 50))
        with pytest.raises(ValueError, match="percent must be from 0 to 100; got 101"):
            await context.checkpoint("too far", 101)
        assert not await context.checkpoint("behind", 49)
        assert await context.checkpoint("on", 50)

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [LeaseLostError("1", 7), TaskLostError("1", 3)])
def test_errors_survive_pickle(error: AdapterError) -> None:
    """As a Celery result needs it."""
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))


def test_the_adapter_alone_needs_no_database_driver(
    script: Callable[..., "subprocess.CompletedProcess[str]"],
) -> None:
    """Only its module `recovery` imports asyncpg."""
    done = script(
        """
        import sys

        sys.modules["asyncpg"] = None
        import homeloop.adapters.celery

        try:
            import homeloop.adapters.celery.recovery
        except ModuleNotFoundError as error:
            print(error.name)
        """
    )
    assert (done.stdout, done.stderr) == ("asyncpg\n", "")
