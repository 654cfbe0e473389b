"""What is diagnosed, and what is not: by the loops' identities, never by the words alone."""

import asyncio
import concurrent.futures
import gc
import json
import pickle
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Never

import pytest

from homeloop import Diagnosis, LoopRuntime, detect_cross_loop_issue, diagnose
from homeloop.async_utils import detect_cross_loop_issue as documented_name

BOUND = 10.0

Main = Callable[[], Coroutine[Any, Any, object]]
Run = Callable[[Main], object]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine function on a new loop, as ``asyncio.run`` does, and close the loop."""
    factory = pytest.importorskip("uvloop").new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run_on_new_loop(main: Main) -> object:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main())

    return run_on_new_loop


def caught(fn: Callable[..., object], *args: object) -> BaseException:
    """Return what a call raises."""
    try:
        fn(*args)
    except BaseException as error:
        return error
    pytest.fail("nothing was raised")


def found(fn: Callable[..., object], *args: object) -> Diagnosis:
    """Return the diagnosis of what a call raises."""
    diagnosis = diagnose(caught(fn, *args))
    assert diagnosis is not None
    return diagnosis


async def contend(lock: asyncio.Lock) -> None:
    async def hold() -> None:
        async with lock:
            await asyncio.sleep(0)

    await asyncio.gather(hold(), hold())


def test_primitive_of_a_finished_loop(run: Run) -> None:
    """A lock that two loops wait for, one after the other, is told from one that two live loops share."""
    lock = asyncio.Lock()
    run(lambda: contend(lock))
    diagnosis = found(run, lambda: contend(lock))
    assert (diagnosis.code, diagnosis.kind, diagnosis.confidence) == ("LOOP103", "primitive-rebind", "high")
    assert "asyncio.locks.Lock" in diagnosis.thing
    assert diagnosis.used_at is not None
    assert "async with lock" in diagnosis.used_at.source
    assert diagnosis.owner is not None
    assert diagnosis.owner.state == "closed"


def test_two_loops_in_one_traceback(run: Run) -> None:
    """Two loops that both ran frames of the traceback were live, though both are closed when it is read."""

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()

        async def other() -> None:
            await future

        await asyncio.to_thread(run, other)

    diagnosis = found(run, main)
    assert (diagnosis.code, diagnosis.confidence) == ("LOOP102", "high")
    assert "Future" in diagnosis.thing
    assert diagnosis.current is not None
    assert diagnosis.current.run_at is not None


def test_task_group_and_causes(run: Run) -> None:
    """The fault is found in exception groups, causes and contexts, and the outermost error is said to hide it."""
    lock = asyncio.Lock()
    run(lambda: contend(lock))

    async def main() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(contend(lock))
        except* RuntimeError as group_of_errors:
            raise LookupError("no answer") from group_of_errors

    diagnosis = found(run, main)
    assert diagnosis.code == "LOOP103"
    assert diagnosis.hidden


def test_kept_loop_that_is_closed() -> None:
    """Who kept a loop and asks it for work after its end is told so, and where."""

    class Service:
        async def start(self) -> None:
            self.loop = asyncio.get_running_loop()

        def submit(self) -> None:
            work = asyncio.sleep(0)
            try:
                self.loop.create_task(work)
            finally:
                work.close()

    service = Service()
    asyncio.run(service.start())
    diagnosis = found(service.submit)
    assert diagnosis.code == "LOOP104"
    assert "Service" in diagnosis.thing


def test_loop_that_is_asked_by_its_transport() -> None:
    """A transport that outlives its loop is reuse; a transport that is closed after it is a late clean-up."""

    async def start() -> asyncio.StreamWriter:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        server.close()
        return writer

    with asyncio.Runner() as runner:
        writer = runner.run(start())
    socket = writer.transport.get_extra_info("socket")

    async def use() -> None:
        writer.transport.abort()

    try:
        assert found(asyncio.run, use()).code == "LOOP101"
    finally:
        socket._sock.close()
        writer.transport._sock = None  # type: ignore[attr-defined] # its __del__ would warn of what the test is about


@pytest.mark.parametrize("start", ["run", "run_until_complete"])
def test_nested_run(start: str, run: Run) -> None:
    """A loop that is started where one runs is told, however it is started."""

    async def main() -> None:
        work = asyncio.sleep(0)
        try:
            if start == "run":
                asyncio.run(work)
            else:
                loop = asyncio.new_event_loop()
                try:
                    loop.run_until_complete(work)
                finally:
                    loop.close()
        finally:
            work.close()

    assert found(run, main).code == "LOOP201"


def test_no_loop_in_a_thread() -> None:
    """get_event_loop() on a thread, and what needs a running loop, are told."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert found(pool.submit(asyncio.get_event_loop).result).code == "LOOP202"
    assert found(lambda: asyncio.get_running_loop()).code == "LOOP202"


