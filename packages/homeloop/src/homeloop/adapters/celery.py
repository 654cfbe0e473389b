"""
Run ``async def`` Celery tasks on the process's one runtime.

Tested with Celery 5.7 on the prefork, threads and solo pools.
"""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import asyncio
import inspect
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, Self
from weakref import WeakKeyDictionary

from celery import Celery, Task, _state, signals
from celery.exceptions import SoftTimeLimitExceeded
from celery.local import Proxy
from celery.utils.imports import symbol_by_name
from celery.utils.threads import LocalStack

from homeloop import LoopRuntime, default_runtime
from homeloop.errors import AdapterError

__all__ = ("AsyncTask", "install")

_task_stack: Any = _state._task_stack  # the one stack behind `current_task`; it has no public name
_installed: "WeakKeyDictionary[Celery, LoopRuntime | None]" = WeakKeyDictionary()


class AsyncTask(Task):  # type: ignore[misc]  # Celery ships no types
    """
    A task whose function may be ``async def``.

    Celery calls a task's function on a thread of the worker and takes what it returns for the
    result. The function of an async task is replaced by a sync one that runs it on the runtime and
    waits, before Celery wraps it for autoretry. So retry, autoretry, events, callbacks, eager mode
    and direct calls keep their meaning. On the runtime's own thread a direct call returns the
    coroutine: ``await other(1)``. Use it through `install`, or as ``base=AsyncTask``.
    """

    abstract = True
    run: Callable[..., Any]  # the task's function, or the bridge to it
    runtime: LoopRuntime | None = None  # where the function runs; the default runtime if None
    is_async = False

    def __init__(self) -> None:
        super().__init__()
        if inspect.iscoroutinefunction(self.run):
            self.is_async = True
            self.run = _bridge(self, self.run)

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Make the request follow the coroutine, and the runtime end with the worker."""
        super().on_bound(app)
        _follow_context(cls.request_stack)
        _close_with_worker(cls.runtime)

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task here and now, as eager mode does; an AdapterError on the loop's own thread."""
        if self.is_async and (self.runtime or default_runtime()).is_current:
            instead = f"await {self.__name__}(...), or await asyncio.to_thread({self.__name__}.apply, ...)"
            raise AdapterError(f"{self.name} would wait for itself, eagerly on the loop's own thread; {instead}")
        return super().apply(*args, **kwargs)


def install(app: Celery, *, runtime: LoopRuntime | None = None) -> None:
    """
    Let every task of an app be ``async def``, also those with a ``base`` class of their own.

    Call it right after ``app = Celery(...)``. Sync tasks stay as they are. The runtime starts with
    the first async task of each worker process, never in the parent of a prefork pool. It is closed
    when that process stops: coroutines are cancelled and cleaned up, loop-bound resources closed.

    Args:
        app: The application.
        runtime: Where tasks run whose class names no ``runtime``; the default runtime if None.

    Raises:
        AdapterError: The app has made tasks already or has another runtime, or Celery's task stacks
            cannot follow a coroutine (``USE_FAST_LOCALS``). Nothing was changed.

    Thread: the one that sets up the app.
    """
    name = repr(app.main or "app")
    if app.finalized or "Task" in vars(app):
        raise AdapterError(f"install({name}) comes too late, tasks exist; call it right after Celery()")
    _follow_context()
    if _installed.setdefault(app, runtime) is not runtime:
        raise AdapterError(f"install({name}) was called with another runtime before; call it once")
    if "register_task" in vars(app):
        return
    from_function, register = app._task_from_fun, app.register_task

    def task_from_function(fun: Any, *args: Any, base: Any = None, **options: Any) -> Any:
        mixed = base and inspect.iscoroutinefunction(fun)
        return from_function(fun, *args, base=_async_class(base, runtime) if mixed else base, **options)

    def register_task(task: Any, **options: Any) -> Any:
        kind: Any = task if inspect.isclass(task) else type(task)
        if inspect.iscoroutinefunction(kind.run) and not issubclass(kind, AsyncTask):
            raise AdapterError(f"{kind.__qualname__}.run is async def; derive {kind.__qualname__} from AsyncTask")
        return register(task, **options)

    # `base` and class-based tasks pass the app's task_cls by, and Celery has no public hook for them.
    untyped: Any = app
    untyped._task_from_fun, untyped.register_task = task_from_function, register_task
    untyped.task_cls = _async_class(symbol_by_name(untyped.task_cls), runtime)


def _async_class(base: Any, runtime: LoopRuntime | None) -> Any:
    """Make a task class an `AsyncTask` too; what it says of its runtime goes before what the app says."""
    own = getattr(base, "runtime", None) or runtime
    name, attributes = base.__name__, {"abstract": True, "runtime": own, "__module__": base.__module__}
    if not issubclass(base, AsyncTask):
        return type(name, (AsyncTask, base), attributes)
    return base if base.runtime is own else type(name, (base,), attributes)


def _close_with_worker(runtime: LoopRuntime | None) -> None:
    def close(**_: Any) -> None:
        (runtime or default_runtime()).close()

    # Held by Celery strongly (weak=False); the uid makes a second connection of the same runtime harmless.
    for signal in (signals.worker_process_shutdown, signals.worker_shutdown):
        signal.connect(close, weak=False, dispatch_uid=f"homeloop.close.{id(runtime)}")


