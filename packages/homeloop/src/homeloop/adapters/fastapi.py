"""Tell an application's health over HTTP, and watch the loop that serves it. Tested with FastAPI 0.165."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from homeloop import HealthMonitor, default_monitor

__all__ = ("health_router", "watched")


@asynccontextmanager
async def watched(
    interval: float = 30.0, *, monitor: HealthMonitor | None = None
) -> AsyncGenerator[HealthMonitor]:
    """
    Have the loops of the process watched in the block, the running one included: ``async with watched():``.

    For an application's lifespan. A monitor that is started already goes on afterwards.

    Args:
        interval: Seconds between two assessments.
        monitor: The process's own by default.

    Raises:
        TypeError, ValueError, RuntimeError: as `HealthMonitor.start`.
    """
    monitor = monitor or default_monitor()
    was_started = monitor.is_started
    if not was_started:
        monitor.start(interval)
    unwatch = monitor.watch_loop()
    try:
        yield monitor
    finally:
        unwatch()
        if not was_started:
            monitor.stop()


def health_router(monitor: HealthMonitor | None = None) -> APIRouter:
    """
    Make a router that tells how the process is, to be included under a prefix of yours, ``/health`` for one.

    - ``GET /live``: 200 if the loop that serves it runs at all.
    - ``GET /ready``: status and recommendations; 503 while the status is ``"critical"``.
    - ``GET /loops``: everything, `HealthReport.as_dict`. It names functions and files: not for everybody.

    Args:
        monitor: The process's own by default; it should be started, see `watched`.
    """
    monitor = monitor or default_monitor()
    router = APIRouter(tags=["health"])

    @router.get("/live")
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/ready")
    def ready() -> JSONResponse:
        report = monitor.report()
        told = {"status": report.status, "recommendations": report.recommendations}
        return JSONResponse(told, 503 if report.status == "critical" else 200)

    @router.get("/loops")
    def loops() -> JSONResponse:
        return JSONResponse(monitor.report().as_dict())

    _ = live, ready, loops  # they are the router's
    return router
