"""Whom a task runs for: sealed in the broker, restored before the body, never somebody else."""

import base64
import json
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest
import redis
from celery import chain
from celery.result import AsyncResult
from cryptography.fernet import Fernet

from homeloop import User, as_user, current_user
from homeloop.adapters.celery import UserSeal
from homeloop.errors import UserContextError

WAIT = 60.0  # seconds for a result; tells a hang from an answer
pytestmark = pytest.mark.timeout(180)

POOLS = pytest.mark.parametrize(("pool", "concurrency"), [("threads", 16), ("gevent", 50), ("prefork", 2)])


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> str:
    """The keys that the client and the worker share."""
    keys = Fernet.generate_key().decode()
    monkeypatch.setenv("SEED_KEYS", keys)
    return keys


@pytest.fixture
def tasks(keys: str, celery_environment: None, load_app: Callable[[str], ModuleType]) -> ModuleType:
    """The app's module, as the client sees it."""
    return load_app("user_tasks")


REFUSALS = {
    "tampered": "was tampered with",
    "of another task": "was sealed for task .*: replayed",
    "too old": "s ago, and is good for 60 s",
}


def _message(tasks: ModuleType) -> dict[str, Any]:
    """The message that waits in the queue, and stays there."""
    with redis.Redis.from_url(tasks.app.conf.broker_url) as broker:
        (raw,) = broker.lrange(tasks.app.conf.task_default_queue, 0, -1)
        message: dict[str, Any] = json.loads(raw)
        return message


def _replace(tasks: ModuleType, message: dict[str, Any]) -> None:
    with redis.Redis.from_url(tasks.app.conf.broker_url) as broker:
        broker.delete(tasks.app.conf.task_default_queue)
        broker.lpush(tasks.app.conf.task_default_queue, json.dumps(message))


@pytest.mark.needs("redis")
@POOLS
def test_c2_no_task_ever_sees_anothers_user(tasks, start_worker, pool: str, concurrency: int) -> None:
    """500 interleaved tasks of 20 users and of nobody, with retries and failures."""
    troubles = ("none", "retry", "fail", "nested", "none")
    with start_worker("user_tasks", pool, concurrency):
        sent: list[tuple[str | None, str, AsyncResult]] = []
        for number in range(500):
            name = f"user-{number % 21}" if number % 21 < 20 else None
            trouble = troubles[number % len(troubles)]
            with as_user(name):
                if number % 7 == 3:
                    sent.append((name, "none", tasks.tell_sync.delay(name)))
                else:
                    sent.append((name, trouble, tasks.tell.delay(name, trouble)))
        for name, trouble, result in sent:
            if trouble == "fail":
                assert str(result.get(timeout=WAIT, propagate=False)) == str(name)
            else:
                assert result.get(timeout=WAIT) == [name, name, name]
    assert current_user() is None


@pytest.mark.needs("redis")
def test_c2_the_user_goes_along_with_what_a_task_calls(tasks, start_worker) -> None:
    """Chains, groups and callbacks that workers publish, tasks called from bodies, and claims."""
    with start_worker("user_tasks", "threads", 4):
        with as_user(User("ada", {"tenant": "analytical"})):
            flow = tasks.canvas("ada").apply_async()
            inner = tasks.calls_others.delay()
            claims = tasks.claims.delay()
            unaware = tasks.unaware.delay()
        assert flow.get(timeout=WAIT) == ["ada", "ada", "ada"]
        while flow.parent is not None:
            flow = flow.parent
            for result in flow.results if hasattr(flow, "results") else [flow]:
                assert result.get(timeout=WAIT) == ["ada", "ada", "ada"]
        assert AsyncResult(inner.get(timeout=WAIT), app=tasks.app).get(timeout=WAIT) == ["ada", "ada", "ada"]
        assert claims.get(timeout=WAIT) == {"tenant": "analytical"}
        assert unaware.get(timeout=WAIT) is None
        assert tasks.tell.delay(None).get(timeout=WAIT) == [None, None, None]


@pytest.mark.needs("redis")
def test_c2_the_broker_shows_nothing_of_the_user(tasks) -> None:
    """Neither id nor claims are readable in the message."""
    with as_user(User("grace-hopper", {"tenant": "navy"})):
        tasks.tell.apply_async((None,), link=tasks.tell.s(None), retries=1)
    with redis.Redis.from_url(tasks.app.conf.broker_url) as broker:
        (raw,) = broker.lrange(tasks.app.conf.task_default_queue, 0, -1)
    message = json.loads(raw)
    readable = raw + base64.b64decode(message["body"])
    assert "homeloop-user" in message["headers"]
    assert b"grace" not in readable
    assert b"navy" not in readable


@pytest.mark.needs("redis")
@pytest.mark.parametrize("how", ["tampered", "of another task", "too old", "removed"])
def test_c2_a_message_that_somebody_changed(tasks, start_worker, keys: str, how: str) -> None:
    """Tampering, replaying under another id and after the TTL are refused; without the header there is nobody."""
    with as_user("ada"):
        sent = tasks.tell.delay("ada")
    message = _message(tasks)
    sealed = message["headers"]["homeloop-user"]
    if how == "tampered":
        message["headers"]["homeloop-user"] = (
            sealed[:-6] + ("AAAA" if sealed[-6:-2] != "AAAA" else "BBBB") + sealed[-2:]
        )
    elif how == "of another task":
        message["headers"]["id"] = message["properties"]["correlation_id"] = str(uuid.uuid4())
        sent = AsyncResult(message["headers"]["id"], app=tasks.app)
    elif how == "too old":  # a minute is the app's TTL
        old = UserSeal([keys]).seal(User("ada"), sent.id, int(time.time()) - 61)
        message["headers"]["homeloop-user"] = old
    else:
        del message["headers"]["homeloop-user"]
    _replace(tasks, message)
    with start_worker("user_tasks", "threads", 2):
        if how == "removed":
            assert sent.get(timeout=WAIT) == ["ada", None, None]
        else:
            with pytest.raises(Exception, match=REFUSALS[how]) as refused:
                sent.get(timeout=WAIT)
            assert type(refused.value).__name__ == "UserContextError"


