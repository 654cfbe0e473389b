"""The tiers that stay on the caller's loop: none at all, and a context of its own."""

import asyncio
from contextvars import copy_context
from functools import partial
from typing import Any

from homeloop._events import CallAbandoned, CleanUpFailed, emit
from homeloop.errors import CallTimeoutError
from homeloop.isolation._enclosure import Enclosure
from homeloop.isolation._function import awaitable
from homeloop.isolation._progress import begin_reporting, current_report, restore_reporting
from homeloop.isolation._tier import Errand, Signs, Work, scope_left
from homeloop.isolation._watch import Watch
from homeloop.runtime import Call, await_chain, finish_call, outcome, outlast, set_done


class NoRoom:
    """Tier none: a plain await in the caller's task and context, with a time-out and progress."""

    async def run(self, work: Work, last: bool) -> Any:
        """Do the work; it is not kept apart from anything."""
        work.start()
        before = current_report()
        call = begin_reporting(work.fn, work.args, work.progress.reporter)
        try:
            return await _within(work, call)
        finally:
            restore_reporting(before)

    async def aclose(self) -> Signs:
        """Nothing is open."""
        return Signs()


async def _within(work: Work, call: Any) -> Any:
    """Await with a time-out in the same task, and say where it waited."""
    if work.timeout is None:
        return await awaitable(call(), work.name)
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    waiting_at: tuple[str, ...] = ()

    def expire() -> None:
        nonlocal waiting_at
        if task is not None:
            waiting_at = await_chain(task)
        limit.reschedule(loop.time())

    limit = asyncio.timeout(None)
    try:
        async with limit:
            timer = loop.call_later(max(0.0, work.timeout), expire)
            try:
                return await awaitable(call(), work.name)
            finally:
                timer.cancel()
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise CallTimeoutError(work.name, work.timeout, waiting_at) from error.__cause__


class ContextRoom:
    """Tier context: an enclosure on the caller's loop; every run is a task of its own in it."""

    def __init__(self, watch: Watch, grace: float, sweep: float) -> None:
        self._watch = watch
        self._grace = grace
        self._sweep = sweep
        self._enclosure: Enclosure | None = None

    async def run(self, work: Work, last: bool) -> Any:
        """Do the work on the running loop, which must be the same for all runs of the room."""
        loop = asyncio.get_running_loop()
        if self._enclosure is None:
            self._enclosure = Enclosure(work.context_id, work.tier.value, self._sweep, exclusive=False)
        enclosure = self._enclosure
        call = Call(Errand(work, partial(live, enclosure), last), (), copy_context(), counted=False)
        with self._watch.over(loop, work, enclosure):
            return await attend(call, work, self._grace)

    async def aclose(self) -> Signs:
        """End what is left; the resources that were opened inside are closed."""
        signs = Signs()
        if self._enclosure is not None:
            self._enclosure.signs = signs
            await self._enclosure.aclose()
        return signs


async def live(enclosure: Enclosure, work: Work, last: bool) -> Any:
    """
    Do the work in an enclosure of the running loop, in the current task; end that if it is the last.

    Raises:
        RuntimeError: The enclosure has ended before this task took its first step.
    """
    if enclosure.is_ending:
        raise scope_left(work)
    enclosure.signs = work.signs
    work.start()
    try:
        return await enclosure.run(work.name, begin_reporting(work.fn, work.args, work.progress.reporter))
    finally:
        if last:
            await enclosure.end()


async def attend(call: "Call[Any]", work: Work, grace: float) -> Any:
    """
    Run a call in a task of the running loop and wait for it, as a runtime does for callers elsewhere.

    Raises:
        CallTimeoutError: The work's timeout passed. The call was cancelled, and has ended unless the
            error's ``abandoned`` is true.
    """
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[None] = loop.create_future()
    call.reply = partial(set_done, answered)
    task = loop.create_task(call.drive(finish_call), context=call.context)
    if not call.finished:  # an eager task factory may have run it to its end
        call.task = task
        if not call.driven:
            call.undriven = partial(_ended, call)
            task.add_done_callback(call.undriven)
    try:
        if work.timeout is None:
            await answered
        else:
            await asyncio.wait((answered,), timeout=work.timeout)
        if not answered.done():
            call.cancel()
            if await outlast(answered, grace) is not None:
                raise asyncio.CancelledError
            if not call.finished or isinstance(call.error, asyncio.CancelledError):
                raise _timed_out(call, work)
    except asyncio.CancelledError:
        call.cancel()
        if answered.cancelled() and not call.finished:  # it was awaited, and went with us
            answered = loop.create_future()
            call.reply = partial(set_done, answered)
        await outlast(answered, grace)
        if not call.finished:
            _give_up(call, work)
        elif isinstance(error := call.take_error(), Exception):
            emit(CleanUpFailed(work.tier.value, work.name, repr(error)))
        raise
    return outcome(call)


def _ended(call: "Call[Any]", _: object) -> None:
    if not call.finished:  # cancelled before its first step
        call.refuse(asyncio.CancelledError())


def _timed_out(call: "Call[Any]", work: Work) -> CallTimeoutError:
    abandoned = not call.finished
    if abandoned:
        _give_up(call, work)
    error = CallTimeoutError(call.name, work.timeout or 0.0, call.waiting_at, (), abandoned)
    error.__cause__ = call.take_error()
    return error


def _give_up(call: "Call[Any]", work: Work) -> None:
    work.signs.abandoned = True
    emit(CallAbandoned(work.tier.value, work.name, call.waiting_at, ()))
