"""A1, A4, A7: async functions from any sync code, wherever that runs."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

import homeloop
from homeloop import default_runtime
from homeloop.async_utils import ensure_single_event_loop
from homeloop.errors import CallTimeoutError, DeadlockError, RuntimeDiedError, WrongThreadError
from homeloop.serving import AsyncExecutor

BOUND = 20.0  # seconds; tells a hang from an answer

Sync = Callable[[], Any]


async def double(number: int, *, plus: int = 0) -> tuple[int, asyncio.AbstractEventLoop]:
    await asyncio.sleep(0)
    return 2 * number + plus, asyncio.get_running_loop()


def in_plain_thread(work: Sync) -> Any:
    return work()


def in_thread_pool(work: Sync) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(BOUND)


def in_to_thread(work: Sync) -> Any:
    return asyncio.run(asyncio.wait_for(asyncio.to_thread(work), BOUND))


async def _call(work: Sync) -> Any:
    return work()


def in_running_loop(work: Sync) -> Any:
    return asyncio.run(_call(work))


def in_running_uvloop(work: Sync) -> Any:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_call(work))


def on_its_own_thread(work: Sync) -> Any:
    return homeloop.run(_call, work, timeout=BOUND)


def on_its_own_executor(work: Sync) -> Any:
    return homeloop.run(asyncio.to_thread, work, timeout=BOUND)


def inside_its_own_call(work: Sync) -> Any:
    """On the thread of the runtime that answers the default one's own thread."""
    return on_its_own_thread(lambda: AsyncExecutor.run_async(_call, work, timeout=BOUND))


CONTEXTS = (
    in_plain_thread,
    in_thread_pool,
    in_to_thread,
    in_running_loop,
    in_running_uvloop,
    on_its_own_thread,
    on_its_own_executor,
    inside_its_own_call,
)


@pytest.fixture(params=CONTEXTS, ids=lambda context: context.__name__)
def context(request: pytest.FixtureRequest) -> Callable[[Sync], Any]:
    """Call a sync function somewhere."""
    return request.param  # type: ignore[no-any-return]


def test_a4_run_async_answers_in_every_context(context: Callable[[Sync], Any]) -> None:
    """004's sample: arguments go in, the result comes back, from each place sync code may run."""
    value, loop = context(lambda: AsyncExecutor.run_async(double, 20, timeout=30, plus=2))
    assert value == 42
    assert loop.is_running()


def test_a4_one_loop_serves_all_who_can_wait_for_it() -> None:
    """Calls from different threads and loops share the default runtime's loop, and with it pools and clients."""
    ways = (in_plain_thread, in_thread_pool, in_to_thread, in_running_loop, on_its_own_executor)
    loops = {way(lambda: AsyncExecutor.run_async(double, 1))[1] for way in ways}
    assert len(loops) == 1


def test_a4_a_kept_runtime_answers_the_loops_own_thread() -> None:
    """Who asks on the default loop's own thread is answered by another loop, the same one until it is closed."""
    first, second = (on_its_own_thread(lambda: AsyncExecutor.run_async(double, 1))[1] for _ in range(2))
    assert first is second
    assert first is not AsyncExecutor.run_async(double, 1)[1]
    AsyncExecutor.close()
    assert first.is_closed()
    assert on_its_own_thread(lambda: AsyncExecutor.run_async(double, 21))[0] == 42


def test_a4_threads_may_close_at_once() -> None:
    """Two close what is closing for a while: one of them waits, neither fails, the next call is answered."""
    closing, go_on = threading.Event(), threading.Event()
    kept: list[asyncio.Task[None]] = []

    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closing.set()
            await asyncio.to_thread(go_on.wait, BOUND)

    async def leave_behind() -> None:
        kept.append(asyncio.create_task(linger()))
        await asyncio.sleep(0)

    on_its_own_thread(lambda: AsyncExecutor.run_async(leave_behind))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(AsyncExecutor.close, BOUND)
        assert closing.wait(BOUND)
        pool.submit(AsyncExecutor.close, BOUND).result(BOUND)
        assert on_its_own_thread(lambda: AsyncExecutor.run_async(double, 21))[0] == 42
        go_on.set()
        first.result(BOUND)
    assert on_its_own_thread(lambda: AsyncExecutor.run_async(double, 21))[0] == 42


