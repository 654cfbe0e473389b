"""Arguments: what callers of a runtime hand over, checked before anything is begun with it."""

import asyncio
import inspect
from types import CoroutineType
from typing import Any

from homeloop.errors import ConfigurationError
from homeloop.runtime._probe import callable_name


def not_callable(fn: object, how: str) -> TypeError:
    """Return the error for what is no function but was given to method ``how``. A coroutine is closed."""
    if isinstance(fn, CoroutineType):
        fn.close()  # refused: without this its RuntimeWarning would point here instead of at the caller
        return TypeError(f"pass the function and its arguments, not a coroutine: {how}({fn.__qualname__}, ...)")
    if inspect.isasyncgen(fn):
        return TypeError(
            f"pass the function and its arguments, not an async generator: {how}({fn.__qualname__}, ...), "
            "without parentheses after the function"
        )
    kind = "async generator function" if how in ("iterate", "stream_isolated") else "async function"
    return TypeError(f"{how}() needs an {kind}, got {fn!r}")


def check_call(fn: object, timeout: object, how: str) -> None:
    """
    Refuse what is no function, and what is no timeout.

    Raises:
        TypeError: ``fn`` cannot be called, or ``timeout`` is neither None nor a number of seconds.
    """
    if not callable(fn):
        raise not_callable(fn, how)
    if timeout is not None:
        check_timeout(timeout)


def check_timeout(timeout: object) -> None:
    """
    Refuse what is no number of seconds.

    Raises:
        TypeError: It is none, or no time at all.
    """
    if not is_seconds(timeout):
        raise TypeError(f"timeout must be a number of seconds or None, got {_shown(timeout)}")


def check_seconds(name: str, seconds: object) -> None:
    """
    Refuse what is no number of seconds, or less than none.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative.
    """
    if not is_seconds(seconds):
        raise TypeError(f"{name} must be a number of seconds, got {_shown(seconds)}")
    if isinstance(seconds, (int, float)) and seconds < 0:
        raise ValueError(f"{name} must be at least 0 seconds, got {seconds!r}")


def is_seconds(seconds: object) -> bool:
    """Tell whether it is a number of seconds that a clock can count; infinity is."""
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        return False
    try:
        return float(seconds) == seconds  # no number is equal to nan, nor is it to itself
    except OverflowError:
        return False


def running_loop(how: str) -> asyncio.AbstractEventLoop:
    """
    Return the running loop.

    Raises:
        RuntimeError: There is none, where method ``how`` needs one.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(f"{how}() needs a running event loop, use run() where there is none") from None


def check_options(
    name: object, loop_factory: object, grace: object, max_in_flight: object, when_full: object, propagates: object
) -> None:
    """
    Refuse options that no runtime can have.

    Raises:
        TypeError: One is of another type than it should be.
        ValueError: One is out of range.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {name!r}")
    if not callable(loop_factory):
        hint = "; pass what makes it, e.g. asyncio.new_event_loop" * isinstance(
            loop_factory, asyncio.AbstractEventLoop
        )
        raise TypeError(f"loop_factory must be a function that returns an event loop, got {loop_factory!r}{hint}")
    check_seconds("grace", grace)
    if max_in_flight is not None:
        if not isinstance(max_in_flight, int) or isinstance(max_in_flight, bool):
            raise TypeError(f"max_in_flight must be a whole number or None, got {max_in_flight!r}")
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight must be at least 1, got {max_in_flight!r}")
    if when_full not in ("wait", "refuse"):
        raise ValueError(f"when_full must be 'wait' or 'refuse', got {when_full!r}")
    if not isinstance(propagates, bool):
        raise TypeError(f"propagate_context must be True or False, got {propagates!r}")


def check_loop(loop: object) -> None:
    """
    Refuse what a loop factory made if no thread can run it. It is not touched.

    Raises:
        TypeError: It is no event loop.
        ConfigurationError: It is closed, or runs already.
    """
    if not isinstance(loop, asyncio.AbstractEventLoop):
        raise TypeError(f"loop_factory must return an event loop, it returned {loop!r}")
    state = "is closed" if loop.is_closed() else "is running already" if loop.is_running() else ""
    if state:
        raise ConfigurationError(
            f"loop_factory returned {loop!r}, which {state}", "let it make a new one for every call"
        )


def check_manager(manager: object) -> None:
    """
    Refuse what is no async context manager.

    Raises:
        TypeError: It is none. A coroutine is closed.
    """
    kind = type(manager)
    if hasattr(kind, "__aenter__") and hasattr(kind, "__aexit__"):
        return
    text = f"enter() needs an async context manager, got {manager!r}"
    if isinstance(manager, CoroutineType):
        manager.close()
        raise TypeError(f"{text}; a coroutine is run with run(), which returns its result")
    if hasattr(kind, "__enter__"):
        raise TypeError(f"{text}; it is a sync one: enter it with `with` alone")
    if callable(manager):
        raise TypeError(f"{text}; call it: enter({callable_name(manager).removesuffix('()')}(...))")
    raise TypeError(text)


def _shown(value: Any) -> str:  # Any: whatever somebody passed
    try:
        return repr(value)
    except ValueError:  # an int of more digits than Python prints
        return f"an {type(value).__name__} too large to count"
