"""
Run ``async def`` Celery tasks on the process's one runtime.

Tested with Celery 5.7 on the prefork, threads and solo pools.
"""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import inspect
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any

from celery import Celery, Task, _state, signals
from celery.utils.imports import symbol_by_name
from celery.utils.threads import LocalStack, get_ident

from homeloop import LoopRuntime, default_runtime
from homeloop.errors import AdapterError

__all__ = ("AsyncTask", "install")

_task_stack: Any = _state._task_stack  # the one stack behind `current_task`; it has no public name

_owner: ContextVar[object | None] = ContextVar("homeloop_celery_task_owner", default=None)
"""Whose entries in Celery's task stacks the current code sees: a running async task's, or its thread's."""


class AsyncTask(Task):  # type: ignore[misc]  # Celery ships no types
    """
    A task whose function may be ``async def``.

    Celery calls a task's function on a thread of the worker and takes what it returns for the
    result. The function of an async task is replaced by a sync one that runs it on the runtime and
    waits, before Celery wraps it for autoretry. So retry, autoretry, events, callbacks, eager mode
    and direct calls keep their meaning.

    Use it through `install`, or as ``base=AsyncTask``.
    """

    abstract = True
    run: Callable[..., Any]  # the task's function, or the bridge to it
    runtime: LoopRuntime | None = None
    """Where the function runs; the default runtime if None."""

    def __init__(self) -> None:
        super().__init__()
        if inspect.iscoroutinefunction(self.run):
            self.run = _bridge(self, self.run)

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Make the task's request follow the coroutine to the loop's thread."""
        super().on_bound(app)
        _follow_context(cls.request_stack)
        _follow_context(_task_stack)


def install(app: Celery, *, runtime: LoopRuntime | None = None) -> None:
    """
    Let every task of an app be ``async def``.

    Call it right after ``app = Celery(...)``. Sync tasks stay as they are. The runtime starts with
    the first async task of each worker process, never in the parent of a prefork pool, and is
    closed when that process stops: coroutines are cancelled and cleaned up, loop-bound resources
    closed.

    Args:
        app: The application.
        runtime: Where tasks run; the default runtime if None.

    Raises:
        AdapterError: The app has made its tasks already, or Celery keeps its task stacks in a way
            that cannot follow a coroutine (``USE_FAST_LOCALS``). Nothing was changed.

    Thread: the one that sets up the app.
    """
    if app.finalized or "Task" in vars(app):
        raise AdapterError(
            f"install({app.main or 'app'!r}) comes too late, tasks exist; call it right after Celery()"
        )
    _require_followable()
    base: Any = symbol_by_name(app.task_cls)
    bases = (base,) if issubclass(base, AsyncTask) else (AsyncTask, base)
    app.task_cls = type("AsyncTask", bases, {"abstract": True, "runtime": runtime})
    close = partial(_close, runtime)
    # Held by Celery strongly (weak=False); the uid makes a second install of the same runtime harmless.
    for signal in (signals.worker_process_shutdown, signals.worker_shutdown):
        signal.connect(close, weak=False, dispatch_uid=f"homeloop.close.{id(runtime)}")


def _close(runtime: LoopRuntime | None, **_: Any) -> None:
    (runtime or default_runtime()).close()


def _bridge(task: AsyncTask, run: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    @wraps(run)  # with the real signature: Task.retry and typing checks look at it
    def call(*args: Any, **kwargs: Any) -> Any:
        runtime = task.runtime or default_runtime()
        with _own_stacks(task):
            return runtime.run(partial(run, *args, **kwargs))

    # wraps() sets __wrapped__, and through it inspect would take the bridge for what it wraps.
    call.__signature__ = inspect.signature(run)  # type: ignore[attr-defined]
    del call.__wrapped__
    return call


@contextmanager
def _own_stacks(task: AsyncTask) -> Iterator[None]:
    """
    Give the current context its own copy of the task stacks, so that a coroutine sees its own request.

    Not the thread's own entries under another name: a background task that outlives the call would
    then see the request of whatever this thread runs next. It sees an empty stack instead.
    """
    owner = object()
    stacks: tuple[Any, ...] = (task.request_stack, _task_stack)
    entries = [list(stack.stack) for stack in stacks]
    token = _owner.set(owner)
    try:
        for stack, items in zip(stacks, entries, strict=True):
            for item in items:
                stack.push(item)
        yield
    finally:
        for stack in stacks:
            stack.__release_local__()
        _owner.reset(token)


def _follow_context(stack: Any) -> None:
    _require_followable()
    stack.__ident_func__ = _current_owner


def _current_owner() -> object:
    return _owner.get() or get_ident()


def _require_followable() -> None:
    if not hasattr(LocalStack(), "__ident_func__"):
        reason = "USE_FAST_LOCALS is set" if os.environ.get("USE_FAST_LOCALS") else "unknown LocalStack"
        raise AdapterError(f"Celery's task stacks cannot follow a coroutine to the loop's thread ({reason})")
