"""Threads that do the asyncio pool's blocking work, and the one that watches its clock."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import count
from queue import SimpleQueue
from typing import Any

from celery.utils.log import get_logger

logger: logging.Logger = get_logger(__name__)

Work = Callable[..., object]


class Threads:
    """
    Daemon threads that call what they are given, oldest first.

    Not an executor: what signal handlers may have to wait for must be given without taking a lock, which
    `queue.SimpleQueue` promises and a future does not; and nobody waits for an outcome.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._threads: list[threading.Thread] = []
        self._work: SimpleQueue[tuple[Work, tuple[Any, ...]] | None] = SimpleQueue()

    def __len__(self) -> int:
        return len(self._threads)

    def start(self, number: int) -> None:
        """Start so many threads more. Thread: one at a time."""
        for _ in range(number):
            thread = threading.Thread(target=self._serve, name=f"{self._name}-{len(self)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def put(self, fn: Work, *args: Any) -> None:
        """Have ``fn(*args)`` called on one of the threads. Thread: any, signal handlers included."""
        self._work.put((fn, args))

    def stop(self, timeout: float) -> None:
        """Let the threads finish what they have, and wait for that, at most ``timeout`` seconds. Idempotent."""
        deadline = time.monotonic() + timeout
        threads, self._threads = self._threads, []
        for _ in threads:
            self._work.put(None)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                call(*work)
            except BaseException:  # the thread serves others too
                logger.exception("the asyncio pool was to end in %r", work[0])
            del work  # or it would be kept until the next one comes


def call(fn: Work, args: tuple[Any, ...]) -> None:
    """Call ``fn(*args)``; log the error it raises, as there is nobody to raise it to."""
    try:
        fn(*args)
    except Exception:
        logger.exception("the asyncio pool failed in %r", fn)


@dataclass(order=True, slots=True)
class Alarm:
    """Something to be called at a time, unless it is cancelled before."""

    due: float  # monotonic
    number: int
    fn: Work | None = field(compare=False)
    args: tuple[Any, ...] = field(compare=False)


class Clock:
    """Calls functions at their time, on a thread of its own that no coroutine can block."""

    _FEW = 64  # cancelled alarms that are not worth a clean-up

    def __init__(self, name: str) -> None:
        self._name = name
        self._numbers = count()
        self._alarms: list[Alarm] = []
        self._cancelled = 0
        # Re-entrant: a signal handler may set an alarm while the thread it interrupts is setting one.
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._stopping = False

    def set(self, due: float, fn: Work, *args: Any) -> Alarm:
        """Have ``fn(*args)``, which must not block, called at a time of `time.monotonic`."""
        alarm = Alarm(due, next(self._numbers), fn, args)
        with self._changed:
            heappush(self._alarms, alarm)
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(target=self._watch, name=self._name, daemon=True)
                self._thread.start()
            elif self._alarms[0] is alarm:
                self._changed.notify()
        return alarm

    def cancel(self, alarm: Alarm) -> None:
        """Forget an alarm, and what it refers to; nothing happens if it has been called."""
        with self._changed:
            if alarm.fn is None:
                return
            alarm.fn, alarm.args = None, ()
            self._cancelled += 1
            if self._cancelled > self._FEW and self._cancelled > len(self._alarms) // 2:
                self._alarms = [kept for kept in self._alarms if kept.fn is not None]
                heapify(self._alarms)
                self._cancelled = 0

    def stop(self, timeout: float) -> None:
        """End the thread; alarms that are set are not called. Idempotent."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _watch(self) -> None:
        while (work := self._next()) is not None:
            call(*work)
            del work

    def _next(self) -> tuple[Work, tuple[Any, ...]] | None:
        with self._changed:
            while not self._stopping:
                if not self._alarms:
                    self._changed.wait()
                elif (left := self._alarms[0].due - time.monotonic()) > 0:
                    self._changed.wait(left)
                else:
                    alarm = heappop(self._alarms)
                    if alarm.fn is not None:
                        work, alarm.fn = (alarm.fn, alarm.args), None
                        return work
                    self._cancelled -= 1
        return None
