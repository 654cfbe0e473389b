"""The names under which the documents that started homeloop know its parts."""

import importlib
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar

import homeloop
from homeloop import BoundCallback, HealthMonitor, HealthThresholds, default_monitor, detect_cross_loop_issue
from homeloop.errors import ConfigurationError
from homeloop.serving import AsyncExecutor

if TYPE_CHECKING:
    from homeloop.adapters.langgraph import (
        IsolatedLangGraphContext,
        LangGraphEventLoopManager,
        ProcessIsolatedLangGraphExecutor,
        ProgressTrackingWorkflow,
        execute_in_isolated_thread,
        execute_langgraph_in_process,
        get_langgraph_manager,
        isolation_from_options,
    )

__all__ = (
    "AsyncContextManager",
    "EventLoopConsistentCallback",
    "EventLoopHealthMonitor",
    "IsolatedLangGraphContext",
    "LangGraphEventLoopManager",
    "ProcessIsolatedLangGraphExecutor",
    "ProgressTrackingWorkflow",
    "celery_async_task",
    "detect_cross_loop_issue",
    "ensure_async_pool_initialization",
    "ensure_single_event_loop",
    "execute_in_isolated_thread",
    "execute_langgraph_in_process",
    "get_event_loop_health",
    "get_langgraph_manager",
    "isolation_from_options",
    "make_loop_consistent_callback",
    "start_event_loop_monitoring",
    "stop_event_loop_monitoring",
)

P = ParamSpec("P")
T = TypeVar("T")

_LANGGRAPH = "homeloop.adapters.langgraph"  # not everyone who imports this has it


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(_LANGGRAPH), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


async def ensure_async_pool_initialization() -> None:
    """Open the running loop's database pools; see `homeloop.database.ensure_async_pool_initialization`."""
    from homeloop.database import ConnectionPoolManager  # not everyone who imports this has a database driver

    await ConnectionPoolManager.warm()


class AsyncContextManager:
    """
    Have the running loop's database pools open in the block: ``async with AsyncContextManager()``.

    Entering raises as `ensure_async_pool_initialization`. Leaving closes nothing: the pools are the
    loop's, and are closed on it when it ends.
    """

    async def __aenter__(self) -> Self:
        await ensure_async_pool_initialization()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the pools to their loop."""


EventLoopConsistentCallback = BoundCallback
"""What `make_loop_consistent_callback` makes."""


def make_loop_consistent_callback(
    callback: Callable[P, Awaitable[object]] | Callable[P, object],
    *,
    on_error: Literal["report", "raise"] = "report",
    coalesce: Literal["none", "latest"] = "none",
) -> BoundCallback[P]:
    """Have a callback always run on the loop that is running now; see `homeloop.bind_callback`."""
    return homeloop.bind_callback(callback, on_error=on_error, coalesce=coalesce)


def ensure_single_event_loop(
    *, timeout: float | None = None
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, T]]:
    """
    Let any code call an async function without await; decorator: ``@ensure_single_event_loop()``.

    The function runs on the default runtime, never on the caller's loop, which stands still meanwhile; where you
    may await, ``await homeloop.arun(fn, ...)``. It is called once.

    Args:
        timeout: Seconds; None for ever.

    Raises, thread and cancellation: as `homeloop.serving.AsyncExecutor.run_async`.
    """

    def decorate(fn: Callable[P, Awaitable[T]]) -> Callable[P, T]:
        @wraps(fn)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return AsyncExecutor.run_async(partial(fn, *args, **kwargs), timeout=timeout, retry=None)

        return call

    return decorate


EventLoopHealthMonitor = HealthMonitor
"""What watches; the process's own is `homeloop.default_monitor`."""


def start_event_loop_monitoring(interval: float = 30.0, *, thresholds: HealthThresholds | None = None) -> None:
    """
    Have the loops of this process watched, and a running one that this is called on; see `HealthMonitor.start`.

    Args:
        interval: Seconds between two assessments.
        thresholds: Beyond which figures become findings; as they are, if None.

    Raises:
        TypeError, ValueError, RuntimeError: as `HealthMonitor.start`.
    """
    monitor = default_monitor()
    if thresholds is not None:
        monitor.thresholds = thresholds
    monitor.start(interval)


def stop_event_loop_monitoring() -> None:
    """Watch no more; see `HealthMonitor.stop`."""
    default_monitor().stop()


def get_event_loop_health() -> dict[str, Any]:  # Any: what JSON knows
    """
    Tell how the loops of this process are: ``status``, ``recommendations``, tasks, loops; see `HealthReport`.

    Without `start_event_loop_monitoring` nobody measures lag or sees what blocks, and ``monitored`` is False.
    """
    return default_monitor().report().as_dict()


def celery_async_task(fn: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """
    Let an async function be a Celery task, with the database pools of its loop open; decorator, the lowest.

    ``@app.task(bind=True)``, ``@user_aware_task``, ``@celery_async_task``, in this order. The function runs on
    the worker's one loop, on every pool, also if nobody called `homeloop.adapters.celery.install`; see
    `homeloop.adapters.celery.task_function`. Pools are opened if it is known where a database is.

    Raises:
        ModuleNotFoundError: Celery is not installed.

    The task raises: as `ensure_async_pool_initialization`, if a pool cannot be opened. ``fn`` was not called.
    """
    from homeloop.adapters.celery import task_function  # not everyone who imports this has Celery

    @wraps(fn)
    async def with_pools(*args: P.args, **kwargs: P.kwargs) -> T:
        await _open_known_pools()
        return await fn(*args, **kwargs)

    return task_function(with_pools)


async def _open_known_pools() -> None:
    try:
        await ensure_async_pool_initialization()
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
    except ConfigurationError:  # nobody said where, and perhaps nobody needs one
        pass
