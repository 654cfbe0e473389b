"""resource_scope: a piece of work has resources of its own on every loop it reaches; nobody else's are touched."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

import homeloop
from homeloop import KeyedLoopLocal, LoopLocal, LoopRuntime, resource_scope
from homeloop.errors import ScopeEndedError

BOUND = 10.0  # seconds


class Pool:
    """A resource that knows its loop and insists on it, and remembers in which order things were closed."""

    def __init__(self, log: list[object] | None = None, name: object = "pool") -> None:
        self.loop = asyncio.get_running_loop()
        self.closed = False
        self.log = [] if log is None else log
        self.name = name

    async def aclose(self) -> None:
        assert asyncio.get_running_loop() is self.loop
        await asyncio.sleep(0)
        self.closed = True
        self.log.append(self.name)


async def turns(number: int = 10) -> None:
    """Let the others go on."""
    for _ in range(number):
        await asyncio.sleep(0)


def test_a_scope_has_instances_of_its_own(runtime: LoopRuntime) -> None:
    """Those of the outside are neither seen nor closed, and seen again afterwards."""
    pools, keyed = LoopLocal(Pool), KeyedLoopLocal(lambda key: Pool(name=key))

    async def main() -> None:
        outside = [await pools.get(), await keyed.get("a")]
        async with resource_scope():
            inside = [await pools.get(), await keyed.get("a")]
            assert [await pools.get(), await keyed.get("a")] == inside
            assert not {*inside} & {*outside}
        assert [pool.closed for pool in inside] == [True, True]
        assert [pool.closed for pool in outside] == [False, False]
        assert [await pools.get(), await keyed.get("a")] == outside

    runtime.run(main)


def test_a_scope_in_a_scope_has_its_own_again(runtime: LoopRuntime) -> None:
    """The inner one's end closes the inner one's."""
    pools = LoopLocal(Pool)

    async def main() -> None:
        async with resource_scope():
            outer = await pools.get()
            async with resource_scope():
                inner = await pools.get()
                assert inner is not outer
            assert (inner.closed, outer.closed) == (True, False)
            assert await pools.get() is outer
        assert outer.closed

    runtime.run(main)


def test_concurrent_scopes_do_not_see_each_other(runtime: LoopRuntime) -> None:
    """Twenty at a time, each with its own, each closed with its own."""
    pools = LoopLocal(Pool)

    async def work() -> Pool:
        async with resource_scope():
            pool = await pools.get()
            await turns(5)
            assert await pools.get() is pool
            assert not pool.closed
        assert pool.closed
        return pool

    async def main() -> int:
        return len(set(await asyncio.gather(*(work() for _ in range(20)))))

    assert runtime.run(main) == 20
    assert pools.statistics().live == 0


def test_what_was_opened_last_in_a_scope_is_closed_first(runtime: LoopRuntime) -> None:
    """A saver that needs a pool gets the scope's pool, and is closed before it."""
    log: list[object] = []
    pools = LoopLocal(lambda: Pool(log, "pool"))

    @asynccontextmanager
    async def saver() -> AsyncIterator[Pool]:
        pool = await pools.get()
        yield pool
        assert not (await pools.get()).closed
        log.append("saver")

    savers = LoopLocal(saver)

    async def main() -> None:
        outside = await pools.get()
        async with resource_scope():
            assert await savers.get() is await pools.get()
            assert await savers.get() is not outside
        assert not outside.closed

    runtime.run(main)
    assert log == ["saver", "pool"]


def test_a_scope_travels_with_its_context(runtime: LoopRuntime) -> None:
    """Tasks, threads and calls to other loops that start inside are inside; each loop closes its own."""
    pools = LoopLocal(Pool)

    async def main() -> tuple[Pool, Pool, Pool]:
        elsewhere = await other.arun(pools.get)
        async with resource_scope():
            mine = await asyncio.create_task(pools.get())
            assert mine is await pools.get()
            others = await other.arun(pools.get)
            assert others is not elsewhere
            assert await asyncio.to_thread(other.run, pools.get) is others
        assert (mine.closed, others.closed, elsewhere.closed) == (True, True, False)
        return mine, others, elsewhere

    with LoopRuntime(name="other") as other:
        mine, others, elsewhere = runtime.run(main)
        assert mine.loop is not others.loop
        assert others.loop is elsewhere.loop
    assert elsewhere.closed


def test_code_that_outlives_its_scope_is_refused(runtime: LoopRuntime) -> None:
    """What it would open now nobody would close."""
    pools = LoopLocal(Pool, name="pool")

    async def main() -> None:
        over = asyncio.Event()

        async def late() -> None:
            await over.wait()
            await pools.get()

        async with resource_scope():
            await pools.get()
            task = asyncio.create_task(late())
        over.set()
        with pytest.raises(ScopeEndedError, match="pool cannot be opened: the resource scope"):
            await task

    runtime.run(main)
    assert pools.statistics().opened == 1


