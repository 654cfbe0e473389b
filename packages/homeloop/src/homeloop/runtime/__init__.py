"""Event loops, the threads they live on, and how callers wait for them."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial, wraps
from typing import ParamSpec, TypeVar, TypeVarTuple, Unpack

from homeloop.runtime._endings import LAST_CHANCE, Ending, loop_ending, notice_closed_loops
from homeloop.runtime._fork import forget_in_child, keep_untouched
from homeloop.runtime._probe import callable_name, loop_affinity
from homeloop.runtime._runtime import LoopRuntime, RuntimeStatistics, default_runtime

__all__ = (
    "Ending",
    "LAST_CHANCE",
    "LoopRuntime",
    "RuntimeStatistics",
    "arun",
    "callable_name",
    "default_runtime",
    "enter",
    "forget_in_child",
    "iterate",
    "keep_untouched",
    "loop_affinity",
    "loop_ending",
    "notice_closed_loops",
    "run",
    "submit",
    "sync",
)

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def run(fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts, timeout: float | None = None) -> T:
    """Run ``fn(*args)`` on the process's default runtime and block until it finishes; see `LoopRuntime.run`."""
    return default_runtime().run(fn, *args, timeout=timeout)


async def arun(fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts, timeout: float | None = None) -> T:
    """Run ``fn(*args)`` on the default runtime from a coroutine on any loop; see `LoopRuntime.arun`."""
    return await default_runtime().arun(fn, *args, timeout=timeout)


def submit(fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> "Future[T]":
    """Start ``fn(*args)`` on the default runtime and return at once; see `LoopRuntime.submit`."""
    return default_runtime().submit(fn, *args)


def iterate(fn: Callable[[Unpack[Ts]], AsyncGenerator[T, None]], *args: *Ts) -> Generator[T, None, None]:
    """Iterate an async generator on the default runtime from sync code; see `LoopRuntime.iterate`."""
    return default_runtime().iterate(fn, *args)


def enter(manager: AbstractAsyncContextManager[T, bool | None]) -> AbstractContextManager[T, bool]:
    """Enter an async context manager on the default runtime from sync code; see `LoopRuntime.enter`."""
    return default_runtime().enter(manager)


def sync(fn: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """Make an async function one that sync code may call, on the default runtime; see `LoopRuntime.sync`."""

    @wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return run(partial(fn, *args, **kwargs))

    return call
