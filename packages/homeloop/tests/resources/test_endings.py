"""LoopLocal at the edges: how a loop ends, who is cancelled meanwhile, and what kinds of resource it meets."""

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

import homeloop
from homeloop import KeyedLoopLocal, LoopLocal, LoopRuntime
from homeloop.errors import LoopEndingError

BOUND = 10.0  # seconds

token: contextvars.ContextVar[int] = contextvars.ContextVar("token", default=0)


class Pool:
    """A resource whose closing takes a turn of the loop."""

    def __init__(self) -> None:
        self.closed = False

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed = True


class Hanging:
    """A resource whose closing never ends."""

    def __init__(self) -> None:
        self.closing = asyncio.Event()

    async def aclose(self) -> None:
        self.closing.set()
        await asyncio.Event().wait()


@pytest.fixture
def events():
    """What happened during the test."""
    seen: list[homeloop.Event] = []

    class Recorder:
        def notify(self, event: homeloop.Event) -> None:
            seen.append(event)

    remove = homeloop.add_instrument(Recorder())
    yield seen
    remove()


def names(events: list[homeloop.Event]) -> list[str]:
    """Tell what happened to resources, in order."""
    return [
        f"{type(event).__name__} {event.what}" for event in events if type(event).__name__.startswith("Resource")
    ]


async def turns(number: int = 10) -> None:
    """Let the others go on."""
    for _ in range(number):
        await asyncio.sleep(0)


def eager_loop() -> asyncio.AbstractEventLoop:
    """Make a loop that starts tasks at once."""
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    return loop


# -- context managers made of generators --------------------------------------------------------------


def test_generator_context_managers_are_closed_last_opened_first(runtime: LoopRuntime, events) -> None:
    """The loop's own shutdown of generators takes no part in it, however deeply they are nested."""
    log: list[str] = []

    @asynccontextmanager
    async def part(name: str) -> AsyncIterator[str]:
        await asyncio.sleep(0)
        yield name
        await asyncio.sleep(0)
        log.append(f"{name} left normally")

    @asynccontextmanager
    async def connection() -> AsyncIterator[str]:
        await asyncio.sleep(0)
        async with part("part") as name:
            yield name
            log.append("connection left normally")

    pool = LoopLocal(lambda: part("pool"), name="pool")

    @asynccontextmanager
    async def saver() -> AsyncIterator[str]:
        async with connection():
            yield await pool.get()
            await turns()
            log.append("saver left normally")

    local = LoopLocal(saver, name="saver")
    runtime.run(local.get)
    runtime.close()
    assert log == ["saver left normally", "connection left normally", "part left normally", "pool left normally"]
    assert names(events)[2:] == ["ResourceClosed saver", "ResourceClosed pool"]


def test_an_opening_leaves_the_threads_generator_hooks_alone(runtime: LoopRuntime) -> None:
    """Generators that others begin while a resource opens are still closed by the loop."""
    closed: list[str] = []

    async def rows() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closed.append("rows")

    suspended = rows()

    @asynccontextmanager
    async def slow() -> AsyncIterator[int]:
        await turns()
        yield 1

    local = LoopLocal(slow)

    async def main() -> None:
        opening = asyncio.create_task(local.get())
        await turns(3)
        await anext(suspended)
        await opening

    runtime.run(main)
    runtime.close()
    assert closed == ["rows"]


def test_what_is_thrown_into_an_opening_reaches_the_factory(runtime: LoopRuntime) -> None:
    """A time limit inside a factory works, and its cancellation can be answered there."""

    async def make() -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            await asyncio.sleep(0)
            return "second best"
        return "first"

    assert runtime.run(LoopLocal(make).get) == "second best"


def test_a_lease_held_by_a_generator_outlives_the_generators_clean_up(runtime: LoopRuntime) -> None:
    """At the loop's end the resource waits for the generator that leases it."""
    local, seen = LoopLocal(Pool), []

    async def rows() -> AsyncIterator[int]:
        async with local() as pool:
            try:
                yield 1
            finally:
                await turns()
                seen.append(pool.closed)

    suspended = rows()

    async def main() -> Pool:
        await anext(suspended)
        return await local.get()

    pool = runtime.run(main)
    runtime.close()
    assert (seen, pool.closed) == ([False], True)


