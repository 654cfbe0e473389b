"""What must hold when user code, signals and forks strike at bad moments."""

import asyncio
import contextvars
import gc
import math
import os
import pickle
import signal
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest

import homeloop
from homeloop import LoopRuntime
from homeloop._events import Event, RuntimeStuck
from homeloop.errors import CallTimeoutError, RuntimeClosedError, RuntimeDiedError, WrongThreadError

DEADLINE = 20.0  # seconds: tells a hang from an answer

name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")


async def identity(thing: object) -> object:
    return thing


class Thing:
    """Something with an identity."""


def test_a_signal_between_queueing_and_waking_does_not_stop_the_loop_from_waking() -> None:
    """A handler that raises while a call is posted leaves the next call working."""

    class LimitError(Exception):
        pass

    interrupts = [True]

    class Interrupted(asyncio.SelectorEventLoop):
        def add_reader(self, *_: object) -> None:
            raise NotImplementedError  # so that call_soon_threadsafe() wakes it

        def call_soon_threadsafe(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            if threading.current_thread() is threading.main_thread() and interrupts:
                interrupts.pop()
                raise LimitError  # as a signal handler does in the middle of it
            return super().call_soon_threadsafe(*args, **kwargs)

    with LoopRuntime(name="interrupted", loop_factory=Interrupted) as runtime:
        with pytest.raises(LimitError):
            runtime.run(identity, 1)
        assert runtime.run(identity, 2, timeout=DEADLINE) == 2


def test_a_cancellation_during_the_grace_of_a_timeout_is_not_lost(runtime: LoopRuntime) -> None:
    """arun() raises CancelledError, not the time-out, when its task was cancelled meanwhile."""
    cleaning, go_on = threading.Event(), threading.Event()

    async def slow_to_clean() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await asyncio.to_thread(go_on.wait, DEADLINE)

    async def main() -> None:
        task = asyncio.create_task(runtime.arun(slow_to_clean, timeout=0.05))
        await asyncio.to_thread(cleaning.wait, DEADLINE)
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


@pytest.mark.parametrize("strike", [lambda: asyncio.get_running_loop().stop(), lambda: exec("raise SystemExit")])
def test_one_bad_clean_up_does_not_take_the_others_clean_up(runtime: LoopRuntime, strike) -> None:  # type: ignore[no-untyped-def]
    """A loop that is stopped, or told to exit, while it drains goes on draining."""
    ended: list[str] = []
    kept: list[object] = []

    async def numbers():  # type: ignore[no-untyped-def]
        try:
            yield 1
        finally:
            ended.append("generator")

    async def wait(then) -> None:  # type: ignore[no-untyped-def]
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            then()

    async def start() -> None:
        kept.append(generator := numbers())
        await anext(generator)
        kept.append(asyncio.create_task(wait(strike)))
        kept.append(asyncio.create_task(wait(lambda: ended.append("task"))))
        await asyncio.sleep(0)

    runtime.run(start)
    runtime.close()
    assert sorted(ended) == ["generator", "task"]


def test_tasks_that_clean_up_starts_are_cleaned_up_too(runtime: LoopRuntime) -> None:
    """Nothing is destroyed while it is pending."""
    ended: list[str] = []
    kept: list[object] = []

    async def second() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("second")

    async def first() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            kept.append(asyncio.create_task(second()))
            await asyncio.sleep(0)

    async def start() -> None:
        kept.append(asyncio.create_task(first()))
        await asyncio.sleep(0)

    runtime.run(start)
    runtime.close()
    assert ended == ["second"]


def test_a_done_callback_may_call_the_runtime(runtime: LoopRuntime) -> None:
    """No lock is held while callbacks of a cancelled future run."""
    future = runtime.submit(asyncio.Event().wait)
    seen: list[object] = []
    future.add_done_callback(lambda _: seen.append(runtime.run(identity, 5, timeout=DEADLINE)))
    assert future.cancel()
    assert seen == [5]


def test_a_task_factory_that_raises_reaches_the_caller() -> None:
    """Nobody waits for a task that was never made."""

    def factory(loop, coroutine, **_):  # type: ignore[no-untyped-def]
        if getattr(coroutine, "__qualname__", "") == "Call.drive":
            raise LookupError("no tasks today")
        return asyncio.Task(coroutine, loop=loop)

    def make() -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        loop.set_task_factory(factory)
        return loop

    with (
        LoopRuntime(name="factory", loop_factory=make) as runtime,
        pytest.raises(LookupError, match="no tasks today"),
    ):
        runtime.run(identity, 1)


def test_a_task_that_is_cancelled_before_its_first_step_answers_its_caller() -> None:
    """Nothing of the call has run, and it is in flight no more."""
    strike = [True]

    def cancelling(loop, coroutine, **options):  # type: ignore[no-untyped-def]
        task = asyncio.Task(coroutine, loop=loop, **options)
        if strike:
            strike.pop()
            task.cancel()
        return task

    def factory() -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        loop.set_task_factory(cancelling)
        return loop

    with LoopRuntime(name="cancelling", loop_factory=factory, max_in_flight=1) as runtime:
        with pytest.raises(asyncio.CancelledError):
            runtime.run(identity, 1, timeout=DEADLINE)
        assert runtime.run(identity, 2, timeout=DEADLINE) == 2
        assert runtime.statistics().in_flight == 0


def test_a_loop_factory_that_makes_no_loop_is_an_error() -> None:
    """start() does not wait for a loop that will never run."""
    with pytest.raises(TypeError):
        LoopRuntime(name="none", loop_factory=lambda: None).start()  # type: ignore[arg-type,return-value]


def test_a_finalizer_that_calls_run_while_the_loop_is_made_is_refused() -> None:
    """A garbage collection on the new thread must not wait for the thread that waits for it."""
    refused: list[BaseException] = []

    def make() -> asyncio.AbstractEventLoop:
        try:
            runtime.run(identity, 1)
        except WrongThreadError as error:
            refused.append(error)
        return asyncio.new_event_loop()

    runtime = LoopRuntime(name="busy", loop_factory=make)
    assert runtime.run(identity, 2) == 2
    runtime.close()
    assert len(refused) == 1


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs POSIX signals")
def test_only_what_the_function_changed_comes_back(runtime: LoopRuntime) -> None:
    """What a signal handler set for the caller in the meantime stays."""
    handled = threading.Event()

    def handle(*_: object) -> None:
        name.set("handler")
        handled.set()

    async def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert await asyncio.to_thread(handled.wait, DEADLINE), "the waiting main thread has missed the signal"

    def caller() -> str:
        name.set("caller")
        runtime.run(interrupt)
        return name.get()

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        assert contextvars.copy_context().run(caller) == "handler"
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_second_close_waits_for_the_first(runtime: LoopRuntime) -> None:
    """When any close() returns, the loop is closed."""
    cleaning, go_on = threading.Event(), threading.Event()

    async def slow_to_clean() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await asyncio.to_thread(go_on.wait, DEADLINE)

    async def begin() -> None:
        kept.append(asyncio.create_task(slow_to_clean()))
        await asyncio.sleep(0)

    kept: list[object] = []
    runtime.run(begin)
    home = next(thread for thread in threading.enumerate() if thread.name == "test")
    first = threading.Thread(target=runtime.close)
    first.start()
    assert cleaning.wait(DEADLINE)
    second = threading.Thread(target=runtime.close)
    second.start()
    go_on.set()
    second.join(DEADLINE)
    assert not home.is_alive()
    first.join(DEADLINE)


def test_a_time_out_error_has_no_errno_and_survives_pickle() -> None:
    """It is an OSError, which would take its arguments for errno and strerror."""
    error = CallTimeoutError("load()", 2.0, ("here",), (), True)
    assert error.errno is None
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.timeout, copy.abandoned) == (str(error), 2.0, True)


