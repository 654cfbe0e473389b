"""run(): a blocking call of an async function, from any thread."""

import asyncio
import contextvars
import functools
import gc
import sys
import threading
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

import homeloop
from homeloop import LoopRuntime
from homeloop.errors import CallTimeoutError, RuntimeClosedError, RuntimeDiedError, WrongThreadError

name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")


class Thing:
    """Something with an identity."""


async def identity(thing: object) -> object:
    await asyncio.sleep(0)
    return thing


@pytest.mark.parametrize("value", [None, 0, "", False, Thing(), ValueError("a value, not raised")])
def test_the_result_is_the_very_same_object(runtime: LoopRuntime, value: object) -> None:
    """Arguments go in and results come out as they are, falsy ones and exception instances too."""
    assert runtime.run(identity, value) is value


def test_partials_and_async_callables_are_accepted(runtime: LoopRuntime) -> None:
    """Whatever returns an awaitable when called may be run."""

    class Service:
        async def __call__(self, x: int) -> int:
            return x + 1

    assert runtime.run(functools.partial(identity, thing=1)) == 1
    assert runtime.run(Service(), 1) == 2


def test_a_coroutine_object_is_refused_and_closed(runtime: LoopRuntime) -> None:
    """The mistake is named, and leaves no coroutine that was never awaited."""
    coroutine = identity(1)
    with pytest.raises(TypeError, match=r"pass the function and its arguments, not a coroutine: run\(identity"):
        runtime.run(coroutine)  # type: ignore[arg-type]
    assert coroutine.cr_frame is None


def test_a_sync_function_is_refused_with_its_name(runtime: LoopRuntime) -> None:
    """A function that returns nothing to await is named in the error."""
    with pytest.raises(TypeError, match=r"builtins\.len\(\) returned int, nothing to await"):
        runtime.run(len, "abc")  # type: ignore[arg-type]


def test_code_runs_in_a_real_task_on_the_home_loop(runtime: LoopRuntime) -> None:
    """current_task, timeouts and task groups work inside."""

    async def look() -> tuple[bool, str]:
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            inner = group.create_task(asyncio.to_thread(lambda: threading.current_thread().name))
        return asyncio.current_task() is not None, inner.result()

    in_task, thread = runtime.run(look)
    assert in_task
    assert thread.startswith("test-executor")


def test_calls_from_all_threads_share_one_loop(runtime: LoopRuntime) -> None:
    """Loop-bound objects made by one caller work for every other."""
    lock = runtime.run(_make_lock)
    held = 0

    async def hold() -> int:
        nonlocal held
        async with lock:
            held += 1
            await asyncio.sleep(0)
            seen, held = held, held - 1
            return seen

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: runtime.run(hold), range(200))) == {1}


async def _make_lock() -> asyncio.Lock:
    return asyncio.Lock()


def test_the_same_exception_comes_out_with_both_sides_in_its_traceback(runtime: LoopRuntime) -> None:
    """Identity, cause, the coroutine's frames and the caller's frame survive; our task frame does not show."""
    original, cause = ValueError("boom"), KeyError("cause")

    async def fail() -> None:
        raise original from cause

    with pytest.raises(ValueError, match="boom") as caught:
        runtime.run(fail)
    assert caught.value is original
    assert caught.value.__cause__ is cause
    frames = [frame.name for frame in traceback.extract_tb(original.__traceback__)]
    assert frames[0] == test_the_same_exception_comes_out_with_both_sides_in_its_traceback.__name__
    assert frames[-1] == "fail"
    assert "drive" not in frames


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, StopAsyncIteration])
def test_any_exception_reaches_the_caller_and_the_runtime_survives(
    runtime: LoopRuntime, kind: type[BaseException]
) -> None:
    """Not even SystemExit takes the loop along."""

    async def fail() -> None:
        raise kind

    with pytest.raises(kind):
        runtime.run(fail)
    assert runtime.run(identity, 1) == 1


def test_a_failed_call_leaves_no_reference_cycle(runtime: LoopRuntime) -> None:
    """Arguments of a failed call are freed without the garbage collector."""

    async def fail(thing: Thing) -> None:
        raise ValueError(thing)

    def call() -> "weakref.ref[Thing]":
        thing = Thing()
        try:
            runtime.run(fail, thing)
        except ValueError:
            pass
        return weakref.ref(thing)

    gc.collect()
    gc.disable()
    try:
        freed = call()
        runtime.run(identity, None)  # the loop has let go of the call before it takes the next one
        assert freed() is None
    finally:
        gc.enable()


def test_context_goes_in_and_changes_come_back(runtime: LoopRuntime) -> None:
    """run() is a call: what the function sets is set for the caller, also when it fails."""

    async def rename(fail: bool) -> str:
        before = name.get()
        name.set("changed inside")
        if fail:
            raise LookupError
        return before

    def caller(fail: bool) -> tuple[str, str]:
        name.set("caller")
        seen = ""
        try:
            seen = runtime.run(rename, fail)
        except LookupError:
            pass
        return seen, name.get()

    assert contextvars.copy_context().run(caller, False) == ("caller", "changed inside")
    assert contextvars.copy_context().run(caller, True) == ("", "changed inside")
    assert name.get() == "nobody"