def test_opening_and_closing_share_a_context(runtime: LoopRuntime, events) -> None:
    """A context variable set in the opening is reset in the closing, by hand and at the loop's end."""

    @asynccontextmanager
    async def traced() -> AsyncIterator[int]:
        mark = token.set(1)
        yield token.get()
        token.reset(mark)

    local = LoopLocal(traced, name="traced")
    runtime.run(local.get)
    runtime.run(local.aclose)
    runtime.run(local.get)
    runtime.close()
    assert names(events) == ["ResourceOpened traced", "ResourceClosed traced"] * 2


# -- eager tasks --------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="eager tasks came with Python 3.12")
def test_a_loop_with_eager_tasks_changes_nothing() -> None:
    """A failed opening is not kept, and what was opened without waiting can be closed."""
    attempts: list[int] = []

    async def make() -> Pool:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError("away")
        return Pool()

    local = LoopLocal(make)
    with LoopRuntime(loop_factory=eager_loop) as runtime:
        with pytest.raises(ConnectionError):
            runtime.run(local.get)
        first = runtime.run(local.get)
        runtime.run(local.aclose)
        second = runtime.run(local.get)
        local.close()
    assert (first.closed, second.closed, first is second, local.statistics().closed) == (True, True, False, 2)


# -- cancellation and races ---------------------------------------------------------------------------


def test_a_cancelled_aclose_stops_waiting_and_the_closing_goes_on(runtime: LoopRuntime, events) -> None:
    """The resource is closed as soon as the lease is given back, and reported then."""
    local = LoopLocal(Pool, name="pool")

    async def main() -> Pool:
        async with local() as pool:
            closing = asyncio.create_task(local.aclose())
            await turns()
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            assert local.statistics().closed == 0
        await turns()
        assert pool.closed
        return pool

    runtime.run(main)
    assert names(events) == ["ResourceOpened pool", "ResourceClosed pool"]


def test_a_closing_that_waits_for_a_lease_when_the_loop_ends_is_finished_by_the_end(events) -> None:
    """asyncio.run() cancels the closing with all tasks; the tasks give their leases back, and it is closed."""
    local = LoopLocal(Pool, name="pool")

    async def user(leased: asyncio.Future[Pool]) -> None:
        async with local() as pool:
            leased.set_result(pool)
            await asyncio.Event().wait()

    async def main() -> tuple[Pool, list[object]]:
        leased: asyncio.Future[Pool] = asyncio.get_running_loop().create_future()
        tasks: list[object] = [asyncio.create_task(user(leased))]
        pool = await leased
        tasks.append(asyncio.create_task(local.aclose()))
        await turns()
        return pool, tasks

    pool, _ = asyncio.run(main())
    assert pool.closed
    assert names(events) == ["ResourceOpened pool", "ResourceClosed pool"]


@pytest.mark.parametrize("begin", ["aclose", "eviction", "scope"])
def test_a_closing_under_way_when_the_loop_ends_is_not_cut_off(begin: str, events) -> None:
    """asyncio.run() cancels all tasks when its main one is done; what is being closed is closed to its end."""
    opened: list[Pool] = []

    class Slow(Pool):
        def __init__(self) -> None:
            super().__init__()
            self.closing = asyncio.Event()
            opened.append(self)

        async def aclose(self) -> None:
            self.closing.set()
            await turns(50)  # more than the cancellation of all tasks takes
            await super().aclose()

    local = KeyedLoopLocal(lambda _: Slow(), name="pool", max_items=1)

    async def evict() -> None:
        await local.get("a")
        await local.get("b")

    async def aclose() -> None:
        await local.get("a")
        await local.aclose()

    async def scope() -> None:
        async with homeloop.resource_scope():
            await local.get("a")

    async def main() -> object:
        task = asyncio.create_task({"aclose": aclose, "eviction": evict, "scope": scope}[begin]())
        while not opened:
            await turns(1)
        await opened[0].closing.wait()
        assert not opened[0].closed
        return task

    asyncio.run(main())
    assert all(pool.closed for pool in opened)
    assert {name for name in names(events) if "Opened" not in name} == {"ResourceClosed pool"}


