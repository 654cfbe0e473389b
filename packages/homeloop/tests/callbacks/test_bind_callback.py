"""bind_callback(): called from anywhere, run at home, in order."""

import asyncio
import contextvars
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

import homeloop
from homeloop import LoopRuntime, bind_callback
from homeloop.errors import LoopEndingError

LOOPS = {"asyncio": asyncio.new_event_loop}
try:
    import uvloop
except ImportError:
    pass
else:
    LOOPS["uvloop"] = uvloop.new_event_loop

name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")


def test_it_runs_on_its_own_loop_whoever_calls(runtime: LoopRuntime) -> None:
    """From a thread, from another loop and from home; awaiting it waits for the effect."""

    async def main() -> None:
        home, seen = asyncio.get_running_loop(), []

        async def note(where: str) -> None:
            await asyncio.sleep(0)
            assert asyncio.get_running_loop() is home
            seen.append(where)

        callback = bind_callback(note)

        async def elsewhere() -> None:
            await callback("another loop")
            assert seen[-1] == "another loop"

        await callback("home")
        assert seen == ["home"]
        await asyncio.to_thread(lambda: callback("thread").result(10))
        assert seen[-1] == "thread"
        await runtime.arun(elsewhere)
        await asyncio.to_thread(asyncio.run, elsewhere())

    asyncio.run(main())


def test_calls_keep_their_order_without_being_awaited(runtime: LoopRuntime) -> None:
    """A later call never overtakes an earlier one, however long that takes."""
    seen: list[int] = []

    async def note(i: int) -> None:
        for _ in range(3 if i % 2 == 0 else 0):
            await asyncio.sleep(0)
        seen.append(i)

    async def bind():  # type: ignore[no-untyped-def]
        return bind_callback(note)

    callback = runtime.run(bind)
    for i in range(100):
        last = callback(i)
    last.result(10)
    assert seen == list(range(100))


def test_each_call_runs_in_its_callers_context(runtime: LoopRuntime) -> None:
    """Context variables travel with the call."""
    seen: list[str] = []

    async def note() -> None:
        seen.append(name.get())

    async def bind():  # type: ignore[no-untyped-def]
        return bind_callback(note)

    callback = runtime.run(bind)

    def call(i: int) -> None:
        name.set(f"caller {i}")
        callback().result(10)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(call, range(20)))
    assert sorted(seen) == sorted(f"caller {i}" for i in range(20))


def test_an_error_is_reported_and_does_not_reach_the_caller(runtime: LoopRuntime, caplog) -> None:
    """The workflow goes on; the log names callback and error; later calls run."""
    seen: list[int] = []

    def fail_on_odd(i: int) -> None:
        if i % 2:
            raise ValueError(f"odd: {i}")
        seen.append(i)

    async def main() -> None:
        callback = bind_callback(fail_on_odd)
        for i in range(4):
            await callback(i)

    runtime.run(main)
    assert seen == [0, 2]
    assert caplog.text.count("CallbackFailed") == 2
    assert "odd: 3" in caplog.text


def test_an_error_is_raised_where_it_is_awaited_if_asked(runtime: LoopRuntime) -> None:
    """on_error='raise' gives the very same exception to whoever waits."""
    original = ValueError("boom")

    async def fail() -> None:
        raise original

    async def main() -> None:
        callback = bind_callback(fail, on_error="raise")
        with pytest.raises(ValueError, match="boom") as caught:
            await callback()
        assert caught.value is original
        assert await asyncio.to_thread(callback().exception, 10) is original

    runtime.run(main)


def test_a_callback_whose_loop_is_gone_is_reported_or_raised() -> None:
    """Nobody waits for ever for a loop that has ended."""

    async def bind():  # type: ignore[no-untyped-def]
        return bind_callback(print), bind_callback(print, on_error="raise")

    quiet, loud = asyncio.run(bind())
    assert quiet("x").result(10) is None
    with pytest.raises(LoopEndingError):
        loud("x").result(10)


def test_calls_still_queued_when_the_loop_ends_are_answered() -> None:
    """The one that runs is cancelled, those behind it are refused: every waiter goes on."""
    started, deliveries = threading.Event(), []

    async def stuck() -> None:
        started.set()
        await asyncio.Event().wait()

    async def bind():  # type: ignore[no-untyped-def]
        return bind_callback(stuck)

    with LoopRuntime(name="ending") as runtime:
        callback = runtime.run(bind)
        deliveries = [callback(), callback(), callback()]
        assert started.wait(10)
    assert [delivery.result(10) for delivery in deliveries] == [None] * 3


