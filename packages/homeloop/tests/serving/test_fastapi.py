"""A4, A6, A8: FastAPI under uvicorn, its TestClient, and httpx on a test's own loop."""

import asyncio
import importlib
import queue
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

import homeloop
from homeloop import default_runtime
from homeloop.adapters.fastapi import lifespan

WAYS = ("/async", "/sync", "/executor-in-sync", "/executor-in-async", "/to-thread", "/arun")
BOUND = 60.0  # seconds; tells a hang from an answer

Serve = Callable[..., "AbstractContextManager[tuple[str, subprocess.Popen[str]]]"]


@pytest.fixture
def application(site: Any, apps: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The application's module; what its clients opened is closed after the test."""
    monkeypatch.setenv("SITE", site.url)
    module = importlib.import_module("fastapi_app")
    yield module
    default_runtime().close()


def test_a6_one_request_twenty_at_once_a_hundred_items_under_uvicorn(site: Any, serve: Serve) -> None:
    """Each way of calling: one request, 3 x 20 at once, all 200; a batch of 100; SIGTERM leaves nothing open."""
    with (
        serve("fastapi_app:app", SITE=site.url) as (url, server),
        httpx.Client(base_url=url, timeout=BOUND) as client,
        ThreadPoolExecutor(20) as pool,
    ):
        for way in WAYS:
            assert client.get(way).json() == "ok"
            for _ in range(3):
                answers = pool.map(client.get, [way] * 20)
                assert {(each.status_code, each.json()) for each in answers} == {(200, "ok")}, way
        assert client.get("/batch").json() == ["ok"] * 100
        log = _end(server)[1]
    assert "Traceback" not in log
    site.wait_for_no_connection()


def test_lifespan_warms_up_composes_and_drains(site: Any, serve: Serve) -> None:
    """Both loops are warm in the application's own lifespan; background work has cleaned up before the exit."""
    with (
        serve("fastapi_app:app", SITE=site.url) as (url, server),
        httpx.Client(base_url=url, timeout=BOUND) as client,
    ):
        assert client.get("/state").json() == "2 warm"
        assert client.get("/background").json() == "ok"
        printed, log = _end(server)
    assert "background work has cleaned up" in printed
    assert "Application shutdown complete" in log
    assert "Traceback" not in log


def _end(server: "subprocess.Popen[str]") -> tuple[str, str]:
    """Have the server end, and return what it printed and logged."""
    server.terminate()
    printed, log = server.communicate(timeout=BOUND)
    assert server.returncode == -signal.SIGTERM, log  # uvicorn ends itself by what it was sent, after its clean-up
    return printed, log


def test_a4_testclient_has_no_cross_loop_errors(application: ModuleType) -> None:
    """Two clients one after the other, each with a loop of its own, and every way of calling."""
    for _ in range(2):
        with TestClient(application.app) as client:
            assert [client.get(way).json() for way in WAYS] == ["ok"] * len(WAYS)
        assert default_runtime().statistics().home is None, "it was started by the application, and ended with it"


def test_a4_testclient_without_lifespan(application: ModuleType) -> None:
    """A loop per request, as TestClient has it outside of ``with``: resources open and close on each."""
    client = TestClient(application.app)
    assert [client.get(way).json() for way in WAYS] == ["ok"] * len(WAYS)


def test_a4_asgi_transport_on_the_tests_own_loop(application: ModuleType) -> None:
    """httpx calls the application on the loop of the test, one after another, all at once, loop after loop."""

    async def main() -> None:
        transport = httpx.ASGITransport(application.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            asked = [client.get(way, timeout=BOUND) for way in WAYS for _ in range(5)]
            assert {each.json() for each in await asyncio.gather(*asked)} == {"ok"}

    for _ in range(2):
        asyncio.run(main())


def test_lifespan_leaves_a_runtime_that_ran_before(application: ModuleType) -> None:
    """Who started the runtime ends it: a test, or another application of the process."""
    default_runtime().start()
    with TestClient(application.app) as client:
        assert client.get("/sync").json() == "ok"
    assert default_runtime().statistics().home is not None


def test_lifespan_ends_while_the_servers_workers_all_wait_for_the_runtime() -> None:
    """The drain needs none of the loop's own workers: it ends what these wait for, however many there are."""

    async def endless() -> None:
        begun.put_nowait(None)
        await asyncio.Event().wait()

    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        async with lifespan()(FastAPI()):
            waits = asyncio.create_task(asyncio.to_thread(homeloop.run, endless))
            await homeloop.arun(asyncio.to_thread, begun.get, True, BOUND)
        with pytest.raises(homeloop.errors.RuntimeDiedError):
            await waits

    begun: queue.SimpleQueue[None] = queue.SimpleQueue()
    asyncio.run(asyncio.wait_for(main(), BOUND))


def test_lifespan_of_the_last_application_ends_the_runtime() -> None:
    """Applications of a process may end in any order: what another one runs goes on."""

    async def work(go_on: asyncio.Event) -> asyncio.AbstractEventLoop:
        await go_on.wait()
        return asyncio.get_running_loop()

    async def give(go_on: asyncio.Event) -> None:
        go_on.set()

    async def main() -> None:
        first, second = lifespan()(FastAPI()), lifespan()(FastAPI())
        await first.__aenter__()
        await second.__aenter__()
        go_on = asyncio.Event()
        running = homeloop.submit(work, go_on)
        await first.__aexit__(None, None, None)
        await homeloop.arun(give, go_on)
        loop = await asyncio.wrap_future(running)
        await second.__aexit__(None, None, None)
        assert loop.is_closed()
        assert default_runtime().statistics().home is None

    asyncio.run(asyncio.wait_for(main(), BOUND))


def test_lifespan_fails_with_its_warm_up() -> None:
    """An application that cannot be warmed up does not start, and leaves no runtime behind."""

    async def refuse() -> None:
        raise ConnectionRefusedError("no database")

    for options in ({"warm_up": [refuse]}, {"warm_up_at_home": [refuse]}):
        with (
            pytest.raises(ConnectionRefusedError, match="no database"),
            TestClient(FastAPI(lifespan=lifespan(**options))),
        ):
            pass
        assert default_runtime().statistics().home is None


def test_a_lease_at_home_is_refused_on_the_servers_loop(application: ModuleType) -> None:
    """The runtime's resource in an async endpoint is told from the server's, before the client is touched."""
    app = FastAPI(lifespan=lifespan())

    @app.get("/mixed")
    async def mixed(client: application.ClientAtHome) -> str:  # type: ignore[name-defined]
        return str(await client.get("/"))

    with TestClient(app) as client, pytest.raises(homeloop.errors.WrongLoopError):
        client.get("/mixed")
