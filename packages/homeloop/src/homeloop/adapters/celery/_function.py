"""An async function that a task of any class can have for its function."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import inspect
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from celery import _state, current_task

from homeloop import default_runtime
from homeloop.adapters.celery._arguments import check_task_function
from homeloop.adapters.celery._lifecycle import close_with_worker, start_with_worker
from homeloop.adapters.celery._stacks import follow_context
from homeloop.adapters.celery._task import bridge_to, coroutine_behind, set_coroutine_behind

P = ParamSpec("P")
T = TypeVar("T")


def task_function(fn: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """
    Make an async function one that Celery can call, for apps that have not called `install`; decorator.

    The function runs on the default runtime, as an async task's: retry, limits, ``self.request`` and
    direct calls mean the same, and it can be awaited on the runtime's loop. An app that has called
    `install` takes it for the async function that it is, with all that `install` gives.

    Raises:
        AdapterError: Celery's task stacks cannot follow a coroutine (``USE_FAST_LOCALS``).
        ConfigurationError: It is an async generator function.

    Thread: any.
    """
    check_task_function(fn)
    follow_context()
    start_with_worker(None)
    close_with_worker(None)

    @wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        task = _own_task(fn)
        if task is not None:
            return _call_as_task(task, fn, args, kwargs)
        runtime = default_runtime()
        return fn(*args, **kwargs) if runtime.is_current else runtime.run(partial(fn, *args, **kwargs))

    call.__signature__ = inspect.signature(fn)  # type: ignore[attr-defined]  # Celery does not look behind
    set_coroutine_behind(call, fn)
    return call


def _own_task(fn: Any) -> Any:
    """Return the current task if it was made of this function."""
    task: Any = current_task._get_current_object() if current_task else None
    return task if task is not None and _is_made_of(task, fn) else None


def _is_made_of(task: Any, fn: Any) -> bool:
    return coroutine_behind(getattr(task, "_orig_run", task.run)) is fn  # which autoretry has wrapped


def _call_as_task(task: Any, fn: Any, args: Any, kwargs: Any) -> Any:
    bridge: Callable[..., Any] | None = vars(task).get(_BRIDGE)
    if bridge is None:
        bridge = vars(task)[_BRIDGE] = bridge_to(task, fn)
    # It may have been pushed before the stack followed contexts: this task is younger than its app's finalization.
    request = task.request
    follow_context(task.request_stack)
    task.request_stack.push(request)
    try:
        return bridge(*args, **kwargs)
    finally:
        task.request_stack.pop()


_BRIDGE = "homeloop_bridge"
"""The attribute of a task of another class that holds the bridge to its function."""


def _follow(app: Any) -> None:
    """Let the requests of an app's tasks follow their coroutines, before there are any."""

    def follow(**_: Any) -> None:
        for task in app.tasks.values():
            if coroutine_behind(task.run) is not None:
                follow_context(task.request_stack)

    app.on_after_finalize.connect(follow, weak=False)


_state.connect_on_app_finalize(_follow)