def test_callers_do_not_see_each_others_context(runtime: LoopRuntime) -> None:
    """Each call runs in its own caller's context."""

    async def read() -> str:
        await asyncio.sleep(0)
        return name.get()

    def call(i: int) -> tuple[str, str]:
        name.set(f"caller {i}")
        return runtime.run(read), f"caller {i}"

    with ThreadPoolExecutor(8) as threads:
        assert all(seen == own for seen, own in threads.map(call, range(100)))
    assert runtime.run(read) == "nobody"


def test_a_timeout_cancels_cleans_up_and_tells_where_it_waited(runtime: LoopRuntime) -> None:
    """When CallTimeoutError is raised, the coroutine's clean-up has run."""
    cleaned = []

    async def wait_for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with pytest.raises(TimeoutError) as caught:
        runtime.run(wait_for_ever, timeout=0.05)
    assert cleaned == [True]
    error = caught.value
    assert isinstance(error, CallTimeoutError)
    assert not error.abandoned
    assert any("in test_a_timeout" in place and "wait_for_ever" in place for place in error.waiting_at)
    assert any("Event.wait" in place for place in error.waiting_at)
    assert isinstance(error.__cause__, asyncio.CancelledError)


def test_the_users_own_timeout_error_is_left_alone(runtime: LoopRuntime) -> None:
    """A TimeoutError of the function is the function's, not ours."""
    own = TimeoutError("mine")

    async def fail() -> None:
        raise own

    with pytest.raises(TimeoutError) as caught:
        runtime.run(fail, timeout=5)
    assert caught.value is own


def test_a_zero_timeout_means_now(runtime: LoopRuntime) -> None:
    """0 is a deadline that has passed, not for ever."""
    with pytest.raises(CallTimeoutError):
        runtime.run(asyncio.Event().wait, timeout=0)


def test_a_result_that_beats_its_cancellation_is_kept(runtime: LoopRuntime) -> None:
    """A function that finishes in spite of the cancellation has finished: nothing is lost."""

    async def finish_anyway() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "saved"
        raise AssertionError

    assert runtime.run(finish_anyway, timeout=0.05) == "saved"


def test_what_ignores_its_cancellation_is_abandoned_and_counted() -> None:
    """After the grace nobody waits; statistics and the log name the call until it ends."""
    release = threading.Event()
    events: list[homeloop.Event] = []

    class Recorder:
        def notify(self, event: homeloop.Event) -> None:
            events.append(event)

    async def stubborn() -> None:
        waiting = asyncio.ensure_future(asyncio.to_thread(release.wait))
        while not waiting.done():
            try:
                await asyncio.shield(waiting)
            except asyncio.CancelledError:
                continue

    remove = homeloop.add_instrument(Recorder())
    try:
        with LoopRuntime(name="stubborn", grace=0.1) as runtime:
            with pytest.raises(CallTimeoutError) as caught:
                runtime.run(stubborn, timeout=0.05)
            assert caught.value.abandoned
            runtime.run(identity, None)
            assert runtime.statistics().abandoned == 1
            assert [type(event).__name__ for event in events].count("CallAbandoned") == 1
            release.set()
    finally:
        remove()


def test_a_blocked_loop_is_told_from_a_slow_coroutine(runtime: LoopRuntime) -> None:
    """The error shows the stack that blocks the loop, and comes although the loop cannot help."""
    release = threading.Event()

    async def block() -> None:
        release.wait(20)

    try:
        with pytest.raises(CallTimeoutError) as caught:
            runtime.run(block, timeout=0.05)
    finally:
        release.set()
    assert caught.value.abandoned
    assert any("in test_a_blocked_loop" in place for place in caught.value.blocked_at)


def test_run_on_its_own_thread_is_refused(runtime: LoopRuntime) -> None:
    """Waiting for oneself is an error at once, and no coroutine is made."""

    async def call_self() -> None:
        with pytest.raises(WrongThreadError, match="own thread 'test'"):
            runtime.run(identity, 1)

    runtime.run(call_self, timeout=5)


def test_sandwiches_of_run_and_to_thread_work(runtime: LoopRuntime) -> None:
    """run > to_thread > run > to_thread > run."""

    async def layer(depth: int) -> int:
        if depth == 0:
            return 0
        return 1 + await asyncio.to_thread(runtime.run, layer, depth - 1)

    assert runtime.run(layer, 5, timeout=20) == 5


def test_run_works_while_the_callers_own_loop_is_running(runtime: LoopRuntime) -> None:
    """A notebook cell or an endpoint's sync helper gets its result; its loop is whole afterwards."""

    async def cell() -> int:
        result = runtime.run(identity, 7)
        await asyncio.sleep(0)
        assert asyncio.current_task() is not None
        return int(str(result))

    assert asyncio.run(cell()) == 7


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="injects an exception through CPython's API")
def test_an_injected_exception_cancels_the_call(runtime: LoopRuntime) -> None:
    """What another thread throws into the waiting one cancels the coroutine and is raised after its clean-up."""
    import ctypes

    class InjectedError(Exception):
        pass

    started, cleaned, outcome = threading.Event(), threading.Event(), []

    async def wait_for_ever() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    def caller() -> None:
        try:
            runtime.run(wait_for_ever)
        except InjectedError:
            outcome.append(cleaned.is_set())

    thread = threading.Thread(target=caller)
    thread.start()
    assert started.wait(10)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(InjectedError))
    thread.join(10)
    assert outcome == [True]