def test_wrong_thread_in_debug_mode() -> None:
    """asyncio's own check of the thread is recognised."""

    async def main() -> None:
        await asyncio.to_thread(asyncio.get_running_loop().call_soon, print)

    assert found(lambda: asyncio.run(main(), debug=True)).code == "LOOP105"


def test_no_task_and_stopped(run: Run) -> None:
    """A timer outside a task and a loop that is stopped early are told; they are no cross-loop issue."""

    async def work() -> None:
        async with asyncio.timeout(1):
            await asyncio.sleep(0)

    async def main() -> None:
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: done.set_result(caught(work().send, None)))
        raise await done

    error = caught(run, main)
    diagnosis = diagnose(error)
    assert diagnosis is not None
    assert diagnosis.code == "LOOP203"
    assert not detect_cross_loop_issue(error)
    assert not documented_name(error)

    async def stop() -> None:
        asyncio.get_running_loop().stop()
        await asyncio.get_running_loop().create_future()

    assert found(run, stop).code == "LOOP204"


def test_homeloops_own_errors() -> None:
    """What homeloop refuses is diagnosed, too."""
    with LoopRuntime(name="own") as runtime:

        async def call_own() -> None:
            runtime.run(asyncio.sleep, 0)

        assert found(runtime.run, call_own).code == "LOOP205"


LOOKALIKES = (
    "Event loop is closed",
    "asyncio.run() cannot be called from a running event loop",
    "This event loop is already running",
    "no running event loop",
    "There is no current event loop in thread 'x'.",
    "Task <Task pending name='a' coro=<f()>> got Future <Future pending> attached to a different loop",
    "<asyncio.locks.Lock object at 0x1 [locked]> is bound to a different event loop",
    "Non-thread-safe operation invoked on an event loop other than the current one",
    "Timeout should be used inside a task",
    "cannot perform operation: another operation is in progress",
)


@pytest.mark.parametrize("words", LOOKALIKES)
def test_words_alone_are_nothing(words: str, run: Run) -> None:
    """An application's own error with a loop's words is none: raised, awaited, handed over or wrapped."""

    def fail() -> Never:
        raise RuntimeError(words)

    async def main(how: str) -> None:
        future = asyncio.get_running_loop().create_future()
        if how == "raised":
            fail()
        elif how == "awaited":
            future.set_exception(RuntimeError(words))
            await future
        elif how == "result":
            future.set_exception(RuntimeError(words))
            future.result()
        elif how == "thread":
            await asyncio.to_thread(fail)
        else:
            await asyncio.create_task(main("raised"))

    for how in ("raised", "awaited", "result", "thread", "task"):
        assert diagnose(caught(run, lambda how=how: main(how))) is None, how  # type: ignore[misc]
    assert diagnose(RuntimeError(words)) is None


def test_objects_of_other_loops_do_not_convict(run: Run) -> None:
    """An application's error where another loop's objects happen to be in sight is none."""

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()

        class Service:
            def __init__(self) -> None:
                self.loop = asyncio.get_running_loop()
                self.future = future

            async def work(self, text: str) -> object:
                return json.loads(text)

        service = Service()

        async def other() -> None:
            mine, loop = future, service.loop
            assert mine is not None
            assert loop is not None
            await service.work("{")

        await asyncio.to_thread(run, other)

    error = caught(run, main)
    assert isinstance(error, json.JSONDecodeError)
    assert diagnose(error) is None


def test_calls_that_are_handed_over_properly(run: Run) -> None:
    """An error that comes back from the loop that a call was brought to, is that call's own."""

    class Client:
        def __init__(self) -> None:
            self._loop = asyncio.get_running_loop()

        async def get(self) -> object:
            return json.loads("{")

    async def make() -> Client:
        return Client()

    with LoopRuntime(name="home") as home:
        client = home.run(make)

        async def main() -> None:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(client.get(), client._loop))

        async def hop() -> None:
            await home.arun(client.get)

        assert diagnose(caught(run, main)) is None
        assert diagnose(caught(run, hop)) is None
        assert diagnose(caught(home.run, client.get)) is None


