"""The asyncio pool's coroutines: where they run, and what may end them from outside."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import asyncio
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded, WorkerLostError

from homeloop import LoopRuntime
from homeloop.adapters.celery._body import SoftLimitReached
from homeloop.adapters.celery.pool._job import Job
from homeloop.errors import SelfCancelledError

_NOT_FOR_ASYNCIO = (KeyboardInterrupt, SystemExit, SoftLimitReached)


class JobCoroutine(Coroutine[Any, Any, Any]):
    """
    A job's coroutine, to asyncio and to tools that look at it; made by its first step, on the loop.

    Two things do not pass: the cancellation for a soft time limit arrives as `SoftLimitReached`, and
    what asyncio would misread ends the coroutine alone.

    Attributes:
        unspoken: What it has raised that asyncio would end the loop with, or take for a cancellation.
        cancellation: What it has raised to say that it is cancelled.
        outcome: What it has returned, in a tuple of one; asyncio drops it if a cancellation is requested.
        is_due: Whether the next cancellation is the soft time limit's.
    """

    def __init__(self, job: Job) -> None:
        self.__name__ = self.__qualname__ = job.name
        self._job = job
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self.unspoken: BaseException | None = None
        self.cancellation: BaseException | None = None
        self.outcome: tuple[Any] | None = None
        self.is_due = False

    def send(self, value: Any) -> Any:
        coroutine = self._coroutine
        try:
            if coroutine is None:
                coroutine = self._coroutine = self._job.make_coroutine()
            return coroutine.send(value)
        except StopIteration as end:
            self.outcome = (end.value,)
            raise
        except _NOT_FOR_ASYNCIO as error:
            self.unspoken = error
        except asyncio.CancelledError as error:
            self.cancellation = error
            raise
        raise StopIteration

    def throw(self, error: Any, *_: Any) -> Any:
        if self.is_due and isinstance(error, asyncio.CancelledError) and self._job.ending is None:
            self.is_due = False
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()  # from now on an exception to handle, and no request to end
            error = SoftLimitReached(self._job.soft_limit)
        if self._coroutine is None:
            raise error
        try:
            return self._coroutine.throw(error)
        except StopIteration as end:
            self.outcome = (end.value,)
            raise
        except _NOT_FOR_ASYNCIO as unspoken:
            self.unspoken = unspoken
        except asyncio.CancelledError as cancellation:
            self.cancellation = cancellation
            raise
        raise StopIteration

    def close(self) -> None:
        if self._coroutine is not None:
            self._coroutine.close()

    def __await__(self) -> Any:
        return (yield from self._coroutine.__await__()) if self._coroutine is not None else None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("cr_") and self._coroutine is not None:
            return getattr(self._coroutine, name)
        raise AttributeError(name)


class Bodies:
    """
    Runs jobs' coroutines on a runtime's loop, each as a task of its own in its job's context.

    Serves one loop: when that has ended, all that ran there are lost, and another `Bodies` is due.

    Args:
        runtime: Whose loop.
        ended: Called when a job's coroutine has ended, perhaps before it began, or is lost. On the
            loop's thread; or, if it is lost, on any.
        warned: Called when a job has reached its soft time limit. On the loop's thread.

    Raises:
        RuntimeClosedError, RuntimeDiedError: There is no loop.
    """

    def __init__(self, runtime: LoopRuntime, ended: Callable[[Job], None], warned: Callable[[Job], None]) -> None:
        self._runtime = runtime
        self._ended = ended
        self._warned = warned
        self._inbox: deque[Job] = deque()
        self._woken = False
        self._running: dict[Job, asyncio.Task[Any]] = {}
        self._loop, self._thread = runtime.run(_here)
        self._keeper: Future[None] = runtime.submit(_stay)  # ends with the loop, whatever ends that
        self._keeper.add_done_callback(self._lose)

    @property
    def is_over(self) -> bool:
        """Whether the loop has ended."""
        return self._keeper.done()

    def begin(self, job: Job) -> None:
        """Run a job's coroutine. A burst of them costs one wake-up. Thread: any."""
        self._inbox.append(job)
        if not self._woken:
            self._woken = True
            self._post(self._pump)
        # Looked at after the append: what ends the loop first is done, then takes what is there.
        if self._keeper.done():
            self._lose(self._keeper)

    def cancel(self, job: Job) -> None:
        """End a job's coroutine, for the reason that is its `ending`. Thread: any, signal handlers included."""
        self._post(self._cancel, job)

    def stuck_at(self, job: Job) -> str:
        """Tell where a job that does not end is: what blocks its loop, or where its coroutine stays."""
        if job.is_cancelled:
            return f"it does not end: {self._running.get(job)!r}"
        frame = sys._current_frames().get(self._thread)
        return "its loop is blocked at\n" + "".join(traceback.format_stack(frame))

    def close(self) -> None:
        """Leave the loop to itself. Idempotent."""
        self._keeper.cancel()

    def _post(self, fn: Callable[..., object], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(fn, *args)
        except RuntimeError:  # the loop is closed, which the keeper tells
            pass

    # -- on the loop's thread ---------------------------------------------------------------------

    def _pump(self) -> None:
        self._woken = False  # before looking: whoever appends from now on wakes us again
        while self._inbox:
            self._start(self._inbox.popleft())

    def _start(self, job: Job) -> None:
        if job.ending is not None:
            self._ended(job)
            return
        body = JobCoroutine(job)
        try:
            # Out of any step of that context: a context is entered by one thread at a time.
            task = self._loop.create_task(body, name=f"{job.name}[{job.id}]", context=job.context)
        except Exception as error:  # a task factory of the user's
            job.error = error
            self._ended(job)
            return
        self._running[job] = task
        limit: asyncio.TimerHandle | None = None
        if job.soft_limit is not None:
            left = job.accepted_at + job.soft_limit - time.monotonic()
            limit = self._loop.call_later(max(0.0, left), self._soften, job, body, task)
        task.add_done_callback(lambda _: self._done(job, body, task, limit))

    def _soften(self, job: Job, body: JobCoroutine, task: "asyncio.Task[Any]") -> None:
        if job.ending is None and not task.done():
            body.is_due = True
            task.cancel()
            self._warned(job)

    def _cancel(self, job: Job) -> None:
        job.is_cancelled = True
        task = self._running.get(job)
        if task is not None:
            task.cancel()

    def _done(
        self, job: Job, body: JobCoroutine, task: "asyncio.Task[Any]", limit: asyncio.TimerHandle | None
    ) -> None:
        if limit is not None:
            limit.cancel()
        if self._running.pop(job, None) is None:
            return  # given up for lost
        if body.outcome is not None:
            job.value = body.outcome[0]
        elif body.unspoken is None and task.cancelled():
            if self._runtime.is_closed:
                job.lost = self._lost()
            job.error = SelfCancelledError(job.name)  # not looked at if somebody has asked for it
            job.error.__cause__ = body.cancellation
        else:
            job.error = _for_celery(body.unspoken or task.exception())
        self._ended(job)

    # -- the end ----------------------------------------------------------------------------------

    def _lose(self, _: "Future[None]") -> None:
        jobs = [*self._running, *self._inbox]
        for job in jobs:
            if self._running.pop(job, None) is not None or _taken(self._inbox, job):
                job.lost = self._lost()
                self._ended(job)

    def _lost(self) -> WorkerLostError:
        state = "was closed" if self._runtime.is_closed else "has ended"
        return WorkerLostError(f"the loop of runtime {self._runtime.name!r} {state} under the task")


async def _here() -> tuple[asyncio.AbstractEventLoop, int]:
    return asyncio.get_running_loop(), threading.get_ident()


async def _stay() -> None:
    await asyncio.Event().wait()


def _for_celery(error: Any) -> BaseException:
    """Return the error as the tracer is to see it: without our frame, a soft limit as Celery's own exception."""
    frames = error.__traceback__
    if frames is not None and frames.tb_frame.f_globals is globals():
        error.__traceback__ = frames.tb_next
    if isinstance(error, SoftLimitReached):
        error = SoftTimeLimitExceeded(*error.args).with_traceback(error.__traceback__)
    return error  # type: ignore[no-any-return]


def _taken(jobs: "deque[Job]", job: Job) -> bool:
    try:
        jobs.remove(job)
    except ValueError:  # somebody was faster
        return False
    return True
