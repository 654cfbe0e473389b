"""What follows the asyncio pool's coroutines: Celery's code, for several at a time."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from celery.utils.log import get_logger

from homeloop.adapters.celery._tracer import RESULT
from homeloop.adapters.celery.pool._job import Job
from homeloop.adapters.celery.pool._results import store
from homeloop.adapters.celery.pool._threads import Threads

logger = get_logger(__name__)

_MOST = 50
"""Results that are stored together. A guess."""

_PATIENCE = 0.005
"""Seconds that the first result of several waits for another one's callbacks to be sent."""


class Aftermath:
    """
    Takes jobs whose coroutines have ended through the rest of their tracers, on threads.

    A thread takes as many as there are up to where their results are to be stored, stores them, then goes on.
    While one job keeps it (in a handler of the user's), other threads take over those that wait behind that one,
    and those that it has taken so far.

    Args:
        app: Celery's.
        threads: Where to work.
        finished: Called with a job and what its tracer has returned.
        failed: Called with a job and what its tracer has raised, or why nobody knows its outcome.
        parted: Called with a job that has ended as it was told to.
    """

    def __init__(
        self,
        app: Any,
        threads: Threads,
        finished: Callable[[Job, Any], None],
        failed: Callable[[Job, BaseException], None],
        parted: Callable[[Job], None],
    ) -> None:
        self._app = app
        self._threads = threads
        self._finished, self._failed, self._parted = finished, failed, parted
        self._batches = bool(app.conf.get("homeloop_pool_batches", True))
        self._ended: deque[Job] = deque()
        self._called = False  # whether a thread is on its way to them
        self._reached: deque[Job] = deque()  # where their results are to be stored
        self._at_result: deque[tuple[Job, bool]] = deque()

    def add(self, job: Job) -> None:
        """Take a job whose coroutine has ended, will not begin, or is lost. Thread: any."""
        self._ended.append(job)
        self._call()

    def _call(self) -> None:
        if not self._called:
            self._called = True
            self._threads.put(self._work)

    def _work(self) -> None:
        self._called = False  # before looking: whoever adds from now on calls another thread
        until = time.monotonic() + _PATIENCE
        while len(self._reached) < _MOST and (not self._reached or time.monotonic() < until):
            try:
                job = self._ended.popleft()
            except IndexError:
                break
            if self._ended or self._reached:
                self._call()  # in case that this one keeps us: what waits behind it, and what is to be stored
            if self._reach_result(job):
                self._reached.append(job)
        reached = self._take_reached()
        stored = self._store(reached)
        self._at_result.extend((job, job in stored) for job in reached)
        self._finish()

    def _take_reached(self) -> list[Job]:
        taken: list[Job] = []
        while len(taken) < _MOST:
            try:
                taken.append(self._reached.popleft())
            except IndexError:
                return taken
        self._call()  # there may be more
        return taken

    def _store(self, jobs: list[Job]) -> frozenset[Job]:
        if self._batches and len(jobs) > 1:
            try:
                return store(self._app, jobs)
            except Exception:
                logger.exception("%d results could not be stored together, now one by one", len(jobs))
        return frozenset()

    def _finish(self) -> None:
        while True:
            try:
                job, is_stored = self._at_result.popleft()
            except IndexError:
                return
            if self._at_result:
                self._threads.put(self._finish)  # likewise
            assert job.steps is not None
            self._run(job, job.steps.finish, is_stored)

    def _reach_result(self, job: Job) -> bool:
        """Take a job from the end of its coroutine on; tell whether it has a result to be stored."""
        assert job.steps is not None
        is_ours = job.decide()
        if is_ours and job.lost is None:
            return self._run(job, job.steps.after, job.replay)
        try:
            job.context.run(job.steps.close)
        except BaseException:  # of a receiver of task_postrun: SystemExit for instance
            logger.exception("task %s[%s] has ended, but not without an error", job.name, job.id)
        if is_ours and job.lost is not None:
            self._failed(job, job.lost)
        else:
            self._parted(job)
        return False

    def _run(self, job: Job, fn: Callable[..., Any], *args: Any) -> bool:
        try:
            result = job.context.run(fn, *args)
        except BaseException as error:
            self._failed(job, error)
            return False
        if result is RESULT:
            return True
        self._finished(job, result)
        return False