def test_a4_closing_on_the_thread_itself_is_refused() -> None:
    """The runtime is kept, and closed from elsewhere."""

    async def close() -> asyncio.AbstractEventLoop:
        with pytest.raises(WrongThreadError):
            AsyncExecutor.close()
        return asyncio.get_running_loop()

    loop = on_its_own_thread(lambda: AsyncExecutor.run_async(close))
    assert on_its_own_thread(lambda: AsyncExecutor.run_async(double, 1))[1] is loop
    AsyncExecutor.close()
    assert loop.is_closed()


def test_a4_sync_and_async_layers_alternate_through_threads() -> None:
    """Loop, sync function, loop, worker thread, loop: nobody waits for one who waits for him."""

    async def through_thread(levels: int) -> int:
        return 1 + (await asyncio.to_thread(AsyncExecutor.run_async, directly, levels - 1) if levels else 0)

    async def directly(levels: int) -> int:
        return 1 + (AsyncExecutor.run_async(through_thread, levels - 1) if levels else 0)

    assert AsyncExecutor.run_async(directly, 4, timeout=BOUND) == 5
    assert asyncio.run(directly(4)) == 5


def test_a4_a_deadlock_of_the_function_itself_is_its_own() -> None:
    """Only the executor's own wait moves to another loop; a function that was begun is not begun again."""
    begun: list[int] = []

    async def circle() -> None:
        begun.append(1)
        await asyncio.to_thread(homeloop.run, _call, lambda: None)  # the loop waits for this call

    async def on_home() -> None:
        AsyncExecutor.run_async(circle)

    with pytest.raises(DeadlockError):
        homeloop.run(on_home, timeout=BOUND)
    assert begun == [1]


def test_a4_many_threads_at_once() -> None:
    """Calls overlap: forty meet on the loop before one of them goes on."""

    async def meet() -> None:
        arrived.append(1)
        if len(arrived) == 40:
            together.set()
        await together.wait()

    async def make() -> asyncio.Event:
        return asyncio.Event()

    arrived: list[int] = []
    together = AsyncExecutor.run_async(make)
    with ThreadPoolExecutor(40) as pool:
        for each in [pool.submit(AsyncExecutor.run_async, meet, timeout=BOUND) for _ in range(40)]:
            each.result(BOUND)


@pytest.mark.parametrize(
    "way", [in_plain_thread, in_running_loop, on_its_own_thread], ids=lambda way: way.__name__
)
def test_a4_a_timeout_stops_the_work(way: Callable[[Sync], Any]) -> None:
    """The function is cancelled and has cleaned up when the error comes, which names it and where it waited."""
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")

    with pytest.raises(
        CallTimeoutError, match=r"endless\(\) did not finish within 2 s; it was waiting at"
    ) as told:
        way(lambda: AsyncExecutor.run_async(endless, timeout=2))
    assert ended == ["cleaned up"]
    assert told.value.waiting_at[0].startswith("test_executor.py:")


def test_a4_context_variables_go_in_and_come_back() -> None:
    """It is a call: what the function changes is changed for the caller."""
    variable = contextvars.ContextVar("variable", default="before")

    async def change() -> str:
        seen = variable.get()
        variable.set("inside")
        return seen

    def work() -> tuple[str, str]:
        variable.set("caller")
        return AsyncExecutor.run_async(change), variable.get()

    assert contextvars.copy_context().run(work) == ("caller", "inside")


