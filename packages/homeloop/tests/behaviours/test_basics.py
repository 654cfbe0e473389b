"""What a call is: a value comes back from a real task, and nothing else in the process has changed."""

import asyncio
import functools
import signal
import socket
import subprocess
import sys
import threading

import anyio
import anyio.to_thread
import pytest

from homeloop import LoopRuntime

DEADLINE = 60.0  # seconds; tells a hang from an answer


class Thing:
    """Something with an identity."""


async def identity(thing: object) -> object:
    await asyncio.sleep(0)
    return thing


def test_a01_returns_the_coroutines_value(runtime: LoopRuntime) -> None:
    """Returns the coroutine's value."""

    async def add(left: int, right: int) -> int:
        await asyncio.sleep(0)
        return left + right

    assert runtime.run(add, 40, 2) == 42


def test_a02_partial_is_accepted(runtime: LoopRuntime) -> None:
    """functools.partial of a coroutine function is accepted."""

    async def greet(greeting: str, *, name: str) -> str:
        return f"{greeting} {name}"

    assert runtime.run(functools.partial(greet, name="Ada"), "hello") == "hello Ada"


@pytest.mark.parametrize("value", [None, 0, "", False], ids=repr)
def test_a03_falsy_values_come_back(runtime: LoopRuntime, value: object) -> None:
    """None/0/''/False come back unchanged."""
    assert runtime.run(identity, value) is value


def test_a04_result_is_the_same_object(runtime: LoopRuntime) -> None:
    """Result is the very same object (no copy, no translation)."""
    made: list[Thing] = []

    async def make() -> Thing:
        made.append(Thing())
        return made[0]

    assert runtime.run(make) is made[0]


def test_a05_object_with_async_call_is_accepted(runtime: LoopRuntime) -> None:
    """Object with async __call__ is accepted."""

    class Service:
        async def __call__(self, x: int) -> int:
            return x + 1

    assert runtime.run(Service(), 1) == 2


def test_a06_sync_function_is_refused_at_once(runtime: LoopRuntime) -> None:
    """Plain sync function: value or TypeError/ValueError at once, never a hang."""
    with pytest.raises(TypeError, match=r"builtins\.len\(\) returned int, nothing to await"):
        runtime.run(len, "abc", timeout=DEADLINE)  # type: ignore[arg-type]


def test_a07_returned_exception_is_a_value(runtime: LoopRuntime) -> None:
    """A coroutine that RETURNS an exception instance returns it (not raises)."""
    error = ValueError("a value, not raised")
    assert runtime.run(identity, error) is error


def test_a08_runs_in_a_real_task(runtime: LoopRuntime) -> None:
    """Runs in a real task: current_task, asyncio.timeout, TaskGroup work."""

    async def look() -> object:
        task = asyncio.current_task()
        assert task is not None
        assert task in asyncio.all_tasks()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        assert not task.cancelling()
        async with asyncio.TaskGroup() as group:
            inner = [group.create_task(identity(i)) for i in range(3)]
        return [each.result() for each in inner]

    assert runtime.run(look) == [0, 1, 2]


def test_a09_anyio_works(runtime: LoopRuntime) -> None:
    """AnyIO code (detection, cancel scopes) works inside."""

    async def look() -> tuple[bool, bool, int]:
        assert anyio.get_current_task().id == id(asyncio.current_task())
        with anyio.move_on_after(0) as timed:
            await anyio.sleep_forever()
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            group.cancel_scope.cancel()
        ident = await anyio.to_thread.run_sync(threading.get_ident)
        return timed.cancelled_caught, group.cancel_scope.cancel_called, ident

    timed, cancelled, ident = runtime.run(look, timeout=DEADLINE)
    assert (timed, cancelled) == (True, True)
    assert ident != threading.get_ident()


def test_a10_subprocesses_work(runtime: LoopRuntime) -> None:
    """asyncio subprocesses work inside, also from a worker thread."""

    async def ask_a_process() -> bytes:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print(input()[::-1])", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        out, _ = await process.communicate(b"olleh\n")
        assert process.returncode == 0
        return out.strip()

    answers = [runtime.run(ask_a_process, timeout=DEADLINE)]
    worker = threading.Thread(target=lambda: answers.append(runtime.run(ask_a_process, timeout=DEADLINE)))
    worker.start()
    worker.join(2 * DEADLINE)
    assert answers == [b"hello", b"hello"]


def test_a11_to_thread_works(runtime: LoopRuntime) -> None:
    """asyncio.to_thread works inside."""

    async def ask_a_thread() -> tuple[int, int]:
        return threading.get_ident(), await asyncio.to_thread(threading.get_ident)

    home, worker = runtime.run(ask_a_thread)
    assert len({home, worker, threading.get_ident()}) == 3


def test_a12_asyncio_is_not_patched(script) -> None:
    """asyncio is not monkey-patched."""
    ended = script(
        """
import asyncio, sys

def look():
    # Every function and class of asyncio, and every attribute of those classes.
    found = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in ("asyncio", "_asyncio"): continue
        for key, value in vars(module).items():
            if isinstance(value, type):
                found.update({(name, key, inner): each for inner, each in vars(value).items()})
            if callable(value): found[name, key] = value
    return found

asyncio.new_event_loop().close()  # sets the default policy
before = look()
import homeloop
assert homeloop.run(asyncio.sleep, 0, 1) == 1
homeloop.default_runtime().close()
after = look()
changed = [place for place, value in before.items() if after.get(place) is not value]
print(len(before) > 500, changed)
"""
    )
    assert (ended.returncode, ended.stdout) == (0, "True []\n")


def test_a13_the_threads_own_loop_stays(runtime: LoopRuntime) -> None:
    """The event loop the user had set in this thread stays set and open."""
    own = asyncio.new_event_loop()
    asyncio.set_event_loop(own)
    try:
        runtime.run(identity, 1)
        assert asyncio.get_event_loop() is own
        assert own.run_until_complete(identity(2)) == 2
    finally:
        asyncio.set_event_loop(None)
        own.close()


def test_a14_sigint_handler_and_wakeup_fd_stay(runtime: LoopRuntime) -> None:
    """SIGINT handler and wakeup fd are as before the call."""

    async def look() -> object:
        return signal.getsignal(signal.SIGINT)

    def handler(*_: object) -> None:
        raise AssertionError

    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        fd_before = signal.set_wakeup_fd(writer.fileno())
        handler_before = signal.signal(signal.SIGINT, handler)
        try:
            assert runtime.run(look) is handler
        finally:
            handler_after = signal.signal(signal.SIGINT, handler_before)
            fd_after = signal.set_wakeup_fd(fd_before)
        assert handler_after is handler
        assert fd_after == writer.fileno()


def test_a15_arguments_are_the_same_objects(runtime: LoopRuntime) -> None:
    """Arguments reach the coroutine as the very same objects."""
    given = (Thing(), [], {})

    async def receive(*args: object) -> bool:
        return all(mine is yours for mine, yours in zip(given, args, strict=True))

    assert runtime.run(receive, *given)
