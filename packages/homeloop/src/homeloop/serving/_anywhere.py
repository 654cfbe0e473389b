"""Block for an async function on any thread, a loop's own included: it runs where nobody waits for the caller."""

import time
from collections.abc import Awaitable, Callable
from functools import partial, update_wrapper
from typing import Generic, TypeVar, cast

from homeloop import LoopRuntime, default_runtime
from homeloop.errors import DeadlockError

T = TypeVar("T")

_further: dict[int, LoopRuntime] = {}
"""
By level: the runtime for callers that the default one waits for, for those that the first of these waits for,
and so on. Only single steps of a dict change it, so that threads, finalizers and signal handlers may meet here.
"""


def run_anywhere(fn: Callable[[], Awaitable[T]], named: Callable[..., object], timeout: float | None) -> T:
    """
    Run ``fn()`` on the default runtime, or on a further one where that waits for the calling thread, and block.

    Args:
        named: What the call is called in errors.
        timeout: Seconds; None for ever.

    Raises: as `homeloop.run`, except that no thread is refused.
    """
    work = _Work(fn, named)
    asked = time.monotonic()
    left = timeout
    level = 0
    while True:
        runtime = _runtime(level)
        if not runtime.is_current:
            try:
                return runtime.run(work, timeout=left)
            except DeadlockError:
                if work.begun:
                    raise
            left = None if timeout is None else timeout - (time.monotonic() - asked)
        level += 1


def close_further(timeout: float) -> None:
    """Close the further runtimes, those first that others wait for."""
    while _further:
        try:
            level, runtime = _further.popitem()  # the one added last; who needs one meanwhile gets a fresh one
        except KeyError:  # another thread closes it
            return
        try:
            runtime.close(timeout)
        except BaseException:
            _further.setdefault(level, runtime)
            raise


def _runtime(level: int) -> LoopRuntime:
    if level == 0:
        return default_runtime()
    runtime = _further.get(level)
    if runtime is None:  # two threads at once: one too many starts nothing
        runtime = _further.setdefault(level, LoopRuntime(name=f"homeloop-{level + 1}"))
    return runtime


class _Work(Generic[T]):
    """A function, and whether it was called: else a refusal was the runtime's, and another may do it."""

    def __init__(self, fn: Callable[[], Awaitable[T]], named: Callable[..., object]) -> None:
        self._fn = fn
        self.begun = False
        update_wrapper(self, plain(named), updated=())

    async def __call__(self) -> T:
        self.begun = True
        return await self._fn()


def plain(fn: Callable[..., object]) -> Callable[..., object]:
    """Take a function out of the partials around it, which have no name."""
    while isinstance(fn, partial):
        fn = cast("Callable[..., object]", fn.func)
    return fn
