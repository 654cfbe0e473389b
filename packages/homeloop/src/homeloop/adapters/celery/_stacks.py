"""Celery's stacks of requests, tasks and apps, kept by context instead of by thread or greenlet."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import os
from collections.abc import Coroutine
from contextvars import Context, ContextVar
from dataclasses import dataclass
from typing import Any

from celery import _state
from celery.local import Proxy
from celery.utils.threads import LocalStack

from homeloop.errors import AdapterError

task_stack: Any = _state._task_stack  # the one stack behind `current_task`; it has no public name


@dataclass(slots=True, eq=False)
class _Entry:
    item: Any  # None once it was popped, for everybody who still holds the entry
    below: "_Entry | None"


class _Entries(list[Any]):
    """
    A stack's entries as one context sees them; Celery pushes and pops through it.

    Contexts are copied into coroutines, asyncio tasks and ``to_thread``: each sees what its creator
    had pushed, until that is popped and so is over for all, and nobody else sees what it pushes.
    Under it lies what this thread had pushed before the stack was made to follow contexts.
    """

    def __init__(self, top: "ContextVar[_Entry | None]", before: list[Any]) -> None:
        super().__init__(before)
        self._top = top
        self._before = before
        entry = top.get()
        while entry is not None:
            if (item := entry.item) is not None:
                self.insert(len(before), item)
            entry = entry.below

    def append(self, item: Any) -> None:
        self._top.set(_Entry(item, self._top.get()))

    def pop(self, _: Any = -1) -> Any:
        entry = self._top.get()
        if entry is None:
            return self._before.pop() if self._before else None  # as an empty LocalStack does
        item, entry.item = entry.item, None
        self._top.set(entry.below)  # what was there before: balanced calls change nothing
        return item


class _ContextLocal:
    """Replaces the thread-local storage inside a Celery stack, whose methods others hold on to."""

    def __init__(self, by_thread: Any) -> None:
        self._top: ContextVar[_Entry | None] = ContextVar("homeloop_celery_stack", default=None)
        self._by_thread = by_thread

    @property
    def stack(self) -> _Entries:
        return _Entries(self._top, getattr(self._by_thread, "stack", None) or [])

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


def follow_context(*stacks: Any) -> None:
    """
    Let Celery's task stack, current app and the given request stacks follow a coroutine to its loop. Idempotent.

    Raises:
        AdapterError: They are not of the kind this module knows. Nothing was changed.
    """
    if not hasattr(LocalStack(), "_local") or not hasattr(_state, "_tls"):
        reason = "USE_FAST_LOCALS is set" if os.environ.get("USE_FAST_LOCALS") else "unknown Celery"
        raise AdapterError(f"Celery's task stacks cannot follow a coroutine to the loop's thread ({reason})")
    for stack in (task_stack, *stacks):
        if not isinstance(stack._local, _ContextLocal):
            stack._local = _ContextLocal(stack._local)
    if not isinstance(_state._tls, _CurrentApp):
        _state._tls = _CurrentApp(_state._tls)


def entry_of(stack: Any, context: Context) -> Any:
    """Return the uppermost entry that a stack has in a context; None if it has none, or follows no contexts."""
    local = stack._local
    entry = context.get(local._top) if isinstance(local, _ContextLocal) else None
    while entry is not None and entry.item is None:
        entry = entry.below
    return None if entry is None else entry.item


class app_of:  # noqa: N801  # a context manager, read as `with app_of(task):`
    """Make a task's app the current one, for the coroutine that is started within and all it starts."""

    def __init__(self, task: Any) -> None:
        unbound = type(task.app) is Proxy  # of the current app
        self._app = _state.get_current_app() if unbound else task.app

    def __enter__(self) -> None:
        self._token = _CurrentApp.of_task.set(self._app)

    def __exit__(self, *_: object) -> None:
        _CurrentApp.of_task.reset(self._token)


async def awaited(task: Any, request: Any, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a task that was called directly on the loop's thread, with the request of that call."""
    task_stack.push(task)
    task.request_stack.push(request)
    try:
        return await coroutine
    finally:
        task.request_stack.pop()
        task_stack.pop()
