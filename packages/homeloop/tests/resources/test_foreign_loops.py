"""Whoever owns a loop, what was opened on it is closed there before it ends; many loops at once share nothing."""

import asyncio
import contextvars
import gc
import socket
import threading
import unittest
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
import uvicorn

import homeloop
from homeloop import KeyedLoopLocal, LoopLocal, LoopRuntime, resource_scope

BOUND = 10.0  # seconds


class Pool:
    """A resource that insists on its loop, counted while it is open."""

    live = 0
    lock = threading.Lock()

    def __init__(self, key: object = None) -> None:
        self.key = key
        self.loop = asyncio.get_running_loop()
        self.closed = False
        with self.lock:
            Pool.live += 1

    def use(self) -> None:
        assert asyncio.get_running_loop() is self.loop
        assert not self.closed

    async def aclose(self) -> None:
        self.use()
        await asyncio.sleep(0)
        self.closed = True
        with self.lock:
            Pool.live -= 1


async def use(local: "LoopLocal[Pool]", keyed: "KeyedLoopLocal[str, Pool]") -> list[Pool]:
    """Use a loop's resources as a request would."""
    async with local() as pool, keyed("a") as of_a:
        pool.use()
        of_a.use()
        return [pool, of_a]


Use = Callable[[], Coroutine[Any, Any, list[Pool]]]


def by_asyncio_run(work: Use) -> list[Pool]:
    return asyncio.run(work())


def by_uvloop_run(work: Use) -> list[Pool]:
    uvloop = pytest.importorskip("uvloop")
    pools: list[Pool] = uvloop.run(work())
    return pools


def by_a_runner_that_runs_thrice(work: Use) -> list[Pool]:
    """As pytest-asyncio does: one loop, a call for each fixture and test."""
    with asyncio.Runner() as runner:
        context = contextvars.copy_context()
        first, second, third = (runner.run(work(), context=context) for _ in range(3))
        assert first == second == third
    return third


def by_anyio_run(work: Use) -> list[Pool]:
    return anyio.run(work)


def by_unittest(work: Use) -> list[Pool]:
    found: list[Pool] = []

    class Case(unittest.IsolatedAsyncioTestCase):
        async def asyncSetUp(self) -> None:
            found.extend(await work())

        async def test(self) -> None:
            assert await work() == found

    result = Case("test").run()
    assert result is not None
    assert result.wasSuccessful(), result.errors
    return found


def by_uvicorn(work: Use) -> list[Pool]:
    """A server that answers two requests; its start and end are its own."""
    found: list[list[Pool]] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        found.append(await work())
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})
        server.should_exit = len(found) == 2

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
        thread = threading.Thread(target=lambda: server.run([listening]))
        thread.start()
        for _ in range(2):
            with socket.create_connection(listening.getsockname(), BOUND) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert client.recv(1000).startswith(b"HTTP/1.1 204")
        thread.join(BOUND)
        assert not thread.is_alive()
    assert found[0] == found[1]
    return found[0]


OWNERS = (by_asyncio_run, by_uvloop_run, by_a_runner_that_runs_thrice, by_anyio_run, by_unittest, by_uvicorn)


@pytest.mark.parametrize("run", OWNERS, ids=lambda run: run.__name__)
def test_every_owner_of_loops_has_its_resources_closed(run: Callable[[Use], list[Pool]]) -> None:
    """On the loop itself, before it closes, without being told; nothing is left of the loop."""
    local, keyed = LoopLocal(Pool), KeyedLoopLocal(Pool, max_idle=3600.0, max_items=10)
    pools = run(lambda: use(local, keyed))
    assert [pool.closed for pool in pools] == [True, True]
    for counts in (local.statistics(), keyed.statistics()):
        assert (counts.opened, counts.closed, counts.instances) == (1, 1, ())
    loop = weakref.ref(pools[0].loop)
    del pools
    gc.collect()
    assert loop() is None


