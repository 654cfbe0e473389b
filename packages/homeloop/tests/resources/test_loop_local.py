"""LoopLocal: one resource per loop, closed on that loop, whoever owns it."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import homeloop
from homeloop import KeyedLoopLocal, LoopLocal, LoopRuntime
from homeloop.errors import LoopEndingError, WrongThreadError

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


class Pool:
    """A resource that knows its loop and insists on it, as a connection pool does."""

    def __init__(self, log: list[str] | None = None, name: str = "pool") -> None:
        self.loop = asyncio.get_running_loop()
        self.closed = False
        self.was_closed = asyncio.Event()
        self.log = log if log is not None else []
        self.name = name

    async def aclose(self) -> None:
        assert asyncio.get_running_loop() is self.loop
        await asyncio.sleep(0)
        self.closed = True
        self.was_closed.set()
        self.log.append(self.name)


class Recorder:
    """An instrument that remembers."""

    def __init__(self) -> None:
        self.events: list[homeloop.Event] = []

    def notify(self, event: homeloop.Event) -> None:
        self.events.append(event)

    def count(self, kind: str) -> int:
        return sum(type(event).__name__ == kind for event in self.events)


@pytest.fixture
def recorder():
    """What happened during the test."""
    instrument = Recorder()
    remove = homeloop.add_instrument(instrument)
    yield instrument
    remove()


def test_concurrent_first_uses_open_once(runtime: LoopRuntime) -> None:
    """However many ask at the same time, one instance is made."""
    made: list[Pool] = []

    async def make() -> Pool:
        await asyncio.sleep(0)
        made.append(Pool())
        return made[-1]

    local = LoopLocal(make)

    async def many() -> set[Pool]:
        return set(await asyncio.gather(*(local.get() for _ in range(50))))

    assert runtime.run(many) == set(made)
    assert len(made) == 1


def test_a_cancelled_first_user_does_not_take_the_opening_from_the_others(runtime: LoopRuntime) -> None:
    """The opening belongs to the loop, not to who asked first."""
    gate = threading.Event()

    async def make() -> Pool:
        await asyncio.to_thread(gate.wait, 10)
        return Pool()

    local = LoopLocal(make)

    async def race() -> Pool:
        first = asyncio.create_task(local.get())
        second = asyncio.create_task(local.get())
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.set()
        return await second

    assert runtime.run(race) is runtime.run(local.get)


def test_a_failed_opening_is_not_kept(runtime: LoopRuntime, recorder: Recorder) -> None:
    """Everyone who waited gets the error; the next one tries again."""
    attempts: list[int] = []

    async def make() -> Pool:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError("the server is away")
        return Pool()

    local = LoopLocal(make, name="pool")

    async def both() -> list[object]:
        return await asyncio.gather(local.get(), local.get(), return_exceptions=True)

    assert [str(error) for error in runtime.run(both)] == ["the server is away"] * 2
    assert isinstance(runtime.run(local.get), Pool)
    assert local.statistics().failed == 1
    assert recorder.count("ResourceOpened") == 1


@asynccontextmanager
async def _managed() -> AsyncIterator[Pool]:
    pool = Pool()
    try:
        yield pool
    finally:
        await pool.aclose()


async def _awaited() -> Pool:
    return Pool()


class _WithClose:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


class _OnlyManager:
    closed = False

    async def __aenter__(self) -> "_OnlyManager":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closed = True


async def _awaited_manager() -> _OnlyManager:
    return _OnlyManager()


@pytest.mark.parametrize("factory", [Pool, _managed, _awaited, _WithClose, _OnlyManager, _awaited_manager])
def test_every_shape_of_factory_is_opened_and_closed(factory: Callable[[], object]) -> None:
    """Plain objects, awaitables and context managers; aclose(), close() or __aexit__ at the end."""
    local = LoopLocal(factory)

    async def use() -> object:
        return await local.get()

    resource = asyncio.run(use())
    assert resource.closed  # type: ignore[attr-defined]


def test_a_close_of_ones_own_replaces_entering() -> None:
    """A lock is a context manager too, and must not be held for the life of the loop."""

    async def nothing(_: asyncio.Lock) -> None:
        pass

    local = LoopLocal(asyncio.Lock, close=nothing)

    async def use() -> bool:
        return (await local.get()).locked()

    assert asyncio.run(use()) is False


def test_what_was_opened_last_is_closed_first() -> None:
    """A resource whose factory uses another one is closed before it."""
    log: list[str] = []
    pool = LoopLocal(lambda: Pool(log, "pool"))

    async def make_saver() -> Pool:
        assert not (await pool.get()).closed
        return Pool(log, "saver")

    saver = LoopLocal(make_saver)
    asyncio.run(_get(saver))
    assert log == ["saver", "pool"]


async def _get(local: LoopLocal[Pool]) -> Pool:
    return await local.get()


def test_a_lease_keeps_the_resource_open(runtime: LoopRuntime) -> None:
    """aclose() waits until the last lease is given back."""
    local = LoopLocal(Pool)

    async def use() -> None:
        async with local() as pool:
            closing = asyncio.create_task(local.aclose())
            for _ in range(5):
                await asyncio.sleep(0)
            assert not pool.closed
        await closing
        assert pool.closed

    runtime.run(use)


def test_a_lease_that_is_never_given_back_does_not_hold_the_close_for_ever(recorder: Recorder) -> None:
    """After close_timeout the resource is let go, and said so."""
    local = LoopLocal(Pool, close_timeout=0.05)

    async def use() -> None:
        async with local():
            await local.aclose()

    asyncio.run(use())
    assert recorder.count("ResourceCloseFailed") == 1
    assert local.statistics().live == 0


def test_close_from_sync_code_closes_every_loops_instance_on_its_own_loop(runtime: LoopRuntime) -> None:
    """Two runtimes, one call; the next use opens anew."""
    local = LoopLocal(Pool)
    with LoopRuntime(name="other") as other:
        mine, others = runtime.run(local.get), other.run(local.get)
        local.close()
        assert mine.closed
        assert others.closed
        assert runtime.run(local.get) is not mine


def test_close_from_the_resources_own_loop_is_refused(runtime: LoopRuntime) -> None:
    """It would wait for itself; nothing is closed."""
    local = LoopLocal(Pool)

    async def close_here() -> Pool:
        pool = await local.get()
        with pytest.raises(WrongThreadError):
            local.close()
        return pool

    assert not runtime.run(close_here).closed


def test_a_loop_closed_without_its_generators_is_noticed(recorder: Recorder) -> None:
    """Its resource is dropped and reported, and never awaited from another loop."""
    local = LoopLocal(Pool, name="pool")
    loop = asyncio.new_event_loop()
    orphan = loop.run_until_complete(local.get())
    loop.close()
    asyncio.run(_get(local))
    assert not orphan.closed
    assert recorder.count("ResourceDropped") == 1


def test_nothing_is_opened_on_a_loop_that_has_closed_its_resources() -> None:
    """What would never be closed is refused with the reason."""
    local = LoopLocal(Pool, name="pool")
    refused: list[BaseException] = []

    async def late() -> AsyncIterator[None]:
        try:
            yield
        finally:
            try:
                await pool.was_closed.wait()
                await local.get()
            except LoopEndingError as error:
                refused.append(error)

    suspended = late()

    async def main() -> Pool:
        await anext(suspended)
        return await local.get()

    loop = asyncio.new_event_loop()
    pool = loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    assert "pool cannot be opened" in str(refused[0])


def test_the_factory_does_not_see_the_first_users_context(runtime: LoopRuntime) -> None:
    """A pool outlives the request that happened to open it."""

    async def make() -> str:
        return user.get()

    local = LoopLocal(make)

    def request() -> str:
        user.set("alice")
        return runtime.run(local.get)

    assert contextvars.copy_context().run(request) == "nobody"


def test_a_resource_instead_of_a_factory_is_refused() -> None:
    """The usual slip gets a clear error."""
    with pytest.raises(TypeError, match="not the resource"):
        LoopLocal(object())  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="close is a function"):
        LoopLocal(object, close=5)  # type: ignore[call-overload]


def test_a_forked_child_opens_its_own(script) -> None:
    """The parent's instance is neither used nor closed by the child."""
    ended = script(
        """
import asyncio, os, sys, warnings
warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork.*", category=DeprecationWarning)
import homeloop
class Pool:
    def __init__(self): self.pid = os.getpid()
    async def aclose(self): print("closed by its own process", self.pid == os.getpid(), flush=True)
local = homeloop.LoopLocal(Pool)
parents = homeloop.run(local.get)
number = os.fork()
if number == 0:
    assert homeloop.run(local.get).pid == os.getpid()
    homeloop.default_runtime().close()
    sys.exit(0)
assert os.waitpid(number, 0)[1] == 0
assert homeloop.run(local.get) is parents
"""
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == ["closed by its own process True"] * 2


async def generator() -> "AsyncIterator[int]":
    yield 1


@pytest.mark.parametrize(
    ("factory", "says"), [(lambda: None, "gave None"), (generator, "contextlib.asynccontextmanager")]
)
def test_a_factory_that_makes_no_resource_is_told_so(factory: Any, says: str, runtime: LoopRuntime) -> None:
    """The usual slips: a return that was forgotten, a decorator that was forgotten."""
    with pytest.raises(TypeError, match=says):
        runtime.run(LoopLocal(factory).get)


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_a_close_timeout_that_leaves_no_time_is_refused(seconds: float) -> None:
    """At once, not when it is too late."""
    for make in (LoopLocal, KeyedLoopLocal):
        with pytest.raises(ValueError, match="close_timeout is in seconds"):
            make(Pool, close_timeout=seconds)


def test_a_factorys_error_tells_what_was_opened_where(runtime: LoopRuntime) -> None:
    """The same error as the factory's, with a note."""
    error = ConnectionRefusedError("no")

    def fail() -> None:
        raise error

    with pytest.raises(ConnectionRefusedError) as raised:
        runtime.run(LoopLocal(fail, name="the pool").get)
    assert raised.value is error
    assert error.__notes__ == [f"while the pool was opened on {runtime.statistics().home}"]