def _bridge(task: AsyncTask, run: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    @wraps(run)  # with the real signature: Task.retry and typing checks look at it
    def call(*args: Any, **kwargs: Any) -> Any:
        runtime = task.runtime or default_runtime()
        if runtime.is_current:
            return _awaited(task, task.request, run(*args, **kwargs))
        body = _Limited()
        outcome: Future[Any] = Future()

        @wraps(run)
        async def drive() -> Any:
            try:
                value = await body.begin(run(*args, **kwargs))
            except Exception as error:
                if body.is_limited and not isinstance(error, SoftLimitReached):
                    outcome.set_exception(error)
                raise
            outcome.set_result(value)
            return value

        unbound = type(task.app) is Proxy  # of the current app
        token = _CurrentApp.of_task.set(_state.get_current_app() if unbound else task.app)
        try:
            return runtime.run(drive)
        except SoftTimeLimitExceeded:
            if outcome.done():  # the coroutine has handled the limit, or was faster
                return outcome.result()
            raise
        finally:
            _CurrentApp.of_task.reset(token)

    # wraps() sets __wrapped__, and through it inspect would take the bridge for what it wraps.
    call.__signature__ = inspect.signature(run)  # type: ignore[attr-defined]
    del call.__wrapped__
    return call


async def _awaited(task: Any, request: Any, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a task that was called directly on the loop's thread, with the request of that call."""
    _task_stack.push(task)
    task.request_stack.push(request)
    try:
        return await coroutine
    finally:
        task.request_stack.pop()
        _task_stack.pop()


class SoftLimitReached(SoftTimeLimitExceeded, asyncio.CancelledError):  # type: ignore[misc]
    """Celery's exception to the task's author, and still a cancellation to the task groups it passes."""


class _Limited(Generator[Any, Any, Any]):
    """
    A coroutine to be awaited, whose cancellation for a soft limit arrives as `SoftLimitReached`.

    The runtime cancels a call within the ``except`` block of what interrupted the waiting thread, and
    stays there while the coroutine cleans up: the interpreter knows whether that was a soft limit.
    """

    def __init__(self) -> None:
        self._waiter = threading.get_ident()
        self._before = _handled_by(self._waiter)
        self.is_limited = False

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> Self:
        self.cr_await = coroutine  # under the name by which tools find what is awaited
        return self

    __await__ = Generator.__iter__

    def send(self, value: Any) -> Any:
        return self.cr_await.send(value)

    def throw(self, error: Any, *_: Any) -> Any:
        if isinstance(error, asyncio.CancelledError) and not self.is_limited:
            cause = _handled_by(self._waiter)
            self.is_limited = isinstance(cause, SoftTimeLimitExceeded) and cause is not self._before
            if self.is_limited and (current := asyncio.current_task()):
                current.uncancel()  # from now on an exception to handle, and no request to end
                error = SoftLimitReached()
        return self.cr_await.throw(error)


def _handled_by(thread: int) -> Any:
    handled: Any = sys._current_exceptions().get(thread)
    return handled[1] if isinstance(handled, tuple) else handled  # exc_info in 3.11


@dataclass(slots=True, eq=False)
class _Entry:
    item: Any  # None once it was popped, for everybody who still holds the entry
    below: "_Entry | None"


class _Entries(list[Any]):
    """
    A stack's entries as one context sees them; Celery pushes and pops through it.

    Contexts are copied into coroutines, asyncio tasks and ``to_thread``: each sees what its creator
    had pushed, until that is popped and so is over for all, and nobody else sees what it pushes.
    """

    def __init__(self, top: "ContextVar[_Entry | None]") -> None:
        self._top = top
        entry = top.get()
        while entry is not None:
            if (item := entry.item) is not None:
                self.insert(0, item)
            entry = entry.below

    def append(self, item: Any) -> None:
        self._top.set(_Entry(item, self._top.get()))

    def pop(self, _: Any = -1) -> Any:
        entry = self._top.get()
        if entry is None:
            return None  # as an empty LocalStack does
        item, entry.item = entry.item, None
        self._top.set(entry.below)  # what was there before: balanced calls change nothing
        return item


class _ContextLocal:
    """Replaces the thread-local storage inside a Celery stack, whose methods others hold on to."""

    def __init__(self) -> None:
        self._top: ContextVar[_Entry | None] = ContextVar("homeloop_celery_stack", default=None)

    stack = property(lambda self: _Entries(self._top))

    def __release_local__(self) -> None:
        self.stack.pop()  # a stack releases its storage to pop the last entry


class _CurrentApp:
    """Replaces the thread-local of Celery's current app; by context, as tasks of several apps may interleave."""

    of_task: ContextVar[Any] = ContextVar("homeloop_celery_app", default=None)

    def __init__(self, by_thread: Any) -> None:
        self._by_thread = by_thread

    @property
    def current_app(self) -> Any:
        return self.of_task.get() or self._by_thread.current_app

    @current_app.setter
    def current_app(self, app: Any) -> None:
        if self.of_task.get() is None:
            self._by_thread.current_app = app
        else:
            self.of_task.set(app)


def _follow_context(*stacks: Any) -> None:
    if not hasattr(LocalStack(), "_local") or not hasattr(_state, "_tls"):
        reason = "USE_FAST_LOCALS is set" if os.environ.get("USE_FAST_LOCALS") else "unknown Celery"
        raise AdapterError(f"Celery's task stacks cannot follow a coroutine to the loop's thread ({reason})")
    for stack in (_task_stack, *stacks):
        if not isinstance(stack._local, _ContextLocal):
            stack._local = _ContextLocal()
    if not isinstance(_state._tls, _CurrentApp):
        _state._tls = _CurrentApp(_state._tls)