TOO_OLD = "s ago, and is good for 1e-06 s"


@pytest.mark.needs("redis")
@pytest.mark.parametrize("task", ["outlasts", "outlasts_sync"])
@pytest.mark.parametrize("how", ["retry", "call", "chain"])
def test_c2_what_outlasts_its_user_never_runs_as_nobody(tasks, start_worker, task: str, how: str) -> None:
    """A retry, a call in a body and the rest of a chain, sent when the user is too old: its caller is told."""
    with start_worker("user_tasks", "threads", 1):
        first = getattr(tasks, task).s(how)
        with as_user("ada"):
            sent = (chain(first, tasks.tell_sync.si("ada")) if how == "chain" else first).apply_async()
        with pytest.raises(UserContextError, match=TOO_OLD):
            sent.get(timeout=WAIT)


@pytest.mark.needs("redis")
def test_c2_an_autoretry_that_outlasts_its_user_is_refused(tasks, start_worker) -> None:
    """Celery sends it outside of the function."""
    with start_worker("user_tasks", "threads", 1):
        with as_user("ada"):
            sent = tasks.outlasts_failing.delay()
        with pytest.raises(UserContextError, match=TOO_OLD):
            sent.get(timeout=WAIT)


@pytest.mark.needs("redis")
@pytest.mark.parametrize("claim", [datetime.now(UTC), {"a", "set"}], ids=["datetime", "set"])
def test_c2_a_claim_that_json_does_not_know_is_refused_where_the_task_is_called(tasks, claim: Any) -> None:
    """By every way to call one; nothing is sent."""
    ways: list[Callable[[], object]] = [
        lambda: tasks.tell.delay(None),
        lambda: tasks.unaware.apply_async(),
        lambda: tasks.app.send_task("user_tasks.tell", (None,)),
        lambda: tasks.tell.si(None).apply_async(),
        lambda: tasks.canvas("ada").apply_async(),
    ]
    with as_user(User("ada", {"tenant": "analytical", "since": claim})):
        for call in ways:
            with pytest.raises(
                UserContextError, match=f"does not know claim 'since', a {type(claim).__name__}; make"
            ):
                call()
    with redis.Redis.from_url(tasks.app.conf.broker_url) as broker:
        assert broker.llen(tasks.app.conf.task_default_queue) == 0


def test_c2_a_client_without_keys_sends_no_users_task(script: Callable[..., Any]) -> None:
    """A user_aware_task called on behalf of a user needs carry_users; others, and calls for nobody, do not."""
    done = script(
        """
        from celery import Celery, chain
        from homeloop import as_user
        from homeloop.adapters.celery import install, user_aware_task
        from homeloop.errors import UserContextError

        bare, app = (Celery(name, broker="memory://", set_as_current=False) for name in ("bare", "installed"))
        install(app)

        @bare.task
        @user_aware_task
        def sync(): ...

        @app.task(bind=True, autoretry_for=(ValueError,))
        @user_aware_task
        async def coroutine(self): ...

        @app.task
        @user_aware_task(recovery_enabled=True)
        async def recovered(): ...

        @app.task
        def unaware(): ...

        for task in (sync, coroutine, recovered):
            task.delay()
            with as_user("ada"):
                unaware.delay()
                try:
                    print("sent", task.delay())
                except UserContextError as error:
                    print(str(error).partition("; ")[2])
        """
    )
    assert (done.stdout, done.stderr) == ("call carry_users(keys) first\n" * 3, "")


def test_a_seal_is_good_for_a_while_and_for_all_its_keys() -> None:
    """Old keys still open, unknown ones do not; what is too old is refused with its age."""
    old, new, now = Fernet.generate_key(), Fernet.generate_key(), int(time.time())
    ada = User("ada", {"tenant": "x"})
    sealed = UserSeal([old]).seal(ada, "1", now)
    assert UserSeal([new, old]).open(sealed, "1") == (ada, now)
    with pytest.raises(UserContextError, match="key this worker does not have"):
        UserSeal([new]).open(sealed, "1")
    with pytest.raises(UserContextError, match=r"was sealed 6\d s ago, and is good for 60 s"):
        UserSeal([old], ttl=60).open(UserSeal([old]).seal(ada, "1", now - 61), "1")
    with pytest.raises(UserContextError, match="was sealed for task 1: replayed"):
        UserSeal([old]).open(sealed, "2")


@pytest.mark.parametrize("keys", [[], ["short"], "a single string"])
def test_bad_keys_are_refused_without_showing_them(keys) -> None:
    """The error tells how to make one."""
    with pytest.raises(UserContextError) as refused:
        UserSeal(keys)
    assert "short" not in str(refused.value)
    assert "key" in str(refused.value)