def test_without_a_running_loop_the_default_runtime_is_the_home() -> None:
    """A callback bound in plain sync code has a home too."""
    threads: list[str] = []
    callback = bind_callback(lambda: threads.append(threading.current_thread().name))
    callback().result(10)
    assert threads == ["homeloop"]
    assert "thread 'homeloop'" in repr(callback)
    homeloop.default_runtime().close()


def test_cancelling_the_waiter_does_not_take_the_call_back(runtime: LoopRuntime) -> None:
    """What was called happens."""
    seen: list[int] = []

    async def main() -> None:
        gate = asyncio.Event()

        async def note() -> None:
            await gate.wait()
            seen.append(1)

        callback = bind_callback(note)
        delivery = callback()

        async def wait() -> None:
            await delivery

        waiter = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        gate.set()
        await delivery
        assert seen == [1]

    runtime.run(main)


def test_an_error_after_the_waiter_was_cancelled_is_told_once(runtime: LoopRuntime, caplog) -> None:
    """Nobody waits for the error any more: it has been reported, and asyncio does not complain of it besides."""
    begun, go_on = asyncio.Event(), threading.Event()

    async def home() -> homeloop.BoundCallback[[]]:
        async def fail() -> None:
            waiter_loop.call_soon_threadsafe(begun.set)
            await asyncio.to_thread(go_on.wait, 10)
            raise ValueError("too late")

        return bind_callback(fail, on_error="raise")

    async def wait_elsewhere() -> None:
        nonlocal waiter_loop
        waiter_loop = asyncio.get_running_loop()
        delivery = runtime.run(home)()

        async def wait() -> None:
            await delivery

        waiter = asyncio.create_task(wait())
        await begun.wait()
        waiter.cancel()
        await asyncio.wait([waiter])
        go_on.set()
        await asyncio.to_thread(delivery.exception, 10)
        await asyncio.sleep(0)  # the loop hears of it in its next turn
        await asyncio.sleep(0)

    waiter_loop: asyncio.AbstractEventLoop
    asyncio.run(wait_elsewhere())
    gc.collect()
    assert "too late" in caplog.text
    assert "never retrieved" not in caplog.text


def test_an_exception_that_ends_processes_is_settled_like_any_other(runtime: LoopRuntime) -> None:
    """Nobody waits for ever for a callback that raised a BaseException; later calls run."""

    class Abort(BaseException):
        pass

    seen: list[int] = []

    async def fail(i: int) -> None:
        if i == 0:
            raise Abort
        seen.append(i)

    async def bind():  # type: ignore[no-untyped-def]
        return bind_callback(fail, on_error="raise")

    callback = runtime.run(bind)
    with pytest.raises(Abort):
        callback(0).result(10)
    callback(1).result(10)
    assert seen == [1]


def test_a_delivery_cannot_be_cancelled(runtime: LoopRuntime) -> None:
    """cancel() says no, and what was called happens, as does what is called later."""
    seen: list[int] = []
    gate = threading.Event()

    async def note(i: int) -> None:
        await asyncio.to_thread(gate.wait, 10)
        seen.append(i)

    async def bind():  # type: ignore[no-untyped-def]
        return bind_callback(note)

    callback = runtime.run(bind)
    deliveries = [callback(0), callback(1)]
    assert [delivery.cancel() for delivery in deliveries] == [False, False]
    gate.set()
    for delivery in deliveries:
        delivery.result(10)
    assert seen == [0, 1]


def test_a_call_on_a_loop_that_has_ended_but_is_not_closed_is_answered() -> None:
    """The end of the loop is its end, whenever its owner closes it."""

    async def bind():  # type: ignore[no-untyped-def]
        return bind_callback(print, on_error="raise")

    loop = asyncio.new_event_loop()
    callback = loop.run_until_complete(bind())
    queued = callback("before the end, on a loop that stands still")
    loop.run_until_complete(loop.shutdown_asyncgens())
    with pytest.raises(LoopEndingError):
        queued.result(10)
    with pytest.raises(LoopEndingError):
        callback("after the end").result(10)
    loop.close()


