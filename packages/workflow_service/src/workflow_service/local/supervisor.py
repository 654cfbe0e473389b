"""The supervisor: starts processes in order, notices at once when one ends, and stops them in reverse order."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from workflow_service.local.children import HASTENED, Child, Command
from workflow_service.local.errors import ChildDiedError, StopRequestedError
from workflow_service.local.home import Home
from workflow_service.local.records import end_recorded

T = TypeVar("T")

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STRANGER_PATIENCE = 10.0  # seconds a worker that was started by hand has to finish its runs
_LAST_WORDS = 0.5  # seconds: a connection breaks a moment before the kernel reports that its process has ended


class Supervisor:
    """Owns the processes of one home. Use it as an async context manager, on the main thread.

    The home's lock must be held. Entering ends what a dead predecessor left; leaving stops everything, also
    a worker that was started by hand.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self._children: list[Child] = []
        self._vital: dict[Child, Callable[[Child], None] | None] = {}
        self._foundations: set[Child] = set()
        self._hasten = asyncio.Event()
        self._ending: asyncio.Future[None] | None = None
        self._signals: list[signal.Signals] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._ending = loop.create_future()
        loop.add_signal_handler(signal.SIGCHLD, self._collect)
        for number in _STOP_SIGNALS:
            # Ignored means ignored: nohup and background jobs of scripts rely on it.
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._request_stop, number)
                self._signals.append(number)
        await end_recorded(self.home)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            # Shielded: whoever cancels us (a deadline, a second signal) must not leave a server behind.
            stopping = asyncio.ensure_future(self._stop_all())
            while not stopping.done():
                try:
                    await asyncio.shield(stopping)
                except asyncio.CancelledError:
                    self._hasten.set()
            stopping.result()
        finally:
            for number in (*self._signals, signal.SIGCHLD):
                loop.remove_signal_handler(number)
            if self._ending is not None and self._ending.done():
                self._ending.exception()  # seen: an end that came while stopping is no news

    def start(self, command: Command, on_death: Callable[[Child], None] | None = None) -> Child:
        """Start a process and watch it.

        Args:
            command: What to start.
            on_death: Called on the loop when it ends by itself; without it, its end ends ``run``.
        """
        child = Child.start(command, self.home)
        self._children.append(child)
        self._vital[child] = on_death
        self._collect()  # it may have ended before it was on the list
        return child

    def make_vital(self, child: Child) -> None:
        """From now on, the child's end ends ``run``, also if it has just happened.

        What was started after it rests on it: without it the others have nothing to finish, and are stopped in
        haste.
        """
        self._vital[child] = None
        self._foundations.add(child)
        if child.returncode is not None and not child.is_stopping:
            self._report(child)

    async def run_to_end(self, command: Command) -> int:
        """Start a process, wait for it and return its exit code. Cancellation: ends it."""
        child = Child.start(command, self.home)
        child.is_stopping = True  # to end is what it is for
        self._children.append(child)
        self._vital[child] = None
        self._collect()
        try:
            return await child.wait()
        finally:
            await child.stop(self._hasten)
            self._children.remove(child)
            del self._vital[child]

    async def run(self, body: Callable[[], Awaitable[T]]) -> T:
        """Run ``body`` until it returns, a vital process ends, or a signal asks to stop.

        Raises:
            ChildDiedError: A vital process ended; ``body`` was cancelled and has cleaned up.
            StopRequestedError: SIGINT, SIGTERM or SIGHUP came; likewise.
        """
        assert self._ending is not None, "enter the supervisor first"
        ending = self._ending
        task = asyncio.ensure_future(body())
        both: tuple[asyncio.Future[Any], ...] = (task, ending)  # Any: one brings T, the other nothing
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not _has_succeeded(task):
                if task.done():
                    # What failed in body is often only the echo of a process that ended: prefer the cause.
                    await asyncio.wait((ending,), timeout=_LAST_WORDS)
                if ending.done():
                    ending.result()
            return await task
        finally:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()

    def _request_stop(self, number: signal.Signals) -> None:
        assert self._ending is not None
        if self._ending.done():
            self._hasten.set()
        else:
            self._ending.set_exception(StopRequestedError(number))

    def _collect(self) -> None:
        for child in tuple(self._children):
            if child.collect() and not child.is_stopping:
                self._report(child)

    def _report(self, child: Child) -> None:
        on_death = self._vital[child]
        if on_death is not None:
            if child in self._children:
                self._children.remove(child)  # nothing is left to stop, and its pid may soon be somebody else's
            on_death(child)
        elif self._ending is not None and not self._ending.done():
            if child in self._foundations:
                self._hasten.set()
            message = f"{child.obituary()}; the rest is stopped and no run is lost: start the service again"
            self._ending.set_exception(ChildDiedError(message, child.command.log))

    async def _stop_all(self) -> None:
        started = {child.pid for child in self._children}
        patience = HASTENED if self._hasten.is_set() else _STRANGER_PATIENCE
        await end_recorded(self.home, besides=started, patience=patience)
        for child in reversed(self._children):
            await child.stop(self._hasten)


def _has_succeeded(task: asyncio.Future[T]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
