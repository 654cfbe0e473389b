"""The workers: the executor of a loop, whose threads may block in ``run`` without starving it."""

import asyncio
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from homeloop.runtime._blocked import BlockedLoop, blocked_loops
from homeloop.runtime._fork import end_child
from homeloop.runtime._greenlets import leave_thread
from homeloop.runtime._originals import RLock, local, real_threading, use_original_lock

P = ParamSpec("P")
T = TypeVar("T")


class _Here(local):
    job: "Job | None" = None  # of the class: to find nothing on a thread costs ten times as much


_here = _Here()


def current_job() -> "Job | None":
    """Return the job that the calling thread works on; None on any thread that is no worker."""
    return _here.job


def forget_parent() -> None:
    """Forget, in a forked child, the job that the forking thread worked on: it is the parent's."""
    if _here.job is not None:
        _here.job.ends_child = True
    _here.job = None


def _current_task() -> "asyncio.Task[Any] | None":
    return asyncio.current_task() if asyncio._get_running_loop() is not None else None


class Job(Future[Any]):
    """
    A function on its way through a worker; also the future of its result.

    Cancelling it while the worker waits in ``run`` cancels the call it waits for: so an async
    caller that is cancelled while its ``to_thread`` sits in ``run`` takes the coroutine along.
    """

    ends_child = False  # this process was forked by the work, and ends with it

    def __init__(self, workers: "Workers", work: Callable[[], Any]) -> None:
        super().__init__()
        use_original_lock(self)
        self.workers = workers
        self._work: Callable[[], Any] | None = work
        self._guard = RLock()  # re-entered by signal handlers and finalizers
        self._cancel_waits: list[Callable[[], None]] = []  # of a run, and of those in handlers that interrupt it
        self._unwanted = False
        self.blocked: tuple[BlockedLoop, ...] = blocked_loops.get()
        self.asking = _current_task() if self.blocked else None

    def cancel(self) -> bool:
        """Cancel the job if it has not begun, else what it waits for in ``run``, now or the next time."""
        if super().cancel():
            return True
        with self._guard:
            self._unwanted = True
            cancel_waits = tuple(self._cancel_waits)
        for cancel_wait in cancel_waits:
            cancel_wait()
        return False

    @property
    def waits(self) -> int:
        """How many waits of this worker's have begun: of a run, and of those in handlers that interrupt it."""
        return len(self._cancel_waits)

    def begin_wait(self, cancel: Callable[[], None]) -> None:
        """Note that this worker blocks now; another one may take its place."""
        with self._guard:
            self._cancel_waits.append(cancel)
            unwanted, self._unwanted = self._unwanted, False
        if len(self._cancel_waits) == 1:
            self.workers.lose_one()
        if unwanted:
            cancel()

    def end_wait(self, before: int) -> None:
        """Note that this worker goes on."""
        with self._guard:
            if len(self._cancel_waits) <= before:
                return  # `begin_wait` was not reached, or has failed
            self._cancel_waits.pop()
        if not self._cancel_waits:
            self.workers.regain_one()

    def work(self) -> None:
        """Do it, on the worker's thread."""
        work, self._work = self._work, None
        if work is None or not self.set_running_or_notify_cancel():
            return
        _here.job = self
        try:
            result = work()
        except BaseException as error:
            if self.ends_child:
                end_child(error)
            self.set_exception(error)
            del self  # the traceback's frame and the error would keep each other alive
        else:
            if self.ends_child:
                end_child(None)
            self.set_result(result)
        finally:
            _here.job = None


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """
    The threads of one loop's executor.

    Attributes:
        busy: Threads that work now; those that wait in ``run`` do not count.
        size: How many may work at the same time.
        queued: Jobs that wait for a thread.
    """

    busy: int
    size: int
    queued: int


class Workers(ThreadPoolExecutor):
    """
    At most ``size`` threads that work at the same time; those that wait in ``run`` do not count.

    A `ThreadPoolExecutor` by name only, because asyncio insists on one: its own threads are not
    daemons and are waited for without a bound when the interpreter exits. These are daemons; their
    loop waits for them with a bound when it ends.
    """

    def __init__(self, name: str, size: int | None = None) -> None:
        # Deliberately without super().__init__(): nothing of it is used.
        self._name = name
        self._size = size or min(32, (os.cpu_count() or 1) + 4)  # as many as asyncio's own has
        self._threading = real_threading()
        self._lock = self._threading.Condition()
        self._jobs: deque[Job] = deque()
        self._crew: set[Any] = set()  # threads
        self._idle = 0
        self._waiting = 0
        self._closed = False
        self._hired = 0

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Queue a function for a worker; raise RuntimeError after `shutdown`."""
        job = Job(self, lambda: fn(*args, **kwargs))
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._jobs.append(job)
            self._staff()
        return job

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more jobs; cancel those that have not begun, if asked; wait for the others, if asked."""
        with self._lock:
            self._closed = True
            dropped = tuple(self._jobs) if cancel_futures else ()
            self._lock.notify_all()
        for job in dropped:
            job.cancel()
        if wait:
            self.join(None)

    def join(self, timeout: float | None) -> bool:
        """Wait for the workers to leave, at most ``timeout`` seconds altogether; tell whether they have."""
        if timeout is not None:
            timeout = min(timeout, self._threading.TIMEOUT_MAX)
        with self._lock:
            return bool(self._lock.wait_for(lambda: not self._crew, timeout))

    def statistics(self) -> WorkerStatistics:
        """Return what they are doing now. Takes no lock: a signal handler may ask, too."""
        # A thread counts as idle until it has taken what it was woken for, and one that is woken has no job yet.
        queued = len(self._jobs)
        busy = len(self._crew) - self._idle - self._waiting
        return WorkerStatistics(max(0, busy), self._size, queued)

    def lose_one(self) -> None:
        """Count a worker out that begins to wait in ``run``."""
        with self._lock:
            self._waiting += 1
            self._staff()

    def regain_one(self) -> None:
        """Count a worker in that has waited."""
        with self._lock:
            self._waiting -= 1

    def _staff(self) -> None:
        """Have a worker for the oldest job, if one may be had; the lock is held."""
        if len(self._jobs) <= self._idle:  # those woken for earlier jobs still count as idle
            self._lock.notify()
        elif len(self._crew) - self._waiting < self._size:
            worker = self._threading.Thread(target=self._serve, name=f"{self._name}_{self._hired}", daemon=True)
            self._hired += 1
            self._crew.add(worker)
            try:
                worker.start()
            except RuntimeError:  # the interpreter is exiting
                self._crew.discard(worker)
                if not self._crew:
                    self._jobs.clear()
                    raise

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            job.work()
            del job  # or its result would live until the next one comes
        leave_thread()

    def _next(self) -> Job | None:
        with self._lock:
            while True:
                superfluous = len(self._crew) - self._waiting > self._size
                if self._jobs and not superfluous:
                    return self._jobs.popleft()
                if (self._closed and not self._jobs) or superfluous:
                    self._crew.discard(self._threading.current_thread())
                    self._lock.notify_all()
                    return None
                self._idle += 1
                self._lock.wait()
                self._idle -= 1
