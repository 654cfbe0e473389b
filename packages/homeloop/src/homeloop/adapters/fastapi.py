"""A runtime that lives as long as the application, resources for endpoints, health. Tested with FastAPI 0.165."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from threading import Lock
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse

from homeloop import HealthMonitor, LoopLocal, LoopRuntime, arun, default_monitor, default_runtime, enter

__all__ = ("health_router", "lease", "lease_at_home", "lifespan")

T = TypeVar("T")
State = Mapping[str, Any] | None  # Any: what an application keeps of its own
WarmUp = Callable[[], Awaitable[object]]
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[State]]


def lifespan(
    *,
    warm_up: Sequence[WarmUp] = (),
    warm_up_at_home: Sequence[WarmUp] = (),
    inner: Lifespan | None = None,
    close_timeout: float = 5.0,
    health_interval: float | None = None,
) -> Lifespan:
    """
    Start the default runtime before the first request, end it after the last: ``FastAPI(lifespan=lifespan())``.

    Async endpoints run on the server's loop, sync ones on threads, from which `homeloop.run` reaches the runtime's
    loop. When the application ends, that is drained: what still runs there is cancelled and cleans up, what lives
    there is closed. What `LoopLocal` opened on the server's loop is closed by that loop's end. A runtime that ran
    before, in a test for one, is left running; of several applications in a process the last one ends it.

    Args:
        warm_up: Async functions called on the server's loop before the first request, such as ``pools.warm``.
        warm_up_at_home: The same, on the runtime's loop, for what sync endpoints use.
        inner: The application's own lifespan, entered after the warm-ups and left before the runtime ends.
        close_timeout: Seconds for the drain; see `homeloop.LoopRuntime.close`.
        health_interval: Seconds between two assessments of the default health monitor, which then watches the
            server's loop, too; None leaves it alone. One that was started before goes on afterwards, else it stops
            with the last of several applications.

    The application's start raises: what a warm-up, ``inner`` or the runtime's start raises. Then no server starts.
    """

    @asynccontextmanager
    async def around(app: FastAPI) -> AsyncGenerator[State, None]:
        end_watch = _watch(health_interval)  # first: what a warm-up blocks is told, too
        runtime = default_runtime()
        is_ours = _join(runtime, runtime.statistics().home is not None)
        try:
            await arun(_call_all, warm_up_at_home)
            await _call_all(warm_up)
            if inner is None:
                yield None
            else:
                async with inner(app) as state:
                    yield state
        finally:
            try:
                if is_ours and _leave(runtime):
                    await _close(runtime, close_timeout)
            finally:
                end_watch()

    return around


_joining = Lock()
_applications: dict[LoopRuntime | HealthMonitor, int] = {}
"""How many applications run with a runtime, or a monitor, that the first of them started."""


def _join(what: LoopRuntime | HealthMonitor, is_started: bool) -> bool:
    """Tell whether applications started it, or this one will."""
    with _joining:
        if what not in _applications and is_started:
            return False
        _applications[what] = _applications.get(what, 0) + 1
        return True


def _leave(what: LoopRuntime | HealthMonitor) -> bool:
    """Tell whether no application is left that joined."""
    with _joining:
        left = _applications.pop(what) - 1
        if left:
            _applications[what] = left
        return not left


async def _close(runtime: LoopRuntime, timeout: float) -> None:
    # On a thread of its own: all workers of the server's loop may be waiting for what this ends.
    with_one_thread = ThreadPoolExecutor(1, thread_name_prefix="homeloop-drain")
    try:
        await asyncio.get_running_loop().run_in_executor(with_one_thread, runtime.close, timeout)
    finally:
        with_one_thread.shutdown(wait=False)


def _watch(interval: float | None) -> Callable[[], None]:
    """Have the running loop watched; return what ends that."""
    if interval is None:
        return lambda: None
    monitor = default_monitor()
    was_started = monitor.is_started
    if not was_started:
        monitor.start(interval)
    is_ours = _join(monitor, was_started)
    unwatch = monitor.watch_loop()

    def end() -> None:
        unwatch()
        if is_ours and _leave(monitor):
            monitor.stop()

    return end


async def _call_all(functions: Sequence[WarmUp]) -> None:
    for each in functions:
        await each()


def lease(local: LoopLocal[T]) -> Callable[[], AsyncGenerator[T, None]]:
    """
    Give async endpoints the resource of the server's loop: ``client: Annotated[Client, Depends(lease(clients))]``.

    It is not closed until the endpoint has ended. For sync endpoints, which run on threads: `lease_at_home`.

    The dependency raises: as `LoopLocal.get`.
    """

    async def dependency() -> AsyncGenerator[T, None]:
        async with local() as resource:
            yield resource

    return dependency


def lease_at_home(local: LoopLocal[T]) -> Callable[[], Generator[T, None, None]]:
    """
    Give sync endpoints the resource of the runtime's loop, to be used there: ``homeloop.run(client.get, url)``.

    It is not closed until the endpoint has ended. An async endpoint must use it by `homeloop.arun`, or `lease`.

    The dependency raises: as `LoopLocal.get` and `homeloop.run`.
    """

    def dependency() -> Generator[T, None, None]:
        with enter(local()) as resource:
            yield resource

    return dependency


def health_router(monitor: HealthMonitor | None = None) -> APIRouter:
    """
    Make a router that tells how the process is, to be included under a prefix of yours, ``/health`` for one.

    - ``GET /live``: 200 if the loop that serves it runs at all.
    - ``GET /ready``: status and recommendations; 503 while the status is ``"critical"``.
    - ``GET /loops``: everything, `HealthReport.as_dict`. It names functions and files: not for everybody.

    Args:
        monitor: The process's own by default; it should be started, see ``health_interval`` of `lifespan`.
    """
    monitor = monitor or default_monitor()
    router = APIRouter(tags=["health"])

    @router.get("/live")
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    # On the loop, not on its threads: those may all be in use when somebody asks what is wrong.
    @router.get("/ready")
    async def ready() -> JSONResponse:
        report = monitor.report()
        told = {"status": report.status, "recommendations": report.recommendations}
        return JSONResponse(told, 503 if report.status == "critical" else 200)

    @router.get("/loops")
    async def loops() -> JSONResponse:
        return JSONResponse(monitor.report().as_dict())

    _ = live, ready, loops  # they are the router's
    return router
