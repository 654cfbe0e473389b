"""run() and the life of a runtime, beyond what the scenario suite promises."""

import asyncio
import gc
import threading

import pytest

import homeloop
from homeloop import LoopRuntime
from homeloop.errors import CallTimeoutError, RuntimeDiedError, WrongThreadError


async def identity(thing: object) -> object:
    await asyncio.sleep(0)
    return thing


def test_a_coroutine_object_is_refused_and_closed(runtime: LoopRuntime) -> None:
    """The mistake is named, and leaves no coroutine that was never awaited."""
    coroutine = identity(1)
    with pytest.raises(TypeError, match=r"pass the function and its arguments, not a coroutine: run\(identity"):
        runtime.run(coroutine)  # type: ignore[arg-type]
    assert coroutine.cr_frame is None


def test_a_stop_async_iteration_is_an_exception_like_any(runtime: LoopRuntime) -> None:
    """Unlike StopIteration, which no coroutine may raise, it arrives as it is."""

    async def fail() -> None:
        raise StopAsyncIteration

    with pytest.raises(StopAsyncIteration):
        runtime.run(fail)


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


def test_close_ends_tasks_before_generators(runtime: LoopRuntime) -> None:
    """A task may iterate a generator: it goes first."""
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


def test_a_blocked_loop_is_replaced_when_somebody_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Its calls are answered, the next one gets a fresh loop; the old one ends in order when it goes on."""
    blocked, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    async def block() -> None:
        blocked.set()
        go_on.wait(30)

    async def background() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with LoopRuntime(name="stuck", grace=0.1) as runtime:
        waiting = runtime.submit(background)
        runtime.run(identity, 0)
        running = runtime.submit(block)
        assert blocked.wait(10)
        runtime.replace_loop()
        for future in (waiting, running):
            with pytest.raises(RuntimeDiedError, match="blocked and has been left behind"):
                future.result(10)
        assert runtime.run(identity, 4, timeout=10) == 4
        assert runtime.statistics().restarts == 1
        assert "block'" in caplog.text, "where it is stuck"
        assert not ended.is_set()
        go_on.set()
        assert ended.wait(10), "what was on it was cancelled"


def test_replacing_a_loop_needs_another_thread_and_a_loop(runtime: LoopRuntime) -> None:
    """On its own thread it is not blocked; without a loop there is nothing to leave."""

    async def replace() -> None:
        runtime.replace_loop()

    with pytest.raises(WrongThreadError):
        runtime.run(replace)
    with pytest.raises(ValueError, match="budget"):
        runtime.replace_loop(-1)
    unused = LoopRuntime()
    unused.replace_loop()
    assert unused.statistics().home is None


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


def test_a_dropped_runtime_takes_its_loop_along() -> None:
    """Forgetting close() leaves no thread behind once the runtime is collected."""
    runtime = LoopRuntime(name="dropped")
    runtime.start()
    thread = next(each for each in threading.enumerate() if each.name == "dropped")
    del runtime
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_grace_must_not_be_negative() -> None:
    """Bad options are refused where they are given."""
    with pytest.raises(ValueError, match="grace must be at least 0 seconds"):
        LoopRuntime(grace=-1)