def test_a4_what_cannot_be_awaited_is_refused() -> None:
    """A coroutine, no function, a function that is not async: each is told apart, nothing is left un-awaited."""
    with pytest.raises(TypeError, match="not a coroutine: double, "):
        AsyncExecutor.run_async(double(1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="an async function is needed, got 3"):
        AsyncExecutor.run_async(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"abs\(\) is no async function: it returned int"):
        AsyncExecutor.run_async(abs, -3)
    for call in (AsyncExecutor.run_async, AsyncExecutor.map_async):
        with pytest.raises(TypeError, match="retry must be a Retry, or None to call once, got 3"):
            call(double, [], retry=3)  # type: ignore[operator]


@pytest.mark.parametrize("way", CONTEXTS, ids=lambda way: way.__name__)
def test_a4_a_timeout_that_is_none_is_refused_and_an_over_one_calls_nothing(way: Callable[[Sync], Any]) -> None:
    """Words are told from seconds; 0 and less, what is left of a deadline that is over, time out at once."""
    begun: list[int] = []

    async def begin() -> None:
        begun.append(1)

    with pytest.raises(TypeError, match="timeout"):
        way(lambda: AsyncExecutor.run_async(begin, timeout="30"))  # type: ignore[arg-type]
    for over in (0, -1.5):
        with pytest.raises(CallTimeoutError, match="never began"):
            way(lambda: AsyncExecutor.run_async(begin, timeout=over))  # noqa: B023 - called at once
    assert not begun


def test_a4_parameters_named_as_the_executors_own() -> None:
    """A function with a ``timeout`` of its own gets it through a partial."""

    async def with_timeout(timeout: float) -> float:
        return timeout

    assert AsyncExecutor.run_async(partial(with_timeout, timeout=7.0), timeout=BOUND) == 7.0


@ensure_single_event_loop()
async def protected_function() -> tuple[int, asyncio.AbstractEventLoop]:
    # This function will always run in a proper event loop context
    return await double(21)


def test_a1_documented_sample_from_any_context(context: Callable[[Sync], Any]) -> None:
    """000: ``result = protected_function()`` works from sync and async code."""
    result = context(protected_function)
    assert result[0] == 42


def test_a1_never_on_the_callers_loop() -> None:
    """Inside a running loop the function sees another one, and no task, timeout or loop of the caller's."""
    seen: list[object] = []

    @ensure_single_event_loop()
    async def look() -> None:
        seen.extend((asyncio.get_running_loop(), asyncio.current_task(), threading.get_ident()))

    async def caller() -> None:
        look()
        seen.extend((asyncio.get_running_loop(), asyncio.current_task(), threading.get_ident()))

    asyncio.run(caller())
    assert not set(map(id, seen[:3])) & set(map(id, seen[3:]))


def test_a1_a_timeout_and_the_functions_own_face() -> None:
    """The decorated function keeps its name, and its ``timeout=`` bounds each call."""

    @ensure_single_event_loop(timeout=0.1)
    async def endless() -> None:
        """Wait."""
        await asyncio.Event().wait()

    assert (endless.__name__, endless.__doc__) == ("endless", "Wait.")
    with pytest.raises(CallTimeoutError, match=r"endless\(\) did not finish"):
        endless()


async def _stop() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)


async def _die() -> None:
    """Have the running loop's selector fail."""

    def fail() -> None:
        raise OSError("the selector is gone")

    asyncio.get_running_loop()._run_once = fail  # type: ignore[attr-defined]
    await asyncio.Event().wait()


def test_a7_a_closed_loop_is_replaced() -> None:
    """The next call gets a fresh loop."""
    before = AsyncExecutor.run_async(double, 1)[1]
    default_runtime().close()
    value, after = AsyncExecutor.run_async(double, 21)
    assert (value, before.is_closed(), after.is_closed()) == (42, True, False)


def test_a7_a_stopped_loop_goes_on() -> None:
    """Somebody's ``loop.stop()`` fails no call, not the one that did it and no later one."""
    AsyncExecutor.run_async(_stop, timeout=BOUND)
    assert AsyncExecutor.run_async(double, 21)[0] == 42


def test_a7_a_loop_that_died_is_replaced() -> None:
    """Who waits for it is told, at once; the next call gets a fresh loop."""
    with pytest.raises(RuntimeDiedError):
        AsyncExecutor.run_async(_die, timeout=BOUND)
    assert AsyncExecutor.run_async(double, 21)[0] == 42


def test_a7_a_forked_child_has_loops_of_its_own(script: Any) -> None:
    """The child's calls, on its own loop's thread too, are answered by new loops; the parent's go on."""
    ended = script("""
        import asyncio, os, sys
        import homeloop
        from homeloop.serving import AsyncExecutor

        async def here(nested):
            inner = AsyncExecutor.run_async(here, False) if nested else None
            return os.getpid(), asyncio.get_running_loop(), inner

        before = AsyncExecutor.run_async(here, True)
        child = os.fork()
        if child == 0:
            after = AsyncExecutor.run_async(here, True, timeout=10)
            assert after[0] == after[2][0] == os.getpid()
            assert after[1] is not before[1] and after[2][1] is not before[2][1]
            sys.exit()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        again = AsyncExecutor.run_async(here, True, timeout=10)
        assert again[1] is before[1] and again[2][1] is before[2][1]
        print("parent goes on")
    """)
    assert (ended.returncode, ended.stdout) == (0, "parent goes on\n"), ended.stderr
