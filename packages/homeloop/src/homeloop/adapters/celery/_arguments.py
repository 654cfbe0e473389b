"""What set-up refuses of its arguments: at once, not in a worker in the night."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import inspect
from collections.abc import Sequence
from math import inf
from numbers import Integral
from typing import Any

from celery import Celery, Task
from celery.local import Proxy

from homeloop.errors import ConfigurationError


def check_app(where: str, app: object) -> None:
    """
    Refuse what is no Celery app.

    Raises:
        ConfigurationError: It is none.
    """
    if not isinstance(app, Celery):
        raise ConfigurationError(f"{where}: app is {app!r}", 'pass the Celery app, app = Celery("shop")')


def check_task_function(fn: object) -> None:
    """
    Refuse for a task's function a task, an async generator function, and a method that does not take the task.

    Raises:
        ConfigurationError: It is one.
    """
    made: Any = fn if _is_task(fn) else getattr(fn, "__wrapped__", None)
    if _is_task(made):
        raise ConfigurationError(
            f"{made.name} is a Celery task already, and a decorator above @app.task makes no task of what it adds",
            "put @app.task above all other decorators",
        )
    if inspect.isasyncgenfunction(fn):
        name = getattr(fn, "__qualname__", repr(fn))
        raise ConfigurationError(
            f"{name} is an async generator function (async def with a yield): a task has one result",
            "collect what it yields in an async def task, and return a list; or send a task for each",
        )
    if inspect.ismethod(fn) and inspect.iscoroutinefunction(fn):
        try:
            inspect.signature(fn)
        except ValueError:
            raise ConfigurationError(
                f"{fn.__qualname__} takes no argument, and bind=True hands it the task",
                "let self be its first parameter, or leave bind out",
            ) from None


def _is_task(fn: object) -> bool:
    return isinstance(fn, (Proxy, Task))  # a Proxy stands for one that is made later; asked first, that stays so


def check_number(
    where: str, name: str, value: Any, *, least: float = 0, most: float = inf, above_least: bool = False
) -> None:
    """
    Refuse what is no finite number of a range: ``least`` to ``most``, without ``least`` itself if so said.

    Raises:
        ConfigurationError: It is none.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and least <= value <= most and value != inf and not (above_least and value == least):
        return
    bound = f"above {least:g}" if above_least else f"from {least:g}"
    remedy = f"pass a finite number {bound}" + (f" to {most:g}" if most < inf else "")
    raise ConfigurationError(f"{where}: {name} is {value!r}", remedy)


def check_whole(where: str, name: str, value: Any, *, least: float = -inf) -> None:
    """
    Refuse what is no whole number, or is below ``least``.

    Raises:
        ConfigurationError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        remedy = "pass a whole number" + (f" from {least:g}" if least > -inf else "")
        raise ConfigurationError(f"{where}: {name} is {value!r}", remedy)


def check_functions(where: str, name: str, value: object) -> None:
    """
    Refuse what is no sequence of functions.

    Raises:
        ConfigurationError: It is none.
    """
    if not isinstance(value, Sequence):
        raise ConfigurationError(f"{where}: {name} is {value!r}", f"pass a list of async functions, {name}=[fn]")
    for each in value:
        if not callable(each):
            raise ConfigurationError(
                f"{where}: {name} holds {each!r}, which cannot be called", "pass a list of async functions"
            )
