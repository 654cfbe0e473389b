"""Event loops, the threads they live on, and how callers wait for them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial, wraps
from typing import ParamSpec, TypeVar, TypeVarTuple, Unpack

from homeloop.runtime._arguments import check_call, check_seconds, not_callable
from homeloop.runtime._blocked import refuse_circle
from homeloop.runtime._call import Call, finish_call
from homeloop.runtime._default import default_runtime
from homeloop.runtime._endings import LAST_CHANCE, Ending, loop_ending, notice_closed_loops
from homeloop.runtime._fork import AWAITED, end_child, end_on_return, forget_in_child, keep_untouched
from homeloop.runtime._future import CallFuture, LoopFuture, submission_listeners
from homeloop.runtime._greenlets import leave_thread
from homeloop.runtime._life import Life, Residence, RuntimeStatistics, open_runtimes
from homeloop.runtime._originals import (
    RLock,
    allocate_lock,
    get_ident,
    real_selectors,
    real_socket,
    real_subprocess,
    real_threading,
    use_original_lock,
)
from homeloop.runtime._probe import (
    await_chain,
    callable_name,
    code_place,
    error_text,
    loop_affinity,
    task_context,
    thread_stack,
    thread_stacks,
)
from homeloop.runtime._runtime import LoopRuntime, outcome
from homeloop.runtime._trace import set_trace_level, trace_level
from homeloop.runtime._trace_sites import is_ours
from homeloop.runtime._waiting import completed_in_hub, outlast, set_done, wait_done
from homeloop.runtime._workers import WorkerStatistics

__all__ = (
    "AWAITED",
    "Call",
    "CallFuture",
    "Ending",
    "LAST_CHANCE",
    "Life",
    "LoopFuture",
    "LoopRuntime",
    "RLock",
    "Residence",
    "RuntimeStatistics",
    "WorkerStatistics",
    "allocate_lock",
    "arun",
    "await_chain",
    "callable_name",
    "check_call",
    "check_seconds",
    "code_place",
    "completed_in_hub",
    "default_runtime",
    "end_child",
    "end_on_return",
    "enter",
    "error_text",
    "finish_call",
    "forget_in_child",
    "get_ident",
    "is_ours",
    "iterate",
    "keep_untouched",
    "leave_thread",
    "loop_affinity",
    "loop_ending",
    "notice_closed_loops",
    "open_runtimes",
    "outcome",
    "outlast",
    "real_selectors",
    "real_socket",
    "real_subprocess",
    "real_threading",
    "refuse_circle",
    "run",
    "set_done",
    "set_trace_level",
    "submission_listeners",
    "submit",
    "sync",
    "task_context",
    "thread_stack",
    "thread_stacks",
    "trace_level",
    "use_original_lock",
    "wait_done",
)

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def run(fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts, timeout: float | None = None) -> T:
    """
    Run ``fn(*args)`` on the process's default runtime and block until it finishes.

    Arguments, result and exceptions are the very same objects on both sides. Context variables go in, and what
    ``fn`` changed of them comes back, also when it failed.

    Args:
        fn: Async function. For keyword arguments use `functools.partial`.
        timeout: Seconds ``fn`` may take; None for ever. It then gets 5 seconds more to clean up.

    Returns:
        What ``fn`` returns.

    Raises:
        CallTimeoutError: The timeout passed and ``fn`` was cancelled; its clean-up has run unless the error's
            ``abandoned`` is true.
        WrongThreadError: Called on the loop's own thread. ``fn`` was not called.
        DeadlockError: The loop is waiting for the calling thread. ``fn`` was not called.
        RuntimeClosedError: The interpreter exits and has closed the runtime. ``fn`` was not called.
        RuntimeDiedError: The loop ended while ``fn`` ran, stayed with a parent process, or cannot be started.
        BaseException: Whatever ``fn`` raises.

    Thread: any except the loop's own; a running loop of the thread's stands still meanwhile (use `arun` there).
    Cancellation: an exception raised in the waiting thread (Ctrl-C, a signal handler, an injected exception)
        cancels ``fn`` and is raised once its clean-up has run.
    """
    return default_runtime().run(fn, *args, timeout=timeout)


async def arun(fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts, timeout: float | None = None) -> T:
    """
    Run ``fn(*args)`` on the default runtime from a coroutine on any loop, its own included.

    Args, returns and raises as `run`, except that no thread is refused.

    Thread: any with a running loop, which goes on running.
    Cancellation: a cancelled caller cancels ``fn`` and goes on once its clean-up has run, or after 5 seconds.
    """
    return await default_runtime().arun(fn, *args, timeout=timeout)


def submit(fn: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> "Future[T]":
    """
    Start ``fn(*args)`` on the default runtime and return at once.

    The caller's context variables are visible to ``fn``; what it changes stays inside.

    Args:
        fn: Async function. For keyword arguments use `functools.partial`.

    Returns:
        A future. Cancelling it cancels ``fn``, also after it has begun. In a forked child it has failed with
        `RuntimeDiedError`.

    Raises:
        RuntimeClosedError, RuntimeDiedError: as `run`.

    Thread: any, the loop's own included (but do not wait for the result there).
    """
    return default_runtime().submit(fn, *args)


def iterate(fn: Callable[[Unpack[Ts]], AsyncIterator[T]], *args: *Ts) -> Generator[T, None, None]:
    """
    Iterate an async generator on the default runtime from sync code: ``for item in iterate(rows, query)``.

    All of the generator runs in one task and in one context, so time-outs and cancel scopes may span its yields.

    Args:
        fn: Async generator function, or any function that returns an async iterator.

    Returns:
        A generator. Closing it, or leaving the loop early and dropping it, runs the async generator's
        ``finally`` blocks before it returns.

    Raises:
        TypeError: ``fn`` cannot be called.
        BaseException: From ``next()``: what the generator raises (it is exhausted then), and what `run` raises;
            refused, the generator was not begun.

    Thread: any except the loop's own, and not two at a time.
    Cancellation: an exception raised in the thread that waits for an item cancels the generator, waits for its
        clean-up, and ends the iteration.
    """
    return default_runtime().iterate(fn, *args)


def enter(manager: AbstractAsyncContextManager[T, bool | None]) -> AbstractContextManager[T, bool]:
    """
    Enter an async context manager on the default runtime from sync code: ``with enter(client) as client``.

    It is entered and left in one task. It sees what the body raises and may swallow it.

    Args:
        manager: An async context manager that is not entered yet.

    Returns:
        A context manager, to be entered once. Entering and leaving it raise what the manager raises, and what
        `run` raises; refused, the manager was not entered.

    Raises:
        RuntimeError: From entering it a second time, and from leaving it while it is not entered.

    Thread: any except the loop's own.
    Cancellation: as `run`, while it is entered and while it is left.
    """
    return default_runtime().enter(manager)


def sync(fn: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """
    Make an async function one that sync code may call, on the default runtime; decorator.

    Thread, cancellation and raises as `run`, without a timeout.
    """

    if not callable(fn):
        raise not_callable(fn, "sync")

    @wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return run(partial(fn, *args, **kwargs))

    return call
