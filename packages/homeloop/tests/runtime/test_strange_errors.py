"""Exceptions of a mind of their own arrive all the same, and harm nobody else."""

import asyncio
import dataclasses
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

import homeloop
from homeloop import LoopRuntime

DEADLINE = 60.0  # seconds; tells a hang from an answer


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    """Refuses every assignment, also that of its traceback."""

    code: int = 7


class ClosedError(Exception):
    """Does not show its traceback."""

    def __getattribute__(self, name: str) -> object:
        if name == "__traceback__":
            raise ValueError(name)
        return super().__getattribute__(name)


class MuteError(Exception):
    """Cannot be shown."""

    def __repr__(self) -> str:
        raise ValueError("no repr")


class Plain:
    """A manager that does nothing. One made by contextlib assigns a traceback, with ``async with`` as well."""

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *raised: object) -> None: ...


def _ways(runtime: LoopRuntime, error: BaseException) -> list[Callable[[], object]]:
    async def fail() -> None:
        raise error

    async def fail_later() -> AsyncIterator[int]:
        yield 1
        raise error

    def fail_inside() -> None:
        with runtime.enter(Plain()):
            raise error

    return [
        lambda: runtime.run(fail),
        lambda: runtime.submit(fail).result(DEADLINE),
        lambda: asyncio.run(runtime.arun(fail)),
        lambda: list(runtime.iterate(fail_later)),
        fail_inside,
    ]


@pytest.mark.parametrize("kind", [FrozenError, ClosedError, MuteError])
def test_an_odd_exception_arrives_as_it_is(runtime: LoopRuntime, kind: type[Exception]) -> None:
    """The same object, whichever way it goes."""
    for number in range(5):
        error = kind()
        caught: Exception | None = None
        try:  # pytest.raises() would look at the traceback
            _ways(runtime, error)[number]()
        except Exception as raised:
            caught = raised
        assert caught is error
    assert runtime.run(asyncio.sleep, 0, 1, timeout=DEADLINE) == 1


def test_what_an_exit_makes_of_an_exception_comes_out(runtime: LoopRuntime) -> None:
    """``raise NewError from old`` is not taken for Python's own conversion of a StopIteration."""

    class AppError(Exception):
        pass

    @asynccontextmanager
    async def translating() -> AsyncIterator[None]:
        try:
            yield
        except ValueError as low:
            raise AppError("translated") from low

    original = ValueError("low level")
    with pytest.raises(AppError) as caught, runtime.enter(translating()):
        raise original
    assert caught.value.__cause__ is original


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("kind", ["MuteError", "FrozenLimit"])
def test_an_interrupt_is_not_replaced_by_what_the_clean_up_raises(script, kind: str) -> None:  # type: ignore[no-untyped-def]
    """Neither if that cannot be shown, nor if the interrupt takes no notes: then it is an event."""
    ended = script(
        f"""
import asyncio, dataclasses, os, signal, threading
import homeloop
class MuteError(Exception):
    def __repr__(self): raise ValueError("no repr")
@dataclasses.dataclass(frozen=True)
class FrozenLimit(BaseException): pass
def strike(*_): raise KeyboardInterrupt if {kind!r} == "MuteError" else FrozenLimit()
signal.signal(signal.SIGUSR1, strike)
async def fail_to_clean():
    threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGUSR1)).start()
    try: await asyncio.Event().wait()
    finally: raise MuteError
try: homeloop.run(fail_to_clean)
except BaseException as error: print(type(error).__name__, getattr(error, "__notes__", []))
"""
    )
    shown = "<MuteError, whose __repr__ raises ValueError>"
    if kind == "MuteError":
        note = f"while __main__.fail_to_clean() cleaned up after this, it raised {shown}"
        assert (ended.stdout, ended.stderr) == (f"KeyboardInterrupt {[note]}\n", "")
    else:
        assert ended.stdout == "FrozenLimit []\n"
        assert "CleanUpFailed" in ended.stderr
        assert shown in ended.stderr


@pytest.mark.parametrize("error", [ValueError("clean-up"), MuteError()], ids=["plain", "mute"])
def test_the_clean_up_error_of_a_call_nobody_waits_for_is_reported(runtime: LoopRuntime, error: Exception) -> None:
    """What a cancelled future's coroutine raises is an event, and so in the log; the loop goes on."""
    reported, started = threading.Event(), threading.Event()

    class Recorder:
        def notify(self, event: homeloop.Event) -> None:
            if type(event).__name__ == "CleanUpFailed":
                reported.set()

    async def fail_to_clean() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise error

    remove = homeloop.add_instrument(Recorder())
    try:
        future = runtime.submit(fail_to_clean)
        assert started.wait(DEADLINE)
        future.cancel()
        assert reported.wait(DEADLINE)
    finally:
        remove()
    assert runtime.run(asyncio.sleep, 0, 1, timeout=DEADLINE) == 1
