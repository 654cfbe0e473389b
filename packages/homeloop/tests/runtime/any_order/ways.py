"""The ways to call: threads and loops that stay, and answers that can be looked at."""

import asyncio
import concurrent.futures
import contextvars
import faulthandler
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum, auto

from acts import BOUND, BoomError, LateError, Thing, user
from loops import new_loop

from homeloop.errors import (
    CallTimeoutError,
    DeadlockError,
    OverloadedError,
    RuntimeClosedError,
    RuntimeDiedError,
    WrongThreadError,
)


class Way(Enum):
    """How a function is called."""

    MAIN = auto()  # run() on the main thread
    RUN = auto()  # run() on another thread
    ARUN = auto()  # arun() on a foreign loop
    SUBMIT = auto()
    NESTED = auto()  # arun() on the loop of a runtime
    SANDWICH = auto()  # run() on a worker of a runtime's loop


class InterruptError(Exception):
    """What a signal handler raises in the waiting thread."""


_LABELS: dict[type[BaseException], str] = {
    InterruptError: "interrupted",
    OverloadedError: "overloaded",
    RuntimeClosedError: "closed",
    RuntimeDiedError: "died",
    WrongThreadError: "wrong thread",
    DeadlockError: "deadlock",
    StopIteration: "over",
    asyncio.CancelledError: "cancelled",
    concurrent.futures.CancelledError: "cancelled",
}
_GIVING = {BoomError: "boom", LateError: "late", SystemExit: "exit"}


class Answer:
    """
    A caller, in a context of its own, and where its outcome arrives.

    Attributes:
        future: The outcome.
        blocked: Whether the outcome says that the loop could not take the cancellation.
    """

    def __init__(self, gift: Thing) -> None:
        self.future: Future[Thing] = Future()
        self.blocked = False
        self._context = contextvars.copy_context()
        self._context.run(user.set, gift)
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, submit: "Callable[[], Future[Thing]]") -> None:
        """Submit, and have the outcome arrive in that future."""
        try:
            self.future = self._context.run(submit)
        except BaseException as error:
            self.future.set_exception(error)

    def take(self, call: Callable[[], Thing]) -> None:
        """Call here and now, and keep the outcome."""
        try:
            result = self._context.run(call)
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)

    async def _take_async(self, call: Callable[[], Awaitable[Thing]]) -> None:
        try:
            result = await call()
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)

    async def take_here(self, call: Callable[[], Awaitable[Thing]]) -> None:
        """Await a call in a task of the running loop, and keep the outcome."""
        await asyncio.get_running_loop().create_task(self._take_async(call), context=self._context)

    def take_on(self, loop: asyncio.AbstractEventLoop, call: Callable[[], Awaitable[Thing]]) -> None:
        """Have a task of a loop await a call, and keep the outcome; `cancel` cancels that task. Thread: any."""
        self._loop = loop
        loop.call_soon_threadsafe(self._start, call)

    def _start(self, call: Callable[[], Awaitable[Thing]]) -> None:
        self._task = asyncio.get_running_loop().create_task(self._take_async(call), context=self._context)
        self._task.add_done_callback(self._forget)

    def changed(self, value: Thing) -> bool:
        """Tell whether the context variable was changed to that value for the caller."""
        return self._context.get(user) is value

    def _forget(self, _: object) -> None:
        self._task = None
        if not self.future.done():  # cancelled before its first step
            self.future.set_exception(asyncio.CancelledError())

    def cancel(self) -> bool:
        """Cancel the submitted future, or the task that awaits; tell whether it was in time."""
        if self._loop is None:
            return self.future.cancel()
        self._loop.call_soon_threadsafe(self._cancel_task)
        return True

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def wait(self) -> None:
        """Wait until the outcome is there."""
        _, late = concurrent.futures.wait((self.future,), BOUND)
        if late:
            faulthandler.dump_traceback()
            raise AssertionError("the caller was not answered")

    def forget(self) -> None:
        """Let go of the outcome: an error that is kept refers, through its frames, to who keeps it."""
        self.future = Future()
        self.forget_context()

    def forget_context(self) -> None:
        """Let go of the caller's context."""
        self._context = contextvars.Context()

    def label(self, gift: Thing) -> str:
        """Name the outcome; the result and what an error carries must be the very argument."""
        self.wait()
        try:
            error = self.future.exception()
        except concurrent.futures.CancelledError:
            return "cancelled"
        try:
            if error is None:
                assert self.future.result() is gift, "another object came back"
                return "value"
            kind = type(error)
            if kind in _GIVING:
                assert error.args[0] is gift, "another object came back in the error"
                return _GIVING[kind]
            if isinstance(error, CallTimeoutError):
                self.blocked = bool(error.blocked_at)
                return "abandoned" if error.abandoned else "timed out"
            if kind not in _LABELS:
                raise AssertionError(f"an outcome that nothing explains: {error!r}") from error
            return _LABELS[kind]
        finally:
            del error


class Foreign:
    """A loop that is none of homeloop's, on a thread of its own, kept for the life of the process."""

    def __init__(self, kind: str) -> None:
        self.loop = new_loop(kind)
        threading.Thread(target=self.loop.run_forever, name=f"foreign {kind}", daemon=True).start()

    def arun(self, answer: Answer, call: Callable[[], Awaitable[Thing]]) -> None:
        """Await a call in a task there; return once it has handed it over."""
        answer.take_on(self.loop, call)
        self.settle()

    def do(self, work: Callable[[], object]) -> "Future[object]":
        """Call a function on the loop's thread, which blocks the loop as long as it blocks."""
        done: Future[object] = Future()

        def body() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        self.loop.call_soon_threadsafe(body)
        return done

    def settle(self) -> None:
        """Wait until the loop has begun what was posted before, and done its first step."""
        for _ in range(2):
            passed = threading.Event()
            self.loop.call_soon_threadsafe(passed.set)
            assert passed.wait(BOUND), "the foreign loop does not turn"


class Clients:
    """Threads that call, kept for the life of the process."""

    COUNT = 24

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.COUNT, thread_name_prefix="client")
        all_here = threading.Barrier(self.COUNT)
        for hired in [self._pool.submit(all_here.wait, BOUND) for _ in range(self.COUNT)]:
            hired.result(BOUND)

    def do(self, work: Callable[[], object]) -> "Future[object]":
        """Call a function on one of the threads."""
        return self._pool.submit(work)