@pytest.mark.parametrize("kind", LOOPS)
def test_a_loop_closed_with_calls_on_their_way_answers_them(kind: str) -> None:
    """Also when its owner closes it without shutting anything down."""

    async def bind():  # type: ignore[no-untyped-def]
        return bind_callback(print, on_error="raise")

    loop = LOOPS[kind]()
    callback = loop.run_until_complete(bind())
    queued = callback("x")
    loop.close()
    with pytest.raises(LoopEndingError):
        queued.result(10)


def test_a_call_that_ran_when_its_loop_was_closed_is_answered_when_that_is_noticed() -> None:
    """Nothing tells of such an end; the next loop that something lives on finds out."""
    held = asyncio.Event()

    async def stuck() -> None:
        held.set()
        await asyncio.Event().wait()

    async def bind():  # type: ignore[no-untyped-def]
        return bind_callback(stuck, on_error="raise")

    async def start() -> object:
        delivery = callback()
        await held.wait()
        return delivery

    loop = asyncio.new_event_loop()
    callback = loop.run_until_complete(bind())
    delivery = loop.run_until_complete(start())
    tasks = asyncio.all_tasks(loop)
    loop.close()
    asyncio.run(bind())
    with pytest.raises(LoopEndingError):
        delivery.result(10)
    for task in tasks:  # abandoned on purpose
        task._log_destroy_pending = False


def test_a_thread_that_waits_for_calls_goes_on_when_the_runtime_closes() -> None:
    """A worker in the middle of a row of calls neither hangs nor keeps the process."""
    called, going, answered = threading.Event(), threading.Event(), []

    async def bind():  # type: ignore[no-untyped-def]
        return bind_callback(called.set, on_error="raise")

    runtime = LoopRuntime(name="ending")
    callback = runtime.run(bind)

    def work() -> None:
        try:
            while True:
                callback().result(10)
                going.set()
        except BaseException as error:
            answered.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    assert going.wait(10)
    runtime.close()
    worker.join(10)
    assert [type(error) for error in answered] == [LoopEndingError]


@pytest.mark.parametrize("kind", LOOPS)
def test_a_blocked_loop_that_is_left_behind_answers_its_calls(kind: str) -> None:
    """The one that runs, those that wait, and later ones; what the loop does later changes nothing."""
    blocked, going_on = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        assert going_on.wait(60)

    async def bind():  # type: ignore[no-untyped-def]
        return bind_callback(block, on_error="raise")

    runtime = LoopRuntime(name="blocked", loop_factory=LOOPS[kind])
    callback = runtime.run(bind)
    try:
        deliveries = [callback(), callback()]
        assert blocked.wait(10)
        runtime.close(timeout=0.0)
        deliveries.append(callback())
        for delivery in deliveries:
            assert isinstance(delivery.exception(10), LoopEndingError)
    finally:
        going_on.set()


def test_a_forked_child_is_refused_and_does_not_touch_its_parents_loop(script) -> None:
    """The callback's home is in the parent process."""
    ended = script(
        """
import os, warnings
warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork.*", category=DeprecationWarning)
import homeloop
from homeloop.errors import WrongLoopError
callback = homeloop.bind_callback(lambda: None, on_error="raise")
loop = callback._loop
number = os.fork()
if number == 0:
    loop.call_soon_threadsafe = None
    try:
        callback().result(10)
    except WrongLoopError as error:
        assert "belongs to loop" in str(error)
        os._exit(0)
    os._exit(1)
assert os.waitpid(number, 0)[1] == 0
callback().result(10)
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_callback_is_not_kept_alive_by_its_loop(runtime: LoopRuntime) -> None:
    """One callback per request does not fill the memory of a loop that serves for months."""

    async def main() -> bool:
        callback = bind_callback(print)
        gone = weakref.ref(callback)
        del callback
        return gone() is None

    assert runtime.run(main)


def test_a_misspelt_option_is_refused() -> None:
    """Where it is written, not when the callback fails; nothing is started for it."""
    with pytest.raises(ValueError, match="on_error must be 'report' or 'raise', got 'rase'"):
        bind_callback(print, on_error="rase")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="coalesce must be 'none' or 'latest', got 'lastest'"):
        bind_callback(print, coalesce="lastest")  # type: ignore[arg-type]


def test_a_delivery_is_not_taken_back() -> None:
    """And says so."""
    delivery = bind_callback(print)()
    assert not delivery.cancel()
    delivery.result(20)
    assert not delivery.cancel()
