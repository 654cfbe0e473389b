"""
A Celery worker pool that runs thousands of ``async def`` tasks in one process, on one event loop.

``CELERY_CUSTOM_WORKER_POOL=homeloop.adapters.celery.pool:TaskPool celery worker --pool custom --concurrency 1000``

A task takes a thread only while Celery's own code runs for it, before and after its coroutine. Tested
with Celery 5.7.
"""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import inspect
import threading
import time
from collections import deque
from contextvars import copy_context
from functools import partial
from itertools import count
from typing import Any

from celery.concurrency.base import BasePool
from celery.exceptions import Terminated, WorkerLostError
from celery.utils.log import get_logger
from kombu.asynchronous import get_event_loop

from homeloop import LoopRuntime, default_runtime
from homeloop.adapters.celery._handles import Handle, handles
from homeloop.adapters.celery._stacks import app_of
from homeloop.adapters.celery._tracer import BODY, Tracers
from homeloop.adapters.celery._worker import grace_of
from homeloop.adapters.celery.pool._aftermath import Aftermath
from homeloop.adapters.celery.pool._bodies import Bodies
from homeloop.adapters.celery.pool._desk import HubDesk, ThreadDesk
from homeloop.adapters.celery.pool._job import Callbacks, HardLimitError, Job
from homeloop.adapters.celery.pool._threads import Clock, Threads, call
from homeloop.adapters.celery.pool._transports import receive_many
from homeloop.errors import AdapterError, HomeloopError

__all__ = ("TaskPool",)

logger = get_logger(__name__)

_BLOCKED = 0.5
"""A loop that has not even taken a cancellation after this many seconds counts as blocked, as in the runtime."""

_STOP_BOUND = 5.0
"""Seconds that threads get to end when the pool has stopped. A guess."""