def test_a_loop_closed_without_ceremony_is_noticed_with_all_its_keys() -> None:
    """What it had is dropped and reported, never awaited elsewhere; its timer does not matter any more."""
    dropped: list[homeloop.Event] = []

    class Recorder:
        def notify(self, event: homeloop.Event) -> None:
            if type(event).__name__ == "ResourceDropped":
                dropped.append(event)

    keyed = KeyedLoopLocal(Pool, max_idle=3600.0)

    async def main() -> list[Pool]:
        opened = [await keyed.get(key) for key in "abc"]
        scope = resource_scope()
        await scope.__aenter__()
        return [*opened, await keyed.get("a")]

    remove = homeloop.add_instrument(Recorder())
    try:
        loop = asyncio.new_event_loop()
        pools = loop.run_until_complete(main())
        loop.close()
        counts = keyed.statistics()
    finally:
        remove()
    assert (counts.opened, counts.live, counts.instances, len(dropped)) == (4, 0, (), 4)
    assert [pool.closed for pool in pools] == [False] * 4
    assert asyncio.run(_get(keyed)) not in pools
    with Pool.lock:
        Pool.live -= len(pools)


async def _get(keyed: "KeyedLoopLocal[str, Pool]") -> Pool:
    return await keyed.get("a")


def test_many_loops_at_once(runtime: LoopRuntime) -> None:
    """Loops that come and go, two that stay, evictions, scopes, and a thread that closes and counts everything."""
    keyed = KeyedLoopLocal(Pool, max_items=2, max_idle=0.001)
    errors: list[BaseException] = []
    stop = threading.Event()

    async def request(number: int) -> None:
        async with keyed(str(number % 5)) as pool:
            pool.use()
            await asyncio.sleep(0)
            pool.use()

    async def requests() -> None:
        await asyncio.gather(*(request(number) for number in range(10)))
        async with resource_scope():
            await asyncio.gather(*(request(number) for number in range(5)))

    def until_told(run: Callable[[], object]) -> None:
        try:
            while not stop.is_set():
                run()
        except BaseException as error:
            errors.append(error)

    with LoopRuntime(name="other") as other:
        runs: list[Callable[[], object]] = [lambda: asyncio.run(requests())] * 2
        runs += [lambda: runtime.run(requests), lambda: other.run(requests)]
        threads = [threading.Thread(target=until_told, args=(run,)) for run in runs]
        for thread in threads:
            thread.start()
        try:
            for _ in range(40):
                keyed.close(BOUND)
                counts = keyed.statistics()
                assert counts.live >= 0
                assert counts.in_use <= 40
                assert all(each.age >= 0 for each in counts.instances)
        finally:
            stop.set()
            for thread in threads:
                thread.join(BOUND)
        keyed.close(BOUND)
    assert errors == []
    counts = keyed.statistics()
    assert (counts.live, counts.in_use, counts.waiting, counts.failed, counts.instances) == (0, 0, 0, 0, ())
    assert counts.opened == counts.closed == counts.misses
    assert Pool.live == 0


def test_a_forked_child_starts_with_nothing_of_any_key(script: Callable[..., object]) -> None:
    """Not even a lease that is given back in the child, or a timer, touches what is the parent's."""
    ended = script(
        """
import asyncio, os, warnings
warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork.*", category=DeprecationWarning)
import homeloop
class Pool:
    def __init__(self, key): self.pid = os.getpid()
    async def aclose(self): print("closed by its own process", self.pid == os.getpid(), flush=True)
keyed = homeloop.KeyedLoopLocal(Pool, max_items=1, max_idle=3600)
async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # the parent waits for its child
    async with keyed("a"), keyed("b") as b:
        number = os.fork()
    if number == 0:
        assert keyed.statistics() == homeloop.ResourceStatistics()
        os._exit(0)
    assert os.waitpid(number, 0)[1] == 0
    await asyncio.sleep(0)
homeloop.run(main)
number = os.fork()
if number == 0:
    async def childs(): assert (await keyed.get("a")).pid == os.getpid()
    homeloop.run(childs)
    assert keyed.statistics().opened == 1
    keyed.close()
    homeloop.default_runtime().close()
    os._exit(0)
assert os.waitpid(number, 0)[1] == 0
assert keyed.statistics().live == 1
homeloop.default_runtime().close()
"""
    )
    assert (ended.returncode, ended.stderr) == (0, "")  # type: ignore[attr-defined]
    assert ended.stdout.splitlines() == ["closed by its own process True"] * 3  # type: ignore[attr-defined]
