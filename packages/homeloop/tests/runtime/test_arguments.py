"""A slip of the pen is refused where it is made: by name, with the value, and with what to do."""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

import homeloop
from homeloop import LoopRuntime
from homeloop.errors import CallTimeoutError, ConfigurationError

Kinds = type[Exception]


def type_name(value: object) -> str:
    """Name a value by its type: not every number can be printed."""
    return type(value).__name__


async def never() -> None:
    raise AssertionError("it must not run")


async def items() -> AsyncIterator[int]:
    yield 1


@asynccontextmanager
async def manage() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("option", "value", "kind", "text"),
    [
        ("grace", "5", TypeError, "grace must be a number of seconds, got '5'"),
        ("grace", None, TypeError, "grace must be a number of seconds, got None"),
        ("grace", math.nan, TypeError, "grace must be a number of seconds, got nan"),
        ("grace", -1, ValueError, "grace must be at least 0 seconds, got -1"),
        ("max_in_flight", 1.5, TypeError, "max_in_flight must be a whole number or None, got 1.5"),
        ("max_in_flight", "3", TypeError, "max_in_flight must be a whole number or None, got '3'"),
        ("max_in_flight", True, TypeError, "max_in_flight must be a whole number or None, got True"),
        ("max_in_flight", 0, ValueError, "max_in_flight must be at least 1, got 0"),
        ("when_full", "panic", ValueError, "when_full must be 'wait' or 'refuse', got 'panic'"),
        ("name", None, TypeError, "name must be a string, got None"),
        ("propagate_context", "no", TypeError, "propagate_context must be True or False, got 'no'"),
        ("loop_factory", None, TypeError, "loop_factory must be a function that returns an event loop, got None"),
    ],
)
def test_options_of_a_runtime(option: str, value: object, kind: Kinds, text: str) -> None:
    """They are refused when the runtime is made, not when it is used."""
    with pytest.raises(kind, match=re.escape(text)):
        LoopRuntime(**{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "timeout", ["1", math.nan, True, 10**400, -(10**5000), complex(1), object()], ids=type_name
)
def test_timeouts(runtime: LoopRuntime, timeout: Any) -> None:
    """What is no number of seconds is none for any method, and does no harm."""
    for call in (
        lambda: runtime.run(never, timeout=timeout),
        lambda: asyncio.run(runtime.arun(never, timeout=timeout)),
        lambda: runtime.close(timeout),
    ):
        with pytest.raises(TypeError, match="timeout must be a number of seconds"):
            call()
    assert not runtime.is_closed


def test_close_needs_a_bound(runtime: LoopRuntime) -> None:
    """None and less than nothing are refused, and the runtime can still be closed."""
    with pytest.raises(TypeError, match="timeout must be a number of seconds, got None"):
        runtime.close(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout must be at least 0 seconds, got -1"):
        runtime.close(-1)
    runtime.run(asyncio.sleep, 0)
    runtime.close(math.inf)
    assert runtime.is_closed


@pytest.mark.parametrize("timeout", [0, 0.0, -1, -math.inf])
def test_no_time_is_never(runtime: LoopRuntime, timeout: float) -> None:
    """What is left of a deadline that is over: nothing is begun, the same for run and arun, every time."""
    for _ in range(20):
        with pytest.raises(CallTimeoutError, match="it never began: its timeout left it no time"):
            runtime.run(never, timeout=timeout)
        with pytest.raises(CallTimeoutError, match="it never began: its timeout left it no time"):
            asyncio.run(runtime.arun(never, timeout=timeout))
    assert runtime.statistics().finished == 0


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: homeloop.run(None), "run() needs an async function, got None"),  # type: ignore[arg-type]
        (lambda: homeloop.run(never()), "run(never, ...)"),  # type: ignore[arg-type]
        (lambda: homeloop.submit(5), "submit() needs an async function, got 5"),  # type: ignore[arg-type]
        (lambda: homeloop.submit(never()), "submit(never, ...)"),  # type: ignore[arg-type]
        (lambda: homeloop.sync(5), "sync() needs an async function, got 5"),  # type: ignore[arg-type]
        (lambda: homeloop.sync(never()), "not a coroutine: sync(never, ...)"),  # type: ignore[arg-type]
        (lambda: LoopRuntime().sync(5), "sync() needs an async function, got 5"),  # type: ignore[arg-type]
        (lambda: homeloop.iterate(items()), "iterate(items, ...), without parentheses"),  # type: ignore[arg-type]
        (lambda: homeloop.iterate(None), "iterate() needs an async generator function, got None"),  # type: ignore[arg-type]
        (lambda: homeloop.enter(5), "enter() needs an async context manager, got 5"),  # type: ignore[arg-type]
        (lambda: homeloop.enter(manage), "test_arguments.manage(...))"),  # type: ignore[arg-type]
        (lambda: homeloop.enter(never()), "a coroutine is run with run()"),  # type: ignore[arg-type]
        (lambda: homeloop.enter(suppress(Exception)), "enter it with `with` alone"),  # type: ignore[arg-type]
    ],
)
def test_what_is_to_be_called(call: Callable[[], object], text: str) -> None:
    """The method that was called is named, and what to write instead."""
    with pytest.raises(TypeError, match=re.escape(text)):
        call()


def test_arun_without_a_loop() -> None:
    """A coroutine that something else than a loop drives hears what it lacks."""
    with pytest.raises(RuntimeError, match="needs a running event loop, use run"):
        homeloop.arun(never).send(None)


@pytest.mark.parametrize("made", [None, 5])
def test_a_factory_that_makes_no_loop(made: object) -> None:
    """What it returned is shown."""
    with pytest.raises(TypeError, match=f"loop_factory must return an event loop, it returned {made}"):
        LoopRuntime(loop_factory=lambda: made).run(never)  # type: ignore[arg-type,return-value]


def test_a_factory_that_makes_no_new_loop() -> None:
    """A closed loop, and one that runs already, are refused and left as they were."""
    closed = asyncio.new_event_loop()
    closed.close()
    with pytest.raises(ConfigurationError, match=r"which is closed; let it make a new one for every call"):
        LoopRuntime(loop_factory=lambda: closed).run(never)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(ConfigurationError, match="which is running already"):
            LoopRuntime(loop_factory=lambda: loop).run(never)
        assert await asyncio.to_thread(int) == 0  # the loop's executor is its own

    asyncio.run(main())
