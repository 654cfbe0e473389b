"""Set-up refuses what cannot be meant, by the argument's name, and changes nothing."""

import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from celery import Celery
from cryptography.fernet import Fernet

from homeloop.adapters.celery import AsyncTask, UserSeal, carry_users, install, task_function, user_aware_task
from homeloop.async_utils import celery_async_task
from homeloop.errors import ConfigurationError, UserContextError

KEYS = [Fernet.generate_key()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"warm_up": print}, "warm_up is <built-in function print>; pass a list of async functions, warm_up=[fn]"),
        ({"warm_up": [1]}, "warm_up holds 1, which cannot be called; pass a list of async functions"),
        ({"warm_up": "abc"}, "warm_up holds 'a', which cannot be called; "),
        ({"warm_up": None}, "warm_up is None; "),
        ({"warm_up_timeout": 0}, "warm_up_timeout is 0; pass a finite number above 0"),
        ({"warm_up_timeout": None}, "warm_up_timeout is None; "),
        ({"runtime": "etl"}, "runtime is 'etl'; pass a LoopRuntime"),
    ],
)
def test_install_refuses_what_is_no_runtime_and_no_functions(arguments: dict[str, Any], message: str) -> None:
    """Afterwards the app can be installed."""
    app = Celery("arguments", set_as_current=False)
    with pytest.raises(ConfigurationError) as refused:
        install(app, **arguments)
    assert f"install: {message}" in str(refused.value)
    install(app)


async def one() -> int:
    return 1


async def nothing() -> None: ...


async def generates(number: int) -> AsyncIterator[int]:
    yield number


@pytest.mark.parametrize(
    "decorate",
    [
        lambda app: app.task(generates),
        lambda app: app.task(name="named")(generates),
        lambda app: app.task(user_aware_task(generates)),
        lambda app: task_function(generates),
        lambda app: app._task_from_fun(generates),
        lambda app: app.register_task(type("Own", (AsyncTask,), {"run": generates, "name": "own"})()),
    ],
    ids=["task", "task with options", "user aware", "task function", "made late", "class"],
)
def test_async_generator_functions_are_refused_where_they_are_decorated(decorate: Callable[[Any], object]) -> None:
    """By name, with what to do instead; other tasks of the app are made."""
    app = Celery("arguments", set_as_current=False)
    install(app)
    with pytest.raises(ConfigurationError, match=r"generates is an async generator function .* return a list"):
        decorate(app)
    assert app.task(name="fine")(one).apply().get() == 1


@pytest.mark.parametrize("decorate", [user_aware_task, task_function, celery_async_task, user_aware_task()])
def test_a_decorator_above_the_tasks_own_is_refused(decorate: Callable[[Any], object]) -> None:
    """What it returned would be no task, and the task would lack what it adds: the user, for instance."""
    app = Celery("arguments", set_as_current=False)
    install(app)
    made = app.task(name="upside.down")(one)
    with pytest.raises(ConfigurationError, match=r"upside\.down is a Celery task already.*put @app\.task above"):
        decorate(made)
    with pytest.raises(ConfigurationError, match=r"upside\.down is a Celery task already.*put @app\.task above"):
        decorate(app.tasks["upside.down"])


def test_a_bound_function_without_self_is_refused() -> None:
    """When the task is made, by name; of a sync one Celery says so when it runs."""
    app = Celery("arguments", set_as_current=False)
    install(app)
    bound = app.task(bind=True, name="bound")(nothing)
    with pytest.raises(ConfigurationError, match=r"nothing takes no argument, and bind=True .* first parameter"):
        bound.apply()


@pytest.mark.parametrize("app", [None, "shop", Celery], ids=str)
def test_install_refuses_what_is_no_app(app: Any) -> None:
    """The class of one, too."""
    with pytest.raises(ConfigurationError, match=r"^install: app is .*; pass the Celery app"):
        install(app)


@pytest.mark.parametrize("ttl", [-1, 0, "x", math.nan, math.inf, None, True])
def test_carrying_users_refuses_a_time_that_is_none(ttl: Any) -> None:
    """In clients and in workers."""
    for refuses in (carry_users, UserSeal):
        with pytest.raises(ConfigurationError, match=rf"ttl is {ttl!r}; pass a finite number above 0"):
            refuses(KEYS, ttl=ttl)


@pytest.mark.parametrize("keys", [[1], [None], 5, [b"short"]])
def test_carrying_users_refuses_keys_that_are_none(keys: Any) -> None:
    """Whatever they are."""
    with pytest.raises(UserContextError, match="one of the keys is no Fernet key; make one with"):
        carry_users(keys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            (
                {"checkpoint_frequency": value},
                f"checkpoint_frequency is {value!r}; pass a finite number from 0 to 100",
            )
            for value in (-1, math.nan, math.inf, 101, "x", None)
        ),
        *(
            ({"recovery_priority": value}, f"recovery_priority is {value!r}; pass a whole number")
            for value in ("a", 1.5, None)
        ),
    ],
)
def test_user_aware_task_refuses_numbers_that_are_none(options: dict[str, Any], message: str) -> None:
    """With recovery and without."""
    for enabled in (True, False):
        with pytest.raises(ConfigurationError) as refused:
            user_aware_task(recovery_enabled=enabled, **options)
        assert str(refused.value) == f"user_aware_task: {message}"


@pytest.mark.parametrize("options", [{"checkpoint_frequency": 5}, {"recovery_priority": -1}], ids=str)
def test_user_aware_task_refuses_terms_of_recovery_without_it(options: dict[str, Any]) -> None:
    """They would mean nothing."""
    with pytest.raises(ConfigurationError, match="which is not enabled; say recovery_enabled=True"):
        user_aware_task(**options)


def test_user_aware_task_refuses_what_is_no_function() -> None:
    """As when an option is passed without its name."""
    with pytest.raises(ConfigurationError, match="it decorates 5; put it above a function"):
        user_aware_task(5)  # type: ignore[call-overload]
