"""Tracing: faults are seen before anything fails, and calls go on as they would."""

import asyncio
import asyncio.selector_events
import gc
import importlib.util
import inspect
import socket
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
import uvloop
from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI
from fastapi.testclient import TestClient

import homeloop
from homeloop import diagnose, trace
from homeloop._events import emit
from homeloop._provenance import Place
from homeloop.diagnosis import from_fault

BOUND = 10.0


def test_timer_of_another_loop(heard: list[trace.LoopFault]) -> None:
    """A client that sets its timers on the loop that it was made on is told of before anything is sent."""

    class Client:
        def __init__(self) -> None:
            self.loop = asyncio.get_running_loop()

        def ask(self) -> None:
            self.loop.call_later(BOUND, print).cancel()

    async def main() -> Client:
        client = Client()
        client.ask()
        return client

    client = asyncio.run(main())

    async def again() -> None:
        with pytest.raises(RuntimeError, match="closed"):
            client.ask()

    asyncio.run(again())
    (fault,) = heard
    assert fault.kind == "reuse-across-runs"
    assert fault.used_at is not None
    assert fault.used_at.source.strip() == "self.loop.call_later(BOUND, print).cancel()"


@pytest.mark.parametrize(("by_test_client", "kind"), [(True, "test-loop-mismatch"), (False, "two-live-loops")])
def test_another_loop_that_a_test_runs(by_test_client: bool, kind: str, heard: list[trace.LoopFault]) -> None:
    """What a test client runs is told apart from a program's own second loop, though nobody's error says so."""
    app = FastAPI()

    @app.get("/")
    async def root() -> None:
        client.ask()

    class Client:
        def __init__(self) -> None:
            self.loop = asyncio.get_running_loop()

        def ask(self) -> None:
            self.loop.create_future().cancel()

    def use() -> None:
        if by_test_client:
            assert TestClient(app).get("/").status_code == 200
        else:
            with start_blocking_portal() as portal:
                portal.call(root)

    async def main() -> None:
        nonlocal client
        client = Client()
        await asyncio.to_thread(use)

    client: Client
    asyncio.run(main())
    (fault,) = heard
    assert fault.kind == kind


async def closed_by_block() -> httpx.AsyncClient:
    async with httpx.AsyncClient() as client:
        return client


async def closed_by_generator() -> httpx.AsyncClient:
    @asynccontextmanager
    async def clients() -> AsyncGenerator[httpx.AsyncClient]:
        client = httpx.AsyncClient()
        try:
            yield client
        finally:
            await client.aclose()

    async with clients() as client:
        return client


async def closed_on_purpose() -> httpx.AsyncClient:
    client = httpx.AsyncClient()
    await client.aclose()
    return client


@pytest.mark.parametrize(
    ("closed", "kind"),
    [
        (closed_by_block, "use-after-context-exit"),
        (closed_by_generator, "use-after-context-exit"),
        (closed_on_purpose, None),
    ],
)
def test_who_closed_it(
    closed: Callable[[], Awaitable[httpx.AsyncClient]], kind: str | None, heard: list[trace.LoopFault]
) -> None:
    """What a block closed as it ended is a finding; what the program closed itself, and used, it knows of."""

    async def use() -> None:
        client = await closed()
        await client.get("http://127.0.0.1:1/")

    with pytest.raises(RuntimeError, match="closed") as caught:
        asyncio.run(use())
    found = diagnose(caught.value)
    assert (None if found is None else found.kind) == kind
    assert inspect.iscoroutinefunction(httpx.AsyncClient.aclose)
    assert heard == []


def test_lock_that_another_task_holds(heard: list[trace.LoopFault]) -> None:
    """Who waits for a lock in order is not told of; corpus/80 waits for one that is held below it."""

    async def main() -> None:
        lock = asyncio.Lock()

        async def take() -> None:
            async with lock:
                await asyncio.sleep(0)

        await asyncio.gather(take(), take(), take())

    asyncio.run(main())
    assert heard == []