def test_finished_calls_hold_no_arguments(runtime: LoopRuntime) -> None:
    """Neither run, submit nor a cancelled call keeps its arguments until the garbage collector comes."""

    async def fail(thing: Thing) -> None:
        raise ValueError

    def use(how) -> "weakref.ref[Thing]":  # type: ignore[no-untyped-def]
        thing = Thing()
        how(thing)
        return weakref.ref(thing)

    def submitted(thing: Thing) -> None:
        assert runtime.submit(fail, thing).exception(DEADLINE) is not None

    gc.collect()
    gc.disable()
    try:
        refs = [use(lambda thing: runtime.run(identity, thing)), use(submitted)]
        runtime.run(identity, None)
        assert [ref() for ref in refs] == [None, None]
    finally:
        gc.enable()


def test_a_mock_can_be_named(runtime: LoopRuntime) -> None:
    """Objects that answer to every attribute are no partials."""
    with pytest.raises(TypeError, match="returned int"):
        runtime.run(Mock(return_value=1))


def test_restarted_runtimes_keep_no_dead_loops() -> None:
    """Each lost loop is let go."""

    class Dying(asyncio.SelectorEventLoop):
        doomed = False

        def _run_once(self) -> None:
            if self.doomed:
                raise OSError
            super()._run_once()  # type: ignore[misc]

    async def doom() -> "weakref.ref[asyncio.AbstractEventLoop]":
        loop = asyncio.get_running_loop()
        loop.call_soon(setattr, loop, "doomed", True)
        return weakref.ref(loop)

    with LoopRuntime(name="dying", loop_factory=Dying) as runtime:
        loops = []
        for _ in range(5):
            threads = set(threading.enumerate())
            loops.append(runtime.run(doom))
            for thread in set(threading.enumerate()) - threads | {t for t in threads if t.name == "dying"}:
                thread.join(DEADLINE)
        gc.collect()
        assert sum(loop() is not None for loop in loops) <= 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_children_forked_at_any_moment_can_run(script) -> None:  # type: ignore[no-untyped-def]
    """Threads that start and close runtimes all the time leave no lock behind that would bind a child."""
    ended = script(
        """
import os, sys, threading, warnings
warnings.filterwarnings("ignore", category=DeprecationWarning)
import homeloop
async def pid(): return os.getpid()
done = threading.Event()
def churn():
    while not done.is_set():
        with homeloop.LoopRuntime(name="churn") as runtime: runtime.run(pid)
        homeloop.run(pid)
threads = [threading.Thread(target=churn) for _ in range(4)]
for thread in threads: thread.start()
bad = 0
for _ in range(60):
    child = os.fork()
    if child == 0:
        try: os._exit(0 if homeloop.run(pid, timeout=10) == os.getpid() else 1)
        except BaseException: os._exit(2)
    bad += os.waitpid(child, 0)[1] != 0
done.set()
for thread in threads: thread.join()
print("bad", bad)
""",
        timeout=100,
    )
    assert ended.stdout == "bad 0\n", ended.stderr
    assert ended.returncode == 0