def test_a_closing_that_hangs_does_not_take_the_others_time(events) -> None:
    """When the runtime's budget is used up the innocent resource is still closed, the other one is named."""
    good, bad = LoopLocal(Pool, name="good"), LoopLocal(Hanging, name="bad", close_timeout=BOUND)
    runtime = LoopRuntime()
    pool = runtime.run(good.get)
    runtime.run(bad.get)
    runtime.close(0.2)
    assert pool.closed
    assert names(events)[2:] == ["ResourceCloseFailed bad", "ResourceClosed good"]
    assert bad.statistics().live == 0


def test_a_closing_that_hangs_is_told_from_an_error_of_its_own(runtime: LoopRuntime, events) -> None:
    """An event with an empty time-out would explain nothing."""

    class Failing:
        async def aclose(self) -> None:
            raise TimeoutError("the driver's own")

    for resource in (Hanging, Failing):
        local = LoopLocal(resource, close_timeout=0.01)
        runtime.run(local.get)
        local.close(BOUND)
    failures = [event.error for event in events if type(event).__name__ == "ResourceCloseFailed"]
    assert failures == [
        "TimeoutError: it did not close in time and was cancelled",
        "TimeoutError: the driver's own",
    ]


def test_a_closing_that_ignores_its_cancellation_does_not_keep_the_loop(events) -> None:
    """It is named and left; what was opened before it is closed."""
    release = threading.Event()

    class Stubborn:
        async def aclose(self) -> None:
            while not release.is_set():
                try:
                    await asyncio.sleep(BOUND)
                except asyncio.CancelledError:
                    continue

    good, bad = LoopLocal(Pool, name="good"), LoopLocal(Stubborn, name="bad", close_timeout=0.05)
    loop = asyncio.new_event_loop()
    pool = loop.run_until_complete(good.get())
    loop.run_until_complete(bad.get())
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert pool.closed
    assert names(events)[2:] == ["ResourceCloseFailed bad", "ResourceClosed good"]
    release.set()
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.wait(left))
    loop.close()


def test_a_lease_never_gets_an_instance_that_is_closing(runtime: LoopRuntime) -> None:
    """A closing that begins between the opening and the lease makes the lease open another one."""
    gate = threading.Event()

    async def make() -> Pool:
        await asyncio.to_thread(gate.wait, BOUND)
        return Pool()

    local = LoopLocal(make)

    async def main() -> bool:
        opening = asyncio.create_task(local.get())
        await turns(3)
        closing = asyncio.create_task(local.aclose())
        await turns(3)

        async def lease() -> bool:
            async with local() as pool:
                await turns()
                return pool.closed

        leasing = asyncio.create_task(lease())
        await turns(3)
        gate.set()
        await opening
        await closing
        return await leasing

    assert runtime.run(main) is False


def test_a_first_use_while_the_loop_ends_is_refused() -> None:
    """What would never be closed is not opened."""
    local, refused = LoopLocal(Pool, name="pool"), []

    async def rows() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            try:
                await local.get()
            except LoopEndingError as error:
                refused.append(error)

    suspended = rows()

    async def main() -> None:
        await anext(suspended)

    asyncio.run(main())
    assert "pool cannot be opened" in str(refused[0])
    assert local.statistics().opened == 0


@pytest.mark.parametrize("heeds_cancellation", [True, False])
def test_an_opening_that_ends_after_the_loops_resources_were_closed(heeds_cancellation: bool, events) -> None:
    """It is cancelled; if it goes on all the same, what it made is closed at once, and its user is told why."""
    made: list[Pool] = []

    async def main() -> "tuple[asyncio.Task[Pool], asyncio.Event]":
        gate = asyncio.Event()

        async def make() -> Pool:
            try:
                await gate.wait()
            except asyncio.CancelledError:
                if heeds_cancellation:
                    raise
            await turns()
            made.append(Pool())
            return made[-1]

        user = asyncio.create_task(LoopLocal(make, name="late").get())
        await turns()
        return user, gate

    loop = asyncio.new_event_loop()
    user, _ = loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    with pytest.raises(LoopEndingError):
        loop.run_until_complete(user)
    loop.close()
    assert [pool.closed for pool in made] == ([] if heeds_cancellation else [True])


