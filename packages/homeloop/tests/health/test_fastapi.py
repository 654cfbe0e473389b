"""The health router, served by uvicorn: its loop is watched, and it says what is wrong."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from homeloop import HealthMonitor, LoopRuntime, default_monitor
from homeloop._events import LoopStalled
from homeloop.adapters.fastapi import health_router, lifespan

BOUND = 20.0  # seconds


def watched_loops(monitor: HealthMonitor) -> list[str]:
    """Return the names of the loops that it was told of."""
    return [loop.name for loop in monitor.report().loops if loop.owner == "watched"]


@contextlib.contextmanager
def served(monitor: HealthMonitor) -> Iterator[str]:
    """Serve an application with the router, on a thread of its own; return its address."""

    @asynccontextmanager
    async def watched(_: FastAPI) -> AsyncIterator[None]:
        end = monitor.watch_loop()
        up.set()
        yield
        end()

    up = threading.Event()
    app = FastAPI(lifespan=lifespan(inner=watched))
    app.include_router(health_router(monitor), prefix="/health")
    monitor.start(60.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=asyncio.run, args=(server.serve([listener]),), name="server")
        thread.start()
        assert up.wait(BOUND)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/health"
        finally:
            server.should_exit = True
            thread.join(BOUND)


def test_health_is_told_while_all_threads_of_the_endpoints_are_in_use(monitor: HealthMonitor) -> None:
    """Sync endpoints that hang are when it is asked for."""
    inside, go_on = threading.Event(), threading.Event()
    app = FastAPI()
    app.include_router(health_router(monitor))

    @app.get("/busy")
    def busy() -> None:
        inside.set()
        go_on.wait(BOUND)

    async def main() -> list[int]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = 1
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
            hangs = asyncio.create_task(client.get("/busy"))
            await asyncio.to_thread(inside.wait, BOUND)
            try:
                async with asyncio.timeout(BOUND):
                    return [(await client.get(path)).status_code for path in ("/live", "/ready", "/loops")]
            finally:
                go_on.set()
                await hangs

    assert asyncio.run(main()) == [200, 200, 200]


def test_a_process_with_a_blocked_loop_is_not_ready(
    runtime: LoopRuntime, monitor: HealthMonitor, heard: Any, gate: threading.Event
) -> None:
    """While a loop is blocked the process is not ready, and says why."""

    async def blocks() -> None:
        gate.wait(BOUND)

    with served(monitor) as address, httpx.Client(timeout=BOUND) as client:
        blocking = runtime.submit(blocks)
        heard.wait_for(LoopStalled, lambda event: any(frame.endswith("blocks") for frame in event.blocked_at))
        answer = client.get(f"{address}/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "critical")
        assert any("blocks" in text for text in answer.json()["recommendations"])
        gate.set()
        blocking.result(BOUND)


def test_the_router_tells_health(patient: HealthMonitor) -> None:
    """A process that answers is alive; the loop that serves is watched; all that is known is there."""
    with served(patient) as address, httpx.Client(timeout=BOUND) as client:
        assert client.get(f"{address}/live").json() == {"status": "alive"}
        answer = client.get(f"{address}/ready")
        assert answer.status_code == 200
        assert answer.json()["status"] in ("healthy", "warning")  # other tests may have left tasks
        loops = client.get(f"{address}/loops").json()["loops"]
        assert [loop["owner"] for loop in loops if loop["name"] == "server"] == ["watched"]


@pytest.mark.parametrize("started", [True, False])
def test_a_lifespan_has_its_loop_watched(started: bool) -> None:
    """In the lifespan only; a monitor that was started before goes on."""
    monitor = default_monitor()

    async def serve() -> None:
        async with lifespan(health_interval=60.0)(FastAPI()):
            assert monitor.is_started
            assert watched_loops(monitor) == ["MainThread"]

    if started:
        monitor.start()
    asyncio.run(serve())
    assert monitor.is_started is started
    assert watched_loops(monitor) == []
    assert monitor.stop()


def test_of_two_applications_the_last_one_stops_the_monitor() -> None:
    """The first one to end leaves the other one watched."""
    monitor = default_monitor()

    async def serve() -> None:
        first = lifespan(health_interval=60.0)(FastAPI())
        await first.__aenter__()
        async with lifespan(health_interval=60.0)(FastAPI()):
            await first.__aexit__(None, None, None)
            assert monitor.is_started

    asyncio.run(serve())
    assert not monitor.is_started


def test_a_lifespan_watches_nothing_unless_asked() -> None:
    """By default the monitor is left alone."""

    async def serve() -> None:
        async with lifespan()(FastAPI()):
            assert not default_monitor().is_started

    asyncio.run(serve())