async def numbers() -> AsyncGenerator[int]:
    for number in range(9):
        await asyncio.sleep(0)
        yield number


def test_generator_cut_off(heard: list[trace.LoopFault]) -> None:
    """A generator that ended with its loop is told of when another loop runs and the program still has it."""

    async def some(generator: AsyncGenerator[int]) -> list[int]:
        got: list[int] = []
        async for number in generator:
            got.append(number)
            if number == 2:
                break
        return got

    generator = numbers()
    assert asyncio.run(some(generator)) == [0, 1, 2]
    assert heard == []
    assert asyncio.run(some(generator)) == []
    (fault,) = heard
    assert (fault.kind, fault.what) == ("asyncgen-cleanup", "numbers")


def test_generator_cut_off_before_tracing_ended(heard: list[trace.LoopFault]) -> None:
    """What was seen of generators is forgotten with the level."""
    generator = numbers()

    async def begin() -> int:
        return await anext(generator)

    assert asyncio.run(begin()) == 0
    trace.disable()
    trace.enable(3)
    asyncio.run(asyncio.sleep(0))
    assert heard == []


def test_many_generators_are_looked_for_at_once(
    heard: list[trace.LoopFault], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that the interpreter keeps is looked through once for each loop that ends, not for each generator."""
    looks: list[int] = []

    def look(*things: object, original: Callable[..., list[object]] = gc.get_referrers) -> list[object]:
        looks.append(len(things))
        return original(*things)

    monkeypatch.setattr(gc, "get_referrers", look)
    kept = [numbers() for _ in range(20)]

    async def begin() -> None:
        for each in kept:
            await anext(each)

    asyncio.run(begin())
    assert looks == [20]
    asyncio.run(asyncio.sleep(0))
    assert [fault.kind for fault in heard] == ["asyncgen-cleanup"]


def test_generators_that_are_done_with(heard: list[trace.LoopFault]) -> None:
    """Those at their end, those that a loop was left of, that failed, or that a manager has, are no fault."""

    @asynccontextmanager
    async def open_numbers() -> AsyncGenerator[int]:
        await asyncio.sleep(0)
        yield 1

    kept: list[object] = []

    async def main() -> None:
        async for number in numbers():
            if number:
                break
        manager = open_numbers()
        await manager.__aenter__()
        kept.append(manager)
        generator = numbers()
        await anext(generator)
        raise LookupError

    for _ in range(2):
        with pytest.raises(LookupError):
            asyncio.run(main())

    async def enter() -> None:
        manager = open_numbers()
        await manager.__aenter__()
        kept.append(manager)

    asyncio.run(enter())

    async def exhaust() -> None:
        generator = numbers()
        kept.append(generator)
        assert [number async for number in generator] == list(range(9))

    asyncio.run(exhaust())
    asyncio.run(asyncio.sleep(0))
    assert heard == []


def test_what_is_logged_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """The log says in one line what was used where, and where to read on."""
    spot = Place("app.py", 3, "work")
    emit(trace.LoopFault("two-live-loops", "asyncpg.pool.Pool", "it waits elsewhere", spot, Place("db.py", 1, "")))
    (line,) = caplog.messages
    assert line.startswith("two-live-loops: asyncpg.pool.Pool, used at app.py:3 in work, made at db.py:1")
    assert line.endswith("it waits elsewhere; homeloop explain two-live-loops")


def test_wake_up_from_a_thread(heard: list[trace.LoopFault]) -> None:
    """Who sets an event from another thread is told where, though nothing is raised."""

    async def main() -> None:
        event = asyncio.Event()
        waiting = asyncio.create_task(event.wait())
        await asyncio.sleep(0)
        thread = threading.Thread(target=lambda: event.set())
        thread.start()
        await asyncio.to_thread(thread.join, BOUND)
        await asyncio.wait_for(waiting, BOUND)

    asyncio.run(main())
    (fault,) = heard
    assert fault.kind == "unsafe-cross-thread"
    assert fault.used_at is not None
    assert "event.set()" in fault.used_at.source
    assert fault.owner is not None
    assert fault.owner.state == "running"
    assert fault.owner.made_at is not None


@pytest.mark.parametrize("touch", ["set an event", "release a semaphore", "put into a queue"])
def test_what_is_touched_between_two_runs_of_its_loop_is_not_told_of(
    heard: list[trace.LoopFault], touch: str
) -> None:
    """Nobody else runs the loop, and it looks when it runs again."""
    loop = asyncio.new_event_loop()
    event, semaphore, queue = asyncio.Event(), asyncio.Semaphore(0), asyncio.Queue[int]()
    wait, act = {
        "set an event": (event.wait, event.set),
        "release a semaphore": (semaphore.acquire, semaphore.release),
        "put into a queue": (queue.get, lambda: queue.put_nowait(1)),
    }[touch]
    try:
        waiting = loop.create_task(wait())
        loop.run_until_complete(asyncio.sleep(0))
        act()
        loop.run_until_complete(asyncio.wait_for(waiting, BOUND))
    finally:
        loop.close()
    assert heard == []


def test_primitive_before_it_fails(heard: list[trace.LoopFault]) -> None:
    """A lock of another loop is told before it refuses; the error is the same as without tracing."""
    lock = asyncio.Lock()

    async def contend() -> None:
        async def hold() -> None:
            async with lock:
                await asyncio.sleep(0)

        await asyncio.gather(hold(), hold())

    asyncio.run(contend())
    with pytest.raises(RuntimeError, match="bound to a different event loop"):
        asyncio.run(contend())
    assert [fault.kind for fault in heard] == ["primitive-rebind"]
    assert heard[0].owner is not None
    assert heard[0].owner.closed_at is not None


def test_loop_that_waits_for_itself(heard: list[trace.LoopFault]) -> None:
    """A loop's thread that waits for that loop is told before it waits."""

    async def answer() -> int:
        return 42

    async def main() -> None:
        future = asyncio.run_coroutine_threadsafe(answer(), asyncio.get_running_loop())
        with pytest.raises(TimeoutError):
            future.result(timeout=0.001)
        assert await asyncio.wrap_future(future) == 42

    asyncio.run(main())
    assert [fault.kind for fault in heard] == ["sync-bridge-deadlock"]


@pytest.mark.parametrize(("level", "timeout"), [(3, 0), (0, 0.001)])
def test_results_that_are_not_waited_for(level: int, timeout: float, heard: list[trace.LoopFault]) -> None:
    """Who only asks whether a result is there is not told of; nor who waits once tracing is off."""

    async def answer() -> int:
        return 42

    async def main() -> None:
        future = asyncio.run_coroutine_threadsafe(answer(), asyncio.get_running_loop())
        if not level:
            trace.disable()
        with pytest.raises(TimeoutError):
            future.result(timeout=timeout)
        assert await asyncio.wrap_future(future) == 42
        assert future.result(timeout=0) == 42

    asyncio.run(main())
    assert heard == []


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("touch", ["call_soon", "call_later", "call_at", "create_task"])
def test_calls_from_a_thread(
    touch: str, run: Callable[[Awaitable[None]], None], heard: list[trace.LoopFault]
) -> None:
    """What a thread asks a running loop for is told of, on every kind of loop; the loop's own is not."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        called = asyncio.Event()

        async def call() -> None:
            called.set()

        def ask() -> None:
            if touch == "create_task":
                tasks.append(loop.create_task(call()))
            elif touch == "call_soon":
                loop.call_soon(called.set)
            else:
                getattr(loop, touch)(loop.time() if touch == "call_at" else 0, called.set)

        tasks: list[asyncio.Task[None]] = []
        ask()
        await asyncio.wait_for(called.wait(), BOUND)
        assert heard == []
        called.clear()
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(BOUND)
        await asyncio.wait_for(called.wait(), BOUND)

    run(main())
    assert [fault.kind for fault in heard] == ["unsafe-cross-thread"]


def test_records_sharpen_the_diagnosis(heard: list[trace.LoopFault]) -> None:
    """With records, a loop that never ran is told from one that ended."""
    idle = asyncio.new_event_loop()
    future = idle.create_future()

    async def main() -> None:
        await future

    with pytest.raises(RuntimeError) as caught:
        asyncio.run(main())
    diagnosis = diagnose(caught.value)
    idle.close()
    assert diagnosis is not None
    assert diagnosis.code == "LOOP102"
    assert diagnosis.owner is not None
    assert diagnosis.owner.made_at is not None
    assert "new_event_loop()" in diagnosis.owner.made_at.source


def test_orderly_programs_are_not_told_of(heard: list[trace.LoopFault]) -> None:
    """Loops that end as they should, hand-overs that are done as they should: silence."""

    async def work(queue: "asyncio.Queue[int]") -> int:
        return await queue.get()

    async def main() -> None:
        queue: asyncio.Queue[int] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        waiting = asyncio.create_task(work(queue))
        await asyncio.to_thread(loop.call_soon_threadsafe, queue.put_nowait, 1)
        assert await waiting == 1
        assert await homeloop.arun(asyncio.sleep, 0, 2) == 2
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await loop.create_future()

    asyncio.run(main())
    asyncio.run(main())
    assert homeloop.run(asyncio.sleep, 0, 3) == 3
    homeloop.default_runtime().close()
    assert heard == []


def test_clients_are_recorded(heard: list[trace.LoopFault]) -> None:
    """A client's record tells where it was made, whether its module was loaded before tracing or after."""
    httpx = importlib.import_module("httpx")

    async def main() -> None:
        async with httpx.AsyncClient() as client:
            assert client is not None

    asyncio.run(main())
    assert heard == []


def test_socket_of_another_loop(heard: list[trace.LoopFault]) -> None:
    """Writing to another loop's socket is told; closing it is left to be diagnosed as that."""
    with socket.create_server(("127.0.0.1", 0)) as server, asyncio.Runner() as home:

        async def connect() -> asyncio.StreamWriter:
            _, writer = await asyncio.open_connection(*server.getsockname())
            writer.write(b"sound")
            return writer

        async def use() -> None:
            writer.write(b"misused")

        writer = home.run(connect())
        assert heard == []
        asyncio.run(use())
        (fault,) = heard
        assert (fault.kind, fault.what.rpartition(".")[2]) == ("reuse-across-runs", "_SelectorSocketTransport")
        assert fault.used_at is not None
        assert fault.used_at.function.endswith(".use")

        async def close() -> None:
            writer.close()
            await writer.wait_closed()

        home.run(close())
        assert heard == [fault]


def test_callers_at_the_highest_level(heard: list[trace.LoopFault]) -> None:
    """Level 3 records by which of the program's own functions an object was made, and the render shows them."""

    def factory() -> httpx.AsyncClient:
        return httpx.AsyncClient()

    def provide() -> httpx.AsyncClient:
        return factory()

    client = provide()
    (made,) = [each.made_at for each in trace.traced() if each.thing is client]
    assert made is not None
    functions = [made.function, *(each.function for each in made.callers)]
    assert [name.rpartition(".")[2] for name in functions[:3]] == [
        "factory",
        "provide",
        "test_callers_at_the_highest_level",
    ]
    used = trace.LoopFault("two-live-loops", "httpx.AsyncClient", "it was tried", made, made)
    assert f"called from {made.callers[0]}" in from_fault(used).render()
    trace.enable(1)
    other = provide()
    (made,) = [each.made_at for each in trace.traced() if each.thing is other]
    assert made is not None
    assert made.callers == ()