def test_exit_closes_all_runtimes_at_once(script) -> None:  # type: ignore[no-untyped-def]
    """Each gets the whole budget, and together they take no longer than the slowest."""
    ended = script(
        """
import asyncio, threading, homeloop
runtimes = [homeloop.LoopRuntime(name=f"r{i}") for i in range(3)]
meeting = threading.Barrier(3)
async def meet():
    try: await asyncio.Event().wait()
    finally: meeting.wait(4)  # blocks its loop until the other two are closed as well
kept = []
async def start(): kept.append(asyncio.create_task(meet())); await asyncio.sleep(0)
for runtime in runtimes: runtime.run(start)
""",
        timeout=120.0,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_blocked_loop_that_is_left_behind_answers_its_callers() -> None:
    """close() gives up on a loop that blocks, says where, and nobody waits for it any more."""
    stuck: list[RuntimeStuck] = []
    blocked, unblock = threading.Event(), threading.Event()

    class Watch:
        def notify(self, event: Event) -> None:
            if isinstance(event, RuntimeStuck):
                stuck.append(event)

    async def block() -> str:
        blocked.set()
        unblock.wait(DEADLINE)
        return "too late"

    remove = homeloop.add_instrument(Watch())
    runtime = LoopRuntime(name="blocked")
    with ThreadPoolExecutor(2) as callers:
        try:
            calls = [callers.submit(runtime.run, block)]
            assert blocked.wait(DEADLINE)
            calls.append(callers.submit(runtime.run, identity, None))
            submitted = runtime.submit(identity, None)
            thread = next(thread for thread in threading.enumerate() if thread.name == "blocked")
            runtime.close(timeout=0.1)
            for call in (*calls, submitted):
                assert isinstance(call.exception(DEADLINE), (RuntimeDiedError, RuntimeClosedError))
            assert [event.runtime for event in stuck] == ["blocked"]
            assert any("in test_a_blocked_loop" in place for place in stuck[0].blocked_at)
        finally:
            unblock.set()
            remove()
        thread.join(DEADLINE)
        assert not thread.is_alive()


def test_a_call_on_a_full_stack_harms_nobody_else(script) -> None:
    """Near the recursion limit the deep caller has its answer or a RecursionError, and others go on."""
    ended = script(
        """
import homeloop, sys, threading
async def one(): return 1
homeloop.run(one)
answers = []
def at(depth):
    if depth:
        at(depth - 1)
    else:
        homeloop.run(one)
def call(depth):
    try:
        at(depth)
    except RecursionError:
        pass
    answers.append(depth)
limit = sys.getrecursionlimit()
for depth in range(limit - 60, limit):
    deep = threading.Thread(target=call, args=(depth,), daemon=True)
    deep.start()
    deep.join(20)
    assert not deep.is_alive(), depth
    assert homeloop.run(one, timeout=20) == 1, depth
print(len(answers))
"""
    )
    assert (ended.stdout, ended.returncode) == ("60\n", 0), ended.stderr


def test_bad_arguments_are_named_at_once() -> None:
    """A slip of the pen gets an error that says what is needed, and no coroutine is left un-awaited."""

    async def never() -> None:
        raise AssertionError("it must not run")

    for timeout in ("1", math.nan, object()):
        with pytest.raises(TypeError, match="timeout must be a number of seconds or None"):
            homeloop.run(never, timeout=timeout)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="timeout must be a number of seconds or None"):
            asyncio.run(homeloop.arun(never, timeout=timeout))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"iterate\(\) needs an async generator function, and it made a coroutine"):
        list(homeloop.iterate(never))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="pass the function to be called back, got 5"):
        homeloop.bind_callback(5)  # type: ignore[arg-type]


