"""Functions: what is handed over to be run or iterated is of that kind, or the error says what to call instead."""

import inspect
from collections.abc import Awaitable
from types import CoroutineType
from typing import Any, cast

from homeloop.runtime import callable_name, check_call


def check_function(fn: object, timeout: object) -> None:
    """
    Refuse what cannot be run, and what is no timeout.

    Raises:
        TypeError: As it says. A coroutine is closed.
    """
    check_call(fn, timeout, "run_isolated")
    if inspect.isasyncgenfunction(fn):
        raise _generator_to_run(callable_name(fn))


def check_generator_function(fn: object, timeout: object) -> None:
    """
    Refuse what cannot be iterated, and what is no timeout.

    Raises:
        TypeError: As it says. A coroutine is closed.
    """
    check_call(fn, timeout, "stream_isolated")
    if inspect.iscoroutinefunction(fn):
        raise _coroutine_to_iterate(callable_name(cast("Any", fn)))


# Any: whatever somebody's function returns.
def awaitable(made: Any, name: str) -> Awaitable[Any]:
    """
    Return what the function of this name has returned, if it can be awaited.

    Raises:
        TypeError: It cannot.
    """
    if inspect.isawaitable(made):
        return made
    if inspect.isasyncgen(made):
        raise _generator_to_run(name)
    raise TypeError(
        f"run_isolated() needs an async function, and {name} is none: it returned {type(made).__name__}; "
        f"call it directly, or with asyncio.to_thread({_plain(name)}, ...)"
    )


# Any: whatever somebody's function returns, and yields.
def generator(made: Any, name: str) -> Any:
    """
    Return what the function of this name has returned, if it is an async generator or like one.

    Raises:
        TypeError: It is not. A coroutine is closed.
    """
    if hasattr(made, "__aiter__") and hasattr(made, "aclose"):
        return made
    if isinstance(made, CoroutineType):
        made.close()
        raise _coroutine_to_iterate(name)
    raise TypeError(
        f"stream_isolated() needs an async generator function, and {name} is none: "
        f"it returned {type(made).__name__}; call it directly"
    )


def _generator_to_run(name: str) -> TypeError:
    return TypeError(
        f"run_isolated() needs an async function, and {name} is an async generator function; "
        f"iterate stream_isolated({_plain(name)}, ...) instead"
    )


def _coroutine_to_iterate(name: str) -> TypeError:
    return TypeError(
        f"stream_isolated() needs an async generator function, and {name} is an async function; "
        f"await run_isolated({_plain(name)}, ...) instead"
    )


def _plain(name: str) -> str:
    return name.removesuffix("()")
