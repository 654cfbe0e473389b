"""Event loops, the threads they live on, and how callers wait for them."""

from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar, TypeVarTuple, Unpack

from homeloop.runtime._fork import forget_in_child, keep_untouched
from homeloop.runtime._probe import callable_name, loop_affinity
from homeloop.runtime._runtime import LoopRuntime, RuntimeStatistics, default_runtime

__all__ = (
    "LoopRuntime",
    "RuntimeStatistics",
    "arun",
    "callable_name",
    "default_runtime",
    "forget_in_child",
    "keep_untouched",
    "loop_affinity",
    "run",
    "submit",
)

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
