"""`AsyncExecutor`: the sync door to async code."""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from functools import partial, wraps
from typing import Any, Literal, TypeVar

from homeloop import map_concurrent
from homeloop.serving._anywhere import close_further, plain, run_anywhere
from homeloop.serving._retry import Retry

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - an item

_DEFAULT = Retry()


class AsyncExecutor:
    """
    Calls async functions from sync code, wherever that runs. Nothing is to be made or kept of it.

    In a plain thread, a thread pool, `asyncio.to_thread`, a model's ``predict``, a sync endpoint, and on the
    thread of a running loop, the process's default runtime included. A loop on whose thread it is called stands
    still until the call has ended: where you may await, ``await homeloop.arun(fn, ...)``.
    """

    # Any: how a function's own parameters and ``timeout`` mix, no type can say.
    @staticmethod
    def run_async(
        fn: Callable[..., Awaitable[T]],
        /,
        *args: Any,
        timeout: float | None = 30,
        retry: Retry | None = _DEFAULT,
        **kwargs: Any,
    ) -> T:
        """
        Run ``fn(*args, **kwargs)`` on the process's default runtime and block until it finishes.

        On a thread that the default runtime waits for, its loop's own for instance, a further runtime runs it,
        which has loop-local resources of its own and is kept for the next time.

        Args:
            fn: Async function. Parameters of its own named ``timeout`` or ``retry`` go into a `functools.partial`.
            timeout: Seconds for all attempts and the pauses between them; None for ever. Then ``fn`` is cancelled.
            retry: How often to try when a loop's life was the cause of the failure, see `Retry`. What ``fn`` did
                before it failed is not undone and is done again: pass None, to call it once, unless doing
                it twice is as good as once.

        Returns:
            What ``fn`` returns.

        Raises:
            CallTimeoutError, RuntimeClosedError, RuntimeDiedError: as `homeloop.run`.
            TypeError: ``fn`` cannot be called, or returns nothing to await; ``retry`` is neither a `Retry` nor
                None.
            BaseException: What ``fn`` raises, in the last attempt, with the traceback from there.

        Thread: any. A running loop of the thread's stands still meanwhile.
        Cancellation: an exception raised in the waiting thread (Ctrl-C, a signal handler, an injected exception)
            cancels ``fn``, or the pause, and is raised once its clean-up has run.
        """
        _check(fn, retry)
        call = partial(_await, fn, args, kwargs)
        if retry is not None:
            call = partial(retry.run, call, _name(fn))
        return run_anywhere(call, fn, timeout)

    @staticmethod
    def map_async(
        fn: Callable[[I], Awaitable[T]],
        items: Iterable[I],
        *,
        concurrency: int = 20,
        timeout: float | None = None,
        errors: Literal["first", "all"] = "first",
        on_progress: Callable[[int, int], object] | None = None,
        retry: Retry | None = _DEFAULT,
    ) -> list[T]:
        """
        Run ``fn(item)`` for every item, many at a time, and block until all are done.

        Args:
            fn: Async function of one argument.
            items: Looked through at once, in the calling thread.
            concurrency: Calls at the same time, at the most.
            timeout: Seconds for all of them; None for ever. Then those that run are cancelled.
            errors: What becomes of the other items when one fails: ``"first"`` cancels them and raises that
                error, ``"all"`` tries them all and raises the failures together.
            on_progress: Called with how many items are done and how many there are, on the loop, in between:
                it must not block, and is no async function.
            retry: As `run_async`, for each item.

        Returns:
            What ``fn`` returned for each item, in the order of the items.

        Raises:
            BaseExceptionGroup: With ``errors="all"``; see `homeloop.map_concurrent`.
            ValueError: ``concurrency`` is below 1, or ``errors`` is neither of the two.
            BaseException: Otherwise as `run_async`.

        Thread and cancellation: as `run_async`.
        """
        _check(fn, retry)

        @wraps(fn)
        async def one(item: I) -> T:
            call = partial(_await, fn, (item,), {})
            return await (call() if retry is None else retry.run(call, _name(fn)))

        work = partial(
            map_concurrent, one, list(items), concurrency=concurrency, errors=errors, on_progress=on_progress
        )
        return run_anywhere(work, fn, timeout)

    @staticmethod
    def close(timeout: float = 5.0) -> None:
        """
        Close the further runtimes, on which calls from the default runtime's own thread were run.

        Most programs need not: the interpreter's exit closes them. One that is needed again is started anew.

        Args:
            timeout: Seconds for each; see `homeloop.LoopRuntime.close`.

        Raises:
            WrongThreadError: Called on the thread of one of them.

        Thread: any, except while a call is waited for there.
        """
        close_further(timeout)


def _check(fn: object, retry: object) -> None:
    if inspect.iscoroutine(fn):
        fn.close()  # refused: without this its RuntimeWarning would point here instead of at the caller
        raise TypeError(f"pass the function and its arguments, not a coroutine: {fn.__qualname__}, ...")
    if not callable(fn):
        raise TypeError(f"an async function is needed, got {fn!r}")
    if retry is not None and not isinstance(retry, Retry):
        raise TypeError(f"retry must be a Retry, or None to call once, got {retry!r}")


def _name(fn: Callable[..., object]) -> str:
    named = plain(fn)
    return getattr(named, "__qualname__", type(named).__qualname__)


async def _await(fn: Callable[..., Awaitable[T]], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    awaitable: object = fn(*args, **kwargs)
    if not inspect.isawaitable(awaitable):
        raise TypeError(f"{_name(fn)}() is no async function: it returned {type(awaitable).__name__}")
    value: T = await awaitable
    return value