def test_what_programs_try(run: Run) -> None:
    """An error that is raised while a program deals with "there is no loop here", is not about loops."""

    def either(text: str) -> object:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return json.loads(text)
        return None

    def or_thread() -> None:
        work = asyncio.sleep(0)
        try:
            asyncio.run(work)
        except RuntimeError:
            work.close()
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                pool.submit(json.loads, "{").result()

    async def main() -> None:
        or_thread()

    assert diagnose(caught(either, "{")) is None
    assert diagnose(caught(run, main)) is None


def test_an_applications_own_loop_attribute(run: Run) -> None:
    """A class of an installed application may name a loop; its errors on another one are its own."""
    source = "class Service:\n    async def work(self):\n        raise LookupError('no such user')\n"
    namespace: dict[str, Any] = {"__name__": "installed.service"}
    exec(compile(source, "/venv/site-packages/installed/service.py", "exec"), namespace)
    service = namespace["Service"]()
    service.loop = asyncio.new_event_loop()
    try:
        assert diagnose(caught(run, service.work)) is None
    finally:
        service.loop.close()


def test_a_debugger_may_ask() -> None:
    """Called from a trace function, as at a debugger's prompt, it leaves the traced frame's variables alone."""
    errors: list[RuntimeError] = []

    def tracer(frame: Any, event: str, arg: object) -> Any:
        if errors and event == "line":
            diagnose(errors[0])
        return tracer

    def run() -> int:
        kept = 42
        try:
            asyncio.get_running_loop()
        except RuntimeError as error:
            errors.append(error)
        kept += 0
        return kept

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        assert run() == 42
    finally:
        sys.settrace(before)


def test_diagnosis_is_plain_data(run: Run) -> None:
    """A diagnosis survives pickle and is one line of JSON."""
    lock = asyncio.Lock()
    run(lambda: contend(lock))
    diagnosis = found(run, lambda: contend(lock))
    assert pickle.loads(pickle.dumps(diagnosis)) == diagnosis
    told = json.loads(diagnosis.to_json())
    assert (told["code"], told["kind"]) == ("LOOP103", "primitive-rebind")
    assert "\n" not in diagnosis.to_json()


def test_nothing_is_kept() -> None:
    """A diagnosed exception, and its frames' variables, are freed with their last reference, without the GC."""

    class Payload:
        pass

    def run() -> "weakref.ref[Payload]":  # the variables of functions of this name are looked at
        payload = Payload()
        watched = weakref.ref(payload)
        try:
            asyncio.get_running_loop()
        except RuntimeError as error:
            assert diagnose(error) is not None  # noqa: PT017 - while it is handled
        del payload
        assert watched() is None  # while the frame still runs
        return watched

    gc.collect()
    gc.disable()
    try:
        run()
        before = len(gc.get_objects())
        for _ in range(50):
            run()
        assert len(gc.get_objects()) - before < 25
    finally:
        gc.enable()


def test_locals_of_the_caller_stay() -> None:
    """A frame whose namespace is somebody else's too is not emptied: locals() stays what it was."""
    mine = {"kept": 1}

    def run() -> dict[str, object]:
        kept = mine
        namespace = locals()
        try:
            asyncio.get_running_loop()
        except RuntimeError as error:
            assert diagnose(error) is not None  # noqa: PT017 - while it is handled
        assert kept is mine
        return namespace

    assert run()["kept"] is mine


def test_from_another_thread(run: Run) -> None:
    """An exception may be diagnosed on a thread that has nothing to do with it."""
    lock = asyncio.Lock()
    run(lambda: contend(lock))
    error = caught(run, lambda: contend(lock))
    told: list[Diagnosis | None] = []
    thread = threading.Thread(target=lambda: told.append(diagnose(error)))
    thread.start()
    thread.join(BOUND)
    assert told[0] is not None
    assert told[0].code == "LOOP103"


@pytest.mark.parametrize("hub", ["gevent", "eventlet"])
def test_a_loop_started_in_a_coroutine_is_nested_beside_greenlets_too(script, hub: str) -> None:  # type: ignore[no-untyped-def]
    """It is no collision of greenlets: the coroutine is in the traceback, so some loop runs it."""
    patch = (
        "import gevent.monkey; gevent.monkey.patch_all()"
        if hub == "gevent"
        else "import eventlet; eventlet.monkey_patch()"
    )
    ended = script(
        f"""
{patch}
import asyncio, homeloop
async def other(): pass
async def start():
    coroutine = other()
    try: asyncio.run(coroutine)
    finally: coroutine.close()
try: homeloop.run(start)
except RuntimeError as error: print(homeloop.diagnose(error).code)
"""
    )
    assert ended.stdout == "LOOP201\n", ended.stderr
