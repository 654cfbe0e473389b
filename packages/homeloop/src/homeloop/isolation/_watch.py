"""The watch: notices, from the executor's own loop, that work keeps its loop from running."""

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import Context

from homeloop._events import LoopBlocked, emit
from homeloop.errors import LifecycleError
from homeloop.isolation._enclosure import Enclosure
from homeloop.isolation._tier import Work
from homeloop.runtime import (
    LoopRuntime,
    allocate_lock,
    forget_in_child,
    get_ident,
    loop_affinity,
    task_context,
    thread_stack,
)

_LINGER = 4  # looks that the watch still takes when there is nothing left to see, before it ends


class _Pulse:
    """One watched loop: when it was asked for a sign of life, and what runs on it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.home = loop_affinity(loop)
        self.thread_ident = get_ident()
        self.asked: float | None = None  # monotonic
        self.told = False
        self.runs: dict[Work, Enclosure] = {}

    def answer(self) -> None:
        self.asked = None
        self.told = False


class Watch:
    """
    Asks every loop with isolated work on it for a sign of life, a few times a second.

    Args:
        home: Where the watch itself runs; no user code does.
        threshold: Seconds without an answer after which a loop counts as blocked.
        housekeep: Called at every look, at least once after each `begin`; returns whether it wants to be again.

    Thread: any.
    """

    def __init__(self, home: LoopRuntime, threshold: float, housekeep: Callable[[], bool]) -> None:
        self._home = home
        self._threshold = threshold
        self._housekeep = housekeep
        self._pulses: dict[asyncio.AbstractEventLoop, _Pulse] = {}
        self._lock = allocate_lock()
        self._is_looking = False
        forget_in_child(self)

    @contextmanager
    def over(self, loop: asyncio.AbstractEventLoop, work: Work, enclosure: Enclosure) -> Generator[None]:
        """Watch the running loop while the work runs on it."""
        with self._lock:
            pulse = self._pulses.get(loop)
            if pulse is None:
                pulse = self._pulses[loop] = _Pulse(loop)
            pulse.runs[work] = enclosure
        self.begin()
        try:
            yield
        finally:
            with self._lock:
                del pulse.runs[work]  # the pulse stays, for the next run, until the watch looks

    def begin(self) -> None:
        """Have the watch look, if it does not already: it notes that it ends before it looks a last time."""
        with self._lock:
            if self._is_looking:
                return
            self._is_looking = True
        try:
            Context().run(self._home.submit, self._look_on)  # it belongs to no work
        except BaseException as error:
            self._is_looking = False
            if not isinstance(error, LifecycleError):  # the executor is closed, or the interpreter is exiting
                raise

    def forget_parent(self) -> None:
        """Watch nothing, in a forked child: the loops stayed with the parent. Called by the fork hook."""
        self._lock = allocate_lock()
        self._pulses = {}
        self._is_looking = False

    async def _look_on(self) -> None:
        idle = 0
        try:
            while idle < _LINGER:
                await asyncio.sleep(self._threshold / 2)
                with self._lock:
                    pulses = tuple(self._pulses.values())
                for pulse in pulses:
                    self._look(pulse)
                idle = 0 if self._housekeep() or self._pulses else idle + 1
        finally:
            self._is_looking = False
            if self._pulses:  # one came in after the last look
                self.begin()
        if self._housekeep():
            self.begin()

    def _look(self, pulse: _Pulse) -> None:
        now = time.monotonic()
        if not pulse.runs:
            with self._lock:
                if not pulse.runs:
                    self._pulses.pop(pulse.loop, None)
            return
        if pulse.asked is None:
            pulse.asked = now
            try:
                pulse.loop.call_soon_threadsafe(pulse.answer)
            except RuntimeError:  # closed under its work
                with self._lock:
                    self._pulses.pop(pulse.loop, None)
        elif not pulse.told and now - pulse.asked >= self._threshold:
            pulse.told = True
            self._tell(pulse, now - pulse.asked)

    def _tell(self, pulse: _Pulse, seconds: float) -> None:
        blocked_at = thread_stack(pulse.thread_ident, _FRAMES)
        with self._lock:
            runs = dict(pulse.runs)
        task = asyncio.current_task(pulse.loop)
        context = None if task is None else task_context(task)
        for work, enclosure in runs.items():
            if enclosure.holds(context):  # others on the same loop are its victims
                work.signs.blocked = True
                emit(LoopBlocked(work.context_id, work.tier.value, work.name, pulse.home, seconds, blocked_at))


_FRAMES = 8  # of the blocking stack