class TaskPool(BasePool):  # type: ignore[misc]  # Celery ships no types
    """
    Runs async tasks on their runtime's loop and sync ones on threads, ``limit`` of all of them at a time.

    Settings of the app, besides Celery's own: ``homeloop_pool_threads``, for Celery's code around the coroutines
    (8), ``homeloop_pool_sync_threads``, how many sync tasks may run at a time (64, at most ``limit``), and
    ``homeloop_pool_batches``, whether messages, acknowledgements and results go over Redis many at a time (True).

    Thread: the desk's (see `HubDesk`) for every method with an underscore that does not say otherwise.
    """

    app: Any
    limit: int
    body_can_be_buffer = True
    signal_safe = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pids = count(1)
        self._waiting: deque[Job] = deque()
        self._running: dict[int, Job] = {}
        self._by_id: dict[str, Job] = {}  # those of them that began last
        self._on_threads = 0
        self._bodies: dict[LoopRuntime, Bodies] = {}
        self._opening = threading.Lock()
        self._tracers = Tracers(self.app)
        if self.app.conf.get("homeloop_pool_batches", True):
            receive_many()  # before the worker's consumer connects

    # -- what Celery calls ------------------------------------------------------------------------

    def on_start(self) -> None:
        """
        Start the threads.

        Raises:
            AdapterError: A task is a coroutine function that Celery would take for a sync one.
        """
        for task in self.app.tasks.values():
            if inspect.iscoroutinefunction(task.run):
                reason = "is async def, but Celery does not know; call homeloop.adapters.celery.install(app)"
                raise AdapterError(f"{task.name} {reason} right after Celery()")
        conf = self.app.conf
        self._sync_limit = conf.get("homeloop_pool_sync_threads", 64)
        self._context = copy_context()  # of the modules that were imported; each job gets a copy
        self._threads, self._sync = Threads("homeloop-pool"), Threads("homeloop-pool-sync")
        self._threads.start(conf.get("homeloop_pool_threads", 8))
        self._clock = Clock("homeloop-pool-clock")
        has_hub = not self.options.get("threads", True)
        self._desk: HubDesk | ThreadDesk = HubDesk(get_event_loop()) if has_hub else ThreadDesk()
        told = (partial(self._desk.post, fn) for fn in (self._finish, self._fail, self._part))
        self._aftermath = Aftermath(self.app, self._threads, *told)

    def register_with_event_loop(self, loop: Any) -> None:
        """Keep the books on the thread of a hub that is about to run."""
        self._desk.attach(loop)

    def on_apply(
        self,
        target: Any,
        args: Any = None,
        kwargs: Any = None,
        callback: Any = None,
        accept_callback: Any = None,
        timeout_callback: Any = None,
        error_callback: Any = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> Job:
        """Take a task; it begins as soon as there is room. Thread: the desk's, if that is the hub's."""
        callbacks = Callbacks(accept_callback, callback, error_callback, timeout_callback)
        limits = soft_timeout or self.options.get("soft_timeout"), timeout or self.options.get("timeout")
        whole = partial(target, **kwargs) if kwargs else target
        job = Job(next(self._pids), whole, tuple(args), callbacks, limits, self._end, self._context.copy())
        self._desk.now(self._arrive, job)
        return job

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """End a running task. Thread: any."""
        job = self._running.get(pid)
        if job is not None:
            job.terminate(signal)

    def grow(self, n: int = 1) -> None:
        """Let ``n`` tasks more run at a time. Thread: any."""
        self.limit += n
        self._desk.post(self._fill)

    def shrink(self, n: int = 1) -> None:
        """Let ``n`` tasks less run at a time, but one at least; those that run go on. Thread: any."""
        self.limit = max(1, self.limit - n)

    def flush(self) -> None:
        """Forget what waits: the connection is lost, and the broker will deliver it again."""
        self._forget()

    def on_close(self) -> None:
        """Begin nothing more; what waits stays with the broker."""
        self._forget()

    def on_stop(self) -> None:
        """
        Wait until what runs has ended, and end the threads. Idempotent.

        Thread: the worker's main one; for a cold shutdown a signal handler calls it in the middle of itself.
        """
        self._forget()
        self._desk.work_until(lambda: not self._running)
        self._close()

    def on_terminate(self) -> None:
        """Cancel what runs, wait for its clean-up, within its runtime's grace, and end the threads."""
        self._forget()
        for job in list(self._running.values()):
            job.callbacks = Callbacks()  # it stays with the broker if it was not acknowledged
            job.terminate()
        deadline = time.monotonic() + _STOP_BOUND
        self._desk.work_until(lambda: len(self._running) <= self._on_threads or time.monotonic() > deadline)
        self._close()

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        threads = {"around-coroutines": len(self._threads), "sync-tasks": len(self._sync)}
        return {**info, "running": len(self._running), "waiting": len(self._waiting), "threads": threads}

    # -- a job's way ------------------------------------------------------------------------------

    def _arrive(self, job: Job) -> None:
        if self._state == self.RUN:
            self._waiting.append(job)
            self._fill()

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self.limit:
            call(self._begin, (self._waiting.popleft(),))

    def _forget(self) -> None:
        self._waiting.clear()
        for job in list(self._running.values()):
            job.next = None

    def _begin(self, job: Job) -> None:
        before = self._by_id.get(job.id)
        if before is not None and before.is_decided and before.next is None:
            # A retry that has come back before the attempt that has sent it is stored as such. Were it to succeed
            # meanwhile, that would be overwritten: Celery looks first and writes then.
            before.next = job
            return
        if job.callbacks.is_revoked():
            return
        task = self.app.tasks[job.name]
        tracer = self._tracers.of(task)
        if tracer is not None:
            job.split(tracer.function)
        job.context.run(app_of(task).__enter__)
        job.accepted_at = time.monotonic()
        job.callbacks.accept(job.pid, job.accepted_at)
        # Handed on before it counts: a signal handler that waits for all that counts must not wait for what it
        # has interrupted.
        if tracer is not None:
            self._threads.put(self._before, job, task)
            if job.hard_limit is not None and job.alarm is None:
                job.alarm = self._clock.set(job.accepted_at + job.hard_limit, self._end, job, HardLimitError())
        else:
            if getattr(task, "is_async", False):
                job.handle = handles[job.id] = Handle()
            self._on_threads += 1
            if len(self._sync) < min(self._on_threads, self._sync_limit):
                self._sync.start(1)
            self._sync.put(self._run_whole, job)
        self._running[job.pid] = job
        self._by_id[job.id] = job

    def _before(self, job: Job, task: Any) -> None:
        """Do what precedes the coroutine. Thread: one of the pool's."""
        assert job.steps is not None
        if job.ending is not None:
            self._aftermath.add(job)
            return
        try:
            result = job.context.run(job.steps.before)
        except BaseException as error:
            self._desk.post(self._fail, job, error)
            return
        if result is not BODY:
            self._desk.post(self._finish, job, result)
            return
        try:
            job.bodies = self._open_bodies(task.runtime or default_runtime())
        except HomeloopError as error:
            job.lost = WorkerLostError(str(error))
            self._aftermath.add(job)
        else:
            job.bodies.begin(job)

    def _open_bodies(self, runtime: LoopRuntime) -> Bodies:
        bodies = self._bodies.get(runtime)
        if bodies is None or bodies.is_over:
            with self._opening:
                bodies = self._bodies.get(runtime)
                if bodies is None or bodies.is_over:
                    bodies = self._bodies[runtime] = Bodies(runtime, self._aftermath.add, self._warn)
        return bodies

    def _warn(self, job: Job) -> None:
        self._desk.post(job.callbacks.warn, job.soft_limit)

    def _run_whole(self, job: Job) -> None:
        """Run a job from start to end. Thread: one of those for sync tasks."""
        try:
            result = job.context.run(job.target, *job.message)
        except BaseException as error:
            self._desk.post(self._fail, job, error)
        else:
            self._desk.post(self._finish, job, result)

    # -- a job's end ------------------------------------------------------------------------------

    def _end(self, job: Job, reason: BaseException) -> None:
        """End a running job's coroutine, unless its outcome is known. Thread: any, signal handlers too."""
        if job.accepted_at == 0.0:
            return  # it will not begin: Celery has noted that it is revoked
        if job.steps is None:
            self._end_on_thread(job)
            return
        if not job.decide():
            return
        job.ending = reason
        if job.alarm is not None:
            self._clock.cancel(job.alarm)
        grace = grace_of(self.app.tasks[job.name].runtime)
        job.alarm = self._clock.set(
            time.monotonic() + min(_BLOCKED, grace), self._desk.post, self._look, job, grace
        )
        if job.bodies is not None:  # else it will see `ending` before it begins
            job.bodies.cancel(job)

    def _end_on_thread(self, job: Job) -> None:
        if job.handle is not None:
            job.handle.terminate()
        else:
            logger.warning("task %s[%s] is sync and cannot be ended; it runs on", job.name, job.id)

    def _finish(self, job: Job, result: Any) -> None:
        if self._leave(job):
            job.callbacks.finish(result)

    def _fail(self, job: Job, error: BaseException) -> None:
        if self._leave(job):
            job.callbacks.fail(error)

    def _part(self, job: Job) -> None:
        """A job has ended as it was told to."""
        if self._leave(job):
            self._tell(job)

    def _tell(self, job: Job) -> None:
        if job.told:
            return
        job.told = True
        if isinstance(job.ending, Terminated):
            job.callbacks.fail(job.ending)
        else:
            job.callbacks.time_out(job.hard_limit)

    def _look(self, job: Job, grace: float) -> None:
        """A job was to end a moment ago: its failure waits no longer, its clean-up may go on for the grace."""
        if job.pid not in self._running:
            return
        if not job.is_cancelled:
            self._report(job)
        if isinstance(job.ending, HardLimitError):
            self._tell(job)
        left = max(0.0, grace - _BLOCKED)
        job.alarm = self._clock.set(time.monotonic() + left, self._desk.post, self._abandon, job)

    def _abandon(self, job: Job) -> None:
        """A job does not end: its place is given to another one."""
        if job.pid in self._running:
            self._report(job)
            self._part(job)

    def _report(self, job: Job) -> None:
        where = job.bodies.stuck_at(job) if job.bodies is not None else "Celery's own code does not return"
        logger.error("task %s[%s] was to end and has not; %s", job.name, job.id, where)

    def _leave(self, job: Job) -> bool:
        """Free a job's place; tell whether it had one still."""
        if self._running.pop(job.pid, None) is None:
            return False
        if self._by_id.get(job.id) is job:
            del self._by_id[job.id]
        if job.next is not None:
            self._waiting.appendleft(job.next)
            job.next = None
        self._on_threads -= job.steps is None
        if job.alarm is not None:
            self._clock.cancel(job.alarm)
        self._desk.post(self._fill)
        return True

    def _close(self) -> None:
        """End what `on_start` has started. Idempotent."""
        deadline = time.monotonic() + _STOP_BOUND
        for bodies in self._bodies.values():
            bodies.close()
        for part in (self._threads, self._sync, self._clock):
            part.stop(max(0.0, deadline - time.monotonic()))
        self._desk.stop()