def test_an_opening_is_given_up_when_its_scope_ends(runtime: LoopRuntime) -> None:
    """Who waits for it is told why; nothing is left."""
    pools = LoopLocal(Pool)

    async def never() -> Pool:
        await pools.get()
        await asyncio.Event().wait()
        raise AssertionError

    slow = LoopLocal(never)

    async def main() -> None:
        async with resource_scope():
            waiting = asyncio.create_task(slow.get())
            await turns()
        with pytest.raises(ScopeEndedError):
            await waiting

    runtime.run(main)
    assert (slow.statistics().failed, slow.statistics().instances) == (1, ())
    assert (pools.statistics().closed, pools.statistics().live) == (1, 0)


def test_an_opening_that_ignores_the_end_of_its_scope_is_closed_at_once(runtime: LoopRuntime) -> None:
    """What it made is nobody's."""
    made: list[Pool] = []

    async def stubborn() -> Pool:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await turns()
        made.append(Pool())
        return made[-1]

    pools = LoopLocal(stubborn)

    async def main() -> None:
        async with resource_scope():
            waiting = asyncio.create_task(pools.get())
            await turns()
        assert made[0].closed
        with pytest.raises(ScopeEndedError):
            await waiting

    runtime.run(main)
    assert pools.statistics().live == 0


def test_a_scope_waits_for_its_leases(runtime: LoopRuntime) -> None:
    """A task inside that still holds one may finish with it."""
    pools = LoopLocal(Pool)

    async def main() -> None:
        leased, seen = asyncio.Event(), []

        async def user() -> None:
            async with pools() as pool:
                leased.set()
                await turns(30)
                seen.append(pool.closed)

        async with resource_scope():
            task = asyncio.create_task(user())
            await leased.wait()
        assert seen == [False]
        await task

    runtime.run(main)
    assert pools.statistics().live == 0


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, KeyboardInterrupt])
def test_a_scope_is_closed_on_every_way_out(runtime: LoopRuntime, error: type[BaseException]) -> None:
    """And the error goes on."""
    pools = LoopLocal(Pool)
    opened: list[Pool] = []

    async def main() -> None:
        async with resource_scope():
            opened.append(await pools.get())
            raise error

    with pytest.raises(error):
        runtime.run(main)
    assert opened[0].closed


def test_an_exit_that_is_cancelled_goes_on_closing(runtime: LoopRuntime) -> None:
    """The waiting stops; everything is closed all the same, in order."""
    log: list[object] = []
    may_close = asyncio.Event()

    class Slow(Pool):
        async def aclose(self) -> None:
            await may_close.wait()
            await super().aclose()

    slow, quick = LoopLocal(lambda: Slow(log, "slow")), LoopLocal(lambda: Pool(log, "quick"))

    async def main() -> None:
        inside = asyncio.Event()

        async def work() -> None:
            async with resource_scope():
                await quick.get()
                await slow.get()
                inside.set()

        task = asyncio.create_task(work())
        await inside.wait()
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert log == []
        may_close.set()
        await turns(30)
        assert log == ["slow", "quick"]

    runtime.run(main)


def test_a_loop_that_ends_inside_a_scope_closes_the_scopes_too() -> None:
    """asyncio.run() cancels the work; its resources are closed once, on their loop."""
    pools = LoopLocal(Pool)

    async def work(opened: "asyncio.Future[Pool]") -> None:
        async with resource_scope(), pools() as pool:
            opened.set_result(pool)
            await asyncio.Event().wait()

    async def main() -> tuple[Pool, object]:
        opened: asyncio.Future[Pool] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(work(opened))
        return await opened, task

    pool, _ = asyncio.run(main())
    assert pool.closed
    assert (pools.statistics().closed, pools.statistics().live) == (1, 0)


def test_a_scope_ends_though_another_loop_is_gone(runtime: LoopRuntime) -> None:
    """That loop closed what it had at its own end."""
    pools = LoopLocal(Pool)

    async def main() -> tuple[Pool, Pool]:
        async with resource_scope():
            mine = await pools.get()
            with LoopRuntime(name="short") as short:
                others = await short.arun(pools.get)
            assert others.closed
        return mine, others

    assert all(pool.closed for pool in runtime.run(main))
    assert pools.statistics().closed == 2


def test_a_scope_does_not_wait_for_a_loop_that_stands_still(runtime: LoopRuntime) -> None:
    """Nobody runs it now; it closes the instance when it ends."""
    pools = LoopLocal(Pool)
    loop = asyncio.new_event_loop()

    async def main() -> Pool:
        async with resource_scope():
            pool = await asyncio.to_thread(lambda: loop.run_until_complete(pools.get()))
        assert not pool.closed
        return pool

    pool = runtime.run(main)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    assert pool.closed


def test_each_scope_has_its_own_bound(runtime: LoopRuntime) -> None:
    """What a scope opens evicts nothing outside."""
    pools = KeyedLoopLocal(lambda key: Pool(name=key), max_items=1)

    async def main() -> None:
        outside = await pools.get("a")
        async with resource_scope():
            inside = await pools.get("b")
            await turns()
            assert not outside.closed
            assert not inside.closed
            await pools.get("c")
            await turns()
            assert (outside.closed, inside.closed) == (False, True)

    runtime.run(main)