def test_close_cancels_what_runs_and_answers_its_caller() -> None:
    """close() awaits the clean-up, tells the waiting caller, and is idempotent."""
    runtime = LoopRuntime(name="closing")
    started, cleaned, outcome = threading.Event(), threading.Event(), []

    async def wait_for_ever() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    def caller() -> None:
        with pytest.raises(RuntimeClosedError):
            runtime.run(wait_for_ever)
        outcome.append(cleaned.is_set())

    thread = threading.Thread(target=caller)
    thread.start()
    assert started.wait(10)
    runtime.close()
    runtime.close()
    thread.join(10)
    assert outcome == [True]
    with pytest.raises(RuntimeClosedError, match="'closing' is closed"):
        runtime.run(identity, 1)


def test_close_runs_the_finally_of_background_tasks_and_generators(runtime: LoopRuntime) -> None:
    """What was left running is cancelled and cleaned up on its loop."""
    ended: list[str] = []

    async def numbers():  # type: ignore[no-untyped-def]
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            ended.append("generator")

    suspended = numbers()

    async def background() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("task")

    async def start() -> "asyncio.Task[None]":
        await anext(suspended)
        task = asyncio.create_task(background())
        await asyncio.sleep(0)
        return task

    task = runtime.run(start)
    runtime.close()
    assert ended == ["task", "generator"]
    assert task.cancelled()


def test_a_stopped_loop_goes_on(runtime: LoopRuntime, caplog: pytest.LogCaptureFixture) -> None:
    """loop.stop() from user code does not take the runtime from the others."""

    async def stop() -> None:
        asyncio.get_running_loop().stop()

    runtime.run(stop)
    assert runtime.run(identity, 3, timeout=10) == 3
    assert "somebody stopped the loop" in caplog.text


def test_a_loop_that_died_answers_its_callers_and_is_replaced() -> None:
    """A selector that fails ends the home: callers hear of it, the next call gets a new loop."""

    class Dying(asyncio.SelectorEventLoop):
        doomed = False

        def _run_once(self) -> None:
            if self.doomed:
                raise OSError("the selector is gone")
            super()._run_once()  # type: ignore[misc]

    with LoopRuntime(name="dying", loop_factory=Dying) as runtime:

        async def doom() -> None:
            asyncio.get_running_loop().doomed = True  # type: ignore[attr-defined]
            await asyncio.Event().wait()

        for _ in range(20):  # what is left of the dead loop is collected at different moments
            with pytest.raises(RuntimeDiedError, match="its loop has ended"):
                runtime.run(doom)
        assert runtime.run(identity, 4) == 4
        assert runtime.statistics().restarts == 20


def test_a_loop_factory_that_fails_is_reported_and_asked_again() -> None:
    """The factory's own error surfaces; nothing is left behind."""
    attempts: list[int] = []

    def factory() -> asyncio.AbstractEventLoop:
        attempts.append(1)
        if len(attempts) == 1:
            raise RuntimeError("no loop today")
        return asyncio.new_event_loop()

    with pytest.raises(RuntimeError, match="no loop today"), LoopRuntime(loop_factory=factory) as runtime:
        raise AssertionError
    runtime = LoopRuntime(loop_factory=factory)
    assert runtime.run(identity, 1) == 1
    runtime.close()


def test_a_burst_from_many_threads_starts_one_loop() -> None:
    """Sixteen threads racing for the first call get the same loop."""
    runtime = LoopRuntime(name="race")
    barrier = threading.Barrier(16)

    async def which() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def call(_: int) -> asyncio.AbstractEventLoop:
        barrier.wait(10)
        return runtime.run(which)

    try:
        with ThreadPoolExecutor(16) as threads:
            assert len(set(threads.map(call, range(16)))) == 1
    finally:
        runtime.close()


def test_a_dropped_runtime_takes_its_loop_along() -> None:
    """Forgetting close() leaves no thread behind once the runtime is collected."""
    runtime = LoopRuntime(name="dropped")
    runtime.start()
    thread = next(each for each in threading.enumerate() if each.name == "dropped")
    del runtime
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_the_default_runtime_is_reopened_after_a_close() -> None:
    """homeloop.run() works again after somebody closed the default runtime."""
    assert homeloop.run(identity, 1) == 1
    homeloop.default_runtime().close()
    assert homeloop.run(identity, 2) == 2


def test_grace_must_not_be_negative() -> None:
    """Bad options are refused where they are given."""
    with pytest.raises(ValueError, match="grace must be at least 0 seconds"):
        LoopRuntime(grace=-1)