def test_each_task_that_ignores_its_cancellation_is_cancelled_once_and_named(script) -> None:  # type: ignore[no-untyped-def]
    """Also the one that the other's clean-up starts."""
    ended = script(
        """
import asyncio, logging, homeloop
logging.basicConfig(format="%(message)s")
kept, cancelled = [], []
async def stubborn(successor=None):
    while True:
        try: await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(asyncio.current_task().get_name())
            if successor: kept.append(asyncio.create_task(stubborn(), name=successor)); successor = None
async def start(): kept.append(asyncio.create_task(stubborn("second"), name="first")); await asyncio.sleep(0)
runtime = homeloop.LoopRuntime()
runtime.run(start)
runtime.close(0.3)
print(cancelled)
""",
    )
    assert ended.stdout == "['first', 'second']\n"
    assert ended.returncode == 0
    assert [name in ended.stderr for name in ("'first'", "'second'", "destroyed")] == [True, True, False]


def test_no_timeout_is_too_long_for_close(runtime: LoopRuntime) -> None:
    """Infinity included."""
    runtime.run(asyncio.to_thread, lambda: None)
    loop = runtime.run(_own_loop)
    runtime.close(float("inf"))
    assert loop.is_closed()


async def _own_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_a_thread_with_the_number_of_an_ended_loops_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It may close the runtime, though the ended one seems to live.

    `Thread.is_alive` says so while another thread is asking the same.
    """
    begun, release = threading.Event(), threading.Event()

    async def block() -> threading.Thread:
        begun.set()
        release.wait(DEADLINE)
        return threading.current_thread()

    runtime = LoopRuntime(name="left")
    blocked = runtime.submit(block)
    assert begun.wait(DEADLINE)
    [ended] = [each for each in threading.enumerate() if each.name == "left"]
    runtime.replace_loop()
    with pytest.raises(RuntimeDiedError):
        blocked.result(DEADLINE)
    release.set()
    ended.join(DEADLINE)
    monkeypatch.setattr(ended, "is_alive", lambda: True)
    closed: list[bool] = []

    def close() -> None:
        if threading.get_ident() == ended.ident:
            runtime.close()
            closed.append(runtime.is_closed)

    for _ in range(1000):  # for the most part the first has the number
        successor = threading.Thread(target=close)
        successor.start()
        successor.join(DEADLINE)
        if closed:
            break
    assert closed == [True]