def test_close_while_loops_end_and_begin() -> None:
    """Whoever closes the instance first, close() returns when it is closed, and raises nothing."""
    local, stop, errors = LoopLocal(Pool), threading.Event(), []

    async def use() -> None:
        await local.get()
        await asyncio.sleep(0)

    def many_loops() -> None:
        while not stop.is_set():
            asyncio.run(use())

    threads = [threading.Thread(target=many_loops) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            try:
                local.close(BOUND)
            except BaseException as error:
                errors.append(error)
    finally:
        stop.set()
        for thread in threads:
            thread.join(BOUND)
    assert errors == []
    assert local.statistics().live == 0


# -- what is left -------------------------------------------------------------------------------------


def test_a_dropped_resource_is_reported_with_its_loop_and_no_longer_counted(events) -> None:
    """statistics() itself notices loops that were closed without an end."""
    local = LoopLocal(Pool, name="pool")
    loop = asyncio.new_event_loop()
    loop.run_until_complete(local.get())
    home = events[-1].home
    loop.close()
    assert local.statistics().live == 0
    assert names(events) == ["ResourceOpened pool", "ResourceDropped pool"]
    assert events[-1].home == home


def test_a_failed_opening_keeps_nothing_alive(runtime: LoopRuntime) -> None:
    """Neither the error nor what its traceback refers to waits for a garbage collection."""

    class AwayError(Exception):
        pass

    errors: list[weakref.ref[BaseException]] = []

    async def make() -> Pool:
        await asyncio.sleep(0)
        raise AwayError

    local = LoopLocal(make)

    async def main() -> bool:
        async def ask() -> None:
            try:
                await local.get()
            except AwayError as error:
                errors.append(weakref.ref(error))

        await asyncio.gather(ask(), ask())  # the one begins the opening, the other joins it
        await turns()
        return [error() for error in errors] == [None, None]

    gc.disable()
    try:
        assert runtime.run(main)
    finally:
        gc.enable()


def test_a_forked_child_neither_counts_nor_closes_its_parents_instances(script: Callable[..., object]) -> None:
    """The parent's loop looks alive in the child; close() there must not wait for it, nor wake it."""
    ended = script(
        """
import os, sys, warnings
warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork.*", category=DeprecationWarning)
import homeloop
class Pool:
    async def aclose(self): pass
local = homeloop.LoopLocal(Pool)
homeloop.run(local.get)
number = os.fork()
if number == 0:
    assert local.statistics() == homeloop.ResourceStatistics(), local.statistics()
    local.close(1.0)
    os._exit(0)
assert os.waitpid(number, 0)[1] == 0
assert local.statistics().live == 1
"""
    )
    assert (ended.returncode, ended.stderr) == (0, "")  # type: ignore[attr-defined]


def test_a_child_forked_while_a_thread_looks_at_the_loops_is_not_stuck(
    script: Callable[..., object],
) -> None:
    """The locks that a fork copies may be held by threads that the child does not have."""
    ended = script(
        """
import asyncio, os, signal, threading, warnings
warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork.*", category=DeprecationWarning)
import homeloop
looking, forked = threading.Event(), threading.Event()
class Loop(asyncio.SelectorEventLoop):
    def is_closed(self):
        if threading.current_thread().name == "looker":
            looking.set()
            forked.wait(10)
        return super().is_closed()
local = homeloop.LoopLocal(object)
loop = Loop()
loop.run_until_complete(local.get())
looker = threading.Thread(target=local.statistics, name="looker")
looker.start()
assert looking.wait(10)
number = os.fork()
if number == 0:
    signal.alarm(10)
    homeloop.run(local.get)
    homeloop.default_runtime().close()
    os._exit(0)
forked.set()
looker.join(10)
status = os.waitpid(number, 0)[1]
loop.run_until_complete(loop.shutdown_asyncgens())
loop.close()
assert status == 0, status
"""
    )
    assert (ended.returncode, ended.stderr) == (0, "")  # type: ignore[attr-defined]
