"""Work on many items at a time on the running loop, a bounded number of them at once."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, Literal, NoReturn, TypeVar, cast

from homeloop._events import CleanUpFailed, emit
from homeloop.runtime import callable_name, error_text, loop_affinity

__all__ = ("map_concurrent",)

I = TypeVar("I")  # noqa: E741 - an item
T = TypeVar("T")


async def map_concurrent(
    fn: Callable[[I], Awaitable[T]],
    items: Iterable[I],
    *,
    concurrency: int = 20,
    errors: Literal["first", "all"] = "first",
    on_progress: Callable[[int, int], object] | None = None,
) -> list[T]:
    """
    Run ``fn(item)`` for every item on the running loop, and return the results in the order of the items.

    Args:
        fn: Async function of one argument.
        items: Looked through at once, before the first call.
        concurrency: Calls at the same time, at the most.
        errors: With ``"first"`` the first failure cancels the other calls, waits for their clean-up and is
            raised. With ``"all"`` every item is tried, and the failures are raised together.
        on_progress: Called on the loop, in between, with how many items are done and how many there are. A failed
            item is done, too. What it raises ends the batch as a first failure does. An async function is refused:
            nobody would await it.

    Returns:
        What ``fn`` returned for each item.

    Raises:
        TypeError, ValueError: ``fn`` or ``on_progress`` cannot be called, or ``on_progress`` is async,
            ``concurrency`` is below 1, or ``errors`` is neither of the two. Nothing was called.
        BaseExceptionGroup: With ``errors="all"``, what ``fn`` raised, in the order of the items, whose numbers the
            message names; an `ExceptionGroup` unless a CancelledError is among it.
        BaseException: Otherwise what ``fn`` or ``on_progress`` raised.

    Cancellation: cancels the calls, waits for their clean-up, then is raised.
    """
    if not callable(fn):
        raise TypeError(f"map_concurrent() needs an async function, got {fn!r}")
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, got {concurrency!r}")
    if errors not in ("first", "all"):
        raise ValueError(f"errors must be 'first' or 'all', got {errors!r}")
    if on_progress is not None and (not callable(on_progress) or inspect.iscoroutinefunction(on_progress)):
        raise TypeError(f"on_progress must be a function that is not async, got {on_progress!r}")
    return await _Batch(fn, list(items), errors == "all", on_progress).run(concurrency)


class _Ended(Exception):  # noqa: N818 - it is no error, and never leaves this module
    """Raised in a worker to have its group cancel the others; why is noted in the batch."""


class _Batch(Generic[I, T]):
    """Items, what became of them, and what ended the work before its time."""

    def __init__(
        self,
        fn: Callable[[I], Awaitable[T]],
        items: list[I],
        tries_all: bool,
        on_progress: Callable[[int, int], object] | None,
    ) -> None:
        self._fn = fn
        self._items = items
        self._tries_all = tries_all
        self._on_progress = on_progress
        self._left = iter(range(len(items)))  # the workers' only queue: a loop's tasks take turns
        self._results: dict[int, T] = {}
        self._failures: dict[int, BaseException] = {}
        self._end: BaseException | None = None

    async def run(self, concurrency: int) -> list[T]:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(concurrency, len(self._items))):
                    group.create_task(self._work())
        except* _Ended:
            pass  # raised below, alone: a group would hide which error it was
        try:
            if self._end is not None:
                raise self._end
            if self._failures:
                numbers = sorted(self._failures)
                raise BaseExceptionGroup(
                    f"{len(numbers)} of {len(self._items)} items failed: {', '.join(map(str, numbers))}",
                    [self._failures[number] for number in numbers],
                )
        finally:
            self._end = None  # the error's traceback has this frame, and would keep itself alive
            self._failures = {}
        return [self._results[number] for number in range(len(self._items))]

    async def _work(self) -> None:
        task = cast("asyncio.Task[object]", asyncio.current_task())
        for number in self._left:
            try:
                self._results[number] = await self._fn(self._items[number])
            except (Exception, asyncio.CancelledError) as error:
                if task.cancelling() and isinstance(error, asyncio.CancelledError):
                    raise
                if task.cancelling() or not self._tries_all:
                    self._stop(error)
                self._failures[number] = error
            if task.cancelling():  # and fn would not hear of it
                return
            self._tell()

    def _tell(self) -> None:
        if self._on_progress is None:
            return
        try:
            self._on_progress(len(self._results) + len(self._failures), len(self._items))
        except Exception as error:
            self._stop(error)

    def _stop(self, error: BaseException) -> NoReturn:
        """End the batch with its first error. Those of the same moment go, those of the clean-up are told."""
        if self._end is None:
            self._end = error
        elif cast("asyncio.Task[object]", asyncio.current_task()).cancelling():
            home = loop_affinity(asyncio.get_running_loop())
            emit(CleanUpFailed(home.thread, callable_name(self._fn), error_text(error)))
        raise _Ended