def test_aclose_in_a_scope_closes_the_scopes(runtime: LoopRuntime) -> None:
    """The outside's stays; close() from sync code closes both."""
    pools = LoopLocal(Pool)
    gate = threading.Event()

    async def main() -> tuple[Pool, Pool]:
        outside = await pools.get()
        async with resource_scope():
            inside = await pools.get()
            await pools.aclose()
            assert (inside.closed, outside.closed) == (True, False)
            again = await pools.get()
            gate.set()
            while not again.closed:
                await turns(1)
        return outside, again

    result = runtime.submit(main)
    assert gate.wait(BOUND)
    pools.close(BOUND)
    assert all(pool.closed for pool in result.result(BOUND))


def test_a_scope_is_entered_once(runtime: LoopRuntime) -> None:
    """A second entry is refused, the first one stays usable."""
    pools = LoopLocal(Pool)

    async def main() -> None:
        scope = resource_scope()
        async with scope:
            pool = await pools.get()
            with pytest.raises(RuntimeError, match="entered once"):
                await scope.__aenter__()
            assert not pool.closed
        assert pool.closed

    runtime.run(main)


def test_a_forked_child_leaves_its_parents_scope_alone(script: Callable[..., object]) -> None:
    """Forked inside a scope: the child opens its own in it, and does not close the parent's."""
    ended = script(
        """
import asyncio, contextvars, os, threading, warnings
warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork.*", category=DeprecationWarning)
import homeloop
class Pool:
    def __init__(self): self.pid = os.getpid()
    async def aclose(self): print("closed by its own process", self.pid == os.getpid(), flush=True)
local = homeloop.LoopLocal(Pool)
def childs(inside):
    assert inside.run(homeloop.run, local.get).pid == os.getpid()
    assert local.statistics().opened == 1
    homeloop.default_runtime().close()
async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # the parent waits for its child
    async with homeloop.resource_scope():
        parents = await local.get()
        number = os.fork()
        if number == 0:
            worker = threading.Thread(target=childs, args=(contextvars.copy_context(),))
            worker.start()
            worker.join()
            os._exit(0)
        assert os.waitpid(number, 0)[1] == 0
        assert await local.get() is parents
asyncio.run(main())
"""
    )
    assert (ended.returncode, ended.stderr) == (0, "")  # type: ignore[attr-defined]
    assert ended.stdout.splitlines() == ["closed by its own process True"] * 2  # type: ignore[attr-defined]


# -- overrides ----------------------------------------------------------------------------------------


def test_an_override_is_seen_instead_and_nothing_is_opened(runtime: LoopRuntime) -> None:
    """By get, warm and leases, on every loop that the context reaches, until it ends."""
    pools, keyed = LoopLocal(Pool), KeyedLoopLocal(lambda key: Pool(name=key))
    fake = object()

    async def see() -> None:
        await pools.warm()
        assert await pools.get() is fake
        async with pools() as pool:
            assert pool is fake
        async with keyed("a") as pool:
            assert pool is fake
        await pools.aclose()

    with pools.override(fake), keyed.override("a", fake):  # type: ignore[arg-type]
        runtime.run(see)
        asyncio.run(see())
    assert pools.statistics() == keyed.statistics() == homeloop.ResourceStatistics()
    assert isinstance(runtime.run(pools.get), Pool)


def test_an_override_in_one_task_is_not_seen_in_another(runtime: LoopRuntime) -> None:
    """Concurrent tests put each their own in its place; who puts nothing gets the real one."""
    pools = LoopLocal(Pool)

    async def test(fake: Pool) -> Pool:
        with pools.override(fake):
            await turns(3)
            seen = await pools.get()
            await turns(3)
            assert await pools.get() is seen
        await turns(1)
        return seen

    async def main() -> None:
        real = await pools.get()
        fakes = [Pool() for _ in range(10)]
        assert await asyncio.gather(*(test(fake) for fake in fakes), pools.get()) == [*fakes, real]

    runtime.run(main)


def test_overrides_nest(runtime: LoopRuntime) -> None:
    """The inner one is seen; after it the outer one again. One of another key or resource is not seen."""
    pools, others = KeyedLoopLocal(lambda key: Pool(name=key)), KeyedLoopLocal(lambda key: Pool(name=key))

    async def main() -> None:
        outer, inner = Pool(), Pool()
        with pools.override("a", outer):
            with pools.override("a", inner):
                assert await pools.get("a") is inner
            assert await pools.get("a") is outer
            assert await pools.get("b") is not outer
            assert await others.get("a") is not outer
            async with resource_scope():
                assert await pools.get("a") is outer

    runtime.run(main)


def test_a_factory_sees_an_override_inside_a_scope_only(runtime: LoopRuntime) -> None:
    """What is opened outside of a scope outlives the test, and must not be built on its fake."""
    pools = LoopLocal(Pool)

    async def make() -> tuple[Pool]:
        return (await pools.get(),)

    savers = LoopLocal(make)

    async def main() -> None:
        fake = Pool()
        with pools.override(fake):
            assert (await savers.get())[0] is not fake
            async with resource_scope():
                assert (await savers.get())[0] is fake

    runtime.run(main)
