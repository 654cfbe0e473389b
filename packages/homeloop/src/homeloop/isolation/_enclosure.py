"""The enclosure: a stretch of work on a loop that keeps its context, its resources and its tasks together."""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextvars import Context, ContextVar
from functools import partial
from types import CodeType, FrameType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakSet, ref

from homeloop._events import TaskSpilled, emit
from homeloop.callbacks import is_delivery
from homeloop.isolation._function import awaitable
from homeloop.isolation._tier import Signs
from homeloop.resources import Scope
from homeloop.runtime import (
    CallFuture,
    await_chain,
    callable_name,
    code_place,
    end_child,
    outlast,
    submission_listeners,
    task_context,
)

T = TypeVar("T")
AnyTask = asyncio.Task[Any]  # Any: an enclosure does not look into what tasks return

_here: "ContextVar[Enclosure | None]" = ContextVar("homeloop enclosure", default=None)
_what: ContextVar[str] = ContextVar("homeloop isolated run", default="?")  # the function's name


class Enclosure:
    """
    Runs work in a context of its own, with resources of its own, and lets no task outlive it.

    A task is born inside if its context is: tasks take a copy of the context they are created in, whoever
    creates them. So at the end it is enough to look at the loop's tasks, and nothing of asyncio is
    patched. Who created a task is seen by a task factory that chains to the loop's own one, and is
    there only while an enclosure on that loop is.

    Args:
        context_id: The scope's name, for people.
        tier: The tier's name, for people.
        grace: Seconds that leftover tasks get to end once they are cancelled.
        exclusive: The loop is nobody else's meanwhile: every new task on it was born inside, also in a
            context that is not ours.

    Thread: the loop's own.
    """

    def __init__(self, context_id: str, tier: str, grace: float, exclusive: bool) -> None:
        self.context_id = context_id
        self._tier = tier
        self._last = "?"  # what was covered last, for tasks in a context that tells nothing
        self._grace = grace
        self._loop = asyncio.get_running_loop()
        self._outer = _here.get()
        self._scope = _EnclosedScope(self)
        self._earlier: WeakSet[AnyTask] | None = WeakSet(asyncio.all_tasks()) if exclusive else None
        self._closing: asyncio.Task[None] | None = None
        self._over = False
        self.signs = Signs()
        self._calls: _Calls = {}  # submitted inside and not over
        self._resources_calls: _Calls = {}  # the same, by resources, which may need them until they are closed
        self._runs: set[AnyTask | None] = set()
        self._births = _Births.enter(self._loop)

    async def run(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """Await ``call()`` inside. The running task's context must be a copy of its own: it becomes the inside."""
        self.cover(what)
        task = asyncio.current_task()
        self._runs.add(task)
        pid = os.getpid()
        try:
            value: T = await awaitable(call(), what)
        finally:
            if os.getpid() != pid:  # a child that the work has forked: what comes now is not its own
                end_child(sys.exception())
            self._runs.discard(task)
        return value

    def cover(self, what: str) -> Callable[[], None]:
        """Make the running code's context the inside, until the function that is returned is called in it."""
        self._last = what
        scope, here, name = self._scope.cover(), _here.set(self), _what.set(what)

        def uncover() -> None:
            _what.reset(name)
            _here.reset(here)
            scope.var.reset(scope)

        return uncover

    async def aclose(self) -> None:
        """
        Cancel and await the tasks that were born inside and are still there, then close the resources.

        Cancellation: is raised when that is done; what does not end is bounded.
        """
        cancelled = await self.end()
        if cancelled is not None:
            raise cancelled

    async def end(self) -> asyncio.CancelledError | None:
        """
        Do as `aclose`, but return the cancellation that came meanwhile.

        For the task that the work ran in: the work is over, so its outcome stands, and the cancellation may be
        the work's own: AnyIO cancels the host of a task group that was left open along with its tasks.
        """
        if self._over:
            return None
        if self._closing is None:
            spared = asyncio.current_task()
            is_idle = self._scope.is_empty and not self._calls and not self._resources_calls
            if is_idle and not self._born_inside({spared}):  # as a rule: then nothing takes time
                self._over = True
                self._scope.end()
                self._births.leave()
                return None
            self._closing = asyncio.Task(self._close(spared), loop=self._loop, context=Context())
        cancelled = await outlast(self._closing)
        self._closing.result()
        return cancelled

    @property
    def is_ending(self) -> bool:
        """Whether its end has begun, so that nothing can be run in it any more."""
        return self._over or self._closing is not None

    def holds(self, context: Context | None) -> bool:
        """Tell whether a context is inside, at any depth. Thread: any."""
        enclosure = None if context is None else context.get(_here)
        while enclosure is not None and enclosure is not self:
            enclosure = enclosure._outer
        return enclosure is self

    def note_call(self, future: CallFuture[Any], name: str, created_at: str) -> None:
        """Note that a call was submitted to a runtime inside. Thread: any."""
        if not self._over:
            calls = self._calls if _here.get() is self else self._resources_calls
            calls[future] = name, created_at, _what.get(self._last)
            future.when_ended(partial(calls.pop, future, None))

    async def _recall(self, *calls: "_Calls") -> None:
        """Cancel and await submitted calls that have not ended, and what their clean-up submits; tell of them."""
        deadline = time.monotonic() + self._grace
        while any(calls):
            ends: dict[asyncio.Future[None], tuple[str, str, str]] = {}
            for future, told in _taken_out(calls):
                if not future.cancel():  # it has its result, and only its end is still being told
                    continue
                ended: asyncio.Future[None] = self._loop.create_future()
                ends[ended] = told
                future.when_ended(partial(_tell_on, self._loop, ended))
            if ends:
                await asyncio.wait(ends, timeout=max(0.0, deadline - time.monotonic()))
            for ended, (name, created_at, what) in ends.items():
                self.signs.stubborn += not ended.done()
                self._spill(what, f"submitted {name}", created_at, (), ended.done())
            if time.monotonic() >= deadline:  # each clean-up submitting the next one would be without end
                self.signs.stubborn += sum(map(len, calls))
                break

    async def _close(self, spared: AnyTask | None) -> None:
        kept = {spared, asyncio.current_task()}
        try:
            kept |= await self._sweep(kept)
            await self._recall(self._calls)
        finally:
            try:
                await self._scope.aclose()
                if self._earlier is not None:  # what the resources should have ended
                    await self._sweep(kept)
                await self._recall(self._resources_calls, self._calls)  # of these, what came in meanwhile
            finally:
                self._over = True
                self._births.leave()

    async def _sweep(self, spared: set[AnyTask | None]) -> set[AnyTask]:
        """Cancel and await what is left, and tell of it; return what ignores its cancellation."""
        deadline = time.monotonic() + self._grace
        stubborn: set[AnyTask] = set()
        while left := self._born_inside(spared) - stubborn:  # clean-up may start tasks, too
            # A run that the caller's own task waits for is cut short by leaving the scope: it outlived none.
            seen = [(task, await_chain(task)) for task in left if task not in self._runs]
            for task in left:
                task.cancel()
            _, late = await asyncio.wait(left, timeout=max(0.0, deadline - time.monotonic()))
            stubborn |= late
            for task, waiting_at in seen:
                self._tell(task, waiting_at)
            if time.monotonic() >= deadline:  # each clean-up starting the next one would be without end
                stubborn |= self._born_inside(spared)
                break
        self.signs.stubborn += len(stubborn)
        return stubborn

    def _born_inside(self, spared: set[AnyTask | None]) -> set[AnyTask]:
        tasks = {task for task in asyncio.all_tasks(self._loop) if task not in spared and not is_delivery(task)}
        if self._earlier is not None:
            earlier = set(self._earlier) - self._runs  # the first run's task was there before us
            return {task for task in tasks - earlier if not self._serves_resource(task)}
        return {task for task in tasks if self.holds(task_context(task))}

    def _serves_resource(self, task: AnyTask) -> bool:
        """Tell whether a task is the affair of a resource that is still to be closed, such as a pool's worker."""
        context = None if self._scope.ended else task_context(task)
        return context is not None and context.get(_here) is None and self._scope.is_around(context)

    def _spill(self, what: str, name: str, created_at: str, waiting_at: tuple[str, ...], ended: bool) -> bool:
        self.signs.spilled += 1
        self.signs.spilled_by[what] += 1
        if self.signs.spilled > _MOST_TOLD:
            return False
        emit(TaskSpilled(self.context_id, self._tier, what, name, created_at, waiting_at, ended))
        return True

    def _tell(self, task: AnyTask, waiting_at: tuple[str, ...]) -> None:
        context = task_context(task)
        what = self._last if context is None else context.get(_what, self._last)
        if not self._spill(what, task.get_name(), self._births.place(task), waiting_at, task.done()):
            return
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler(
                {
                    "message": f"a task that outlived {what} failed while it was cancelled",
                    "exception": error,
                    "task": task,
                }
            )


_Calls = dict[CallFuture[Any], tuple[str, str, str]]
"""Calls with what is told of them: name, the line that submitted them, the run. Any thread may change it."""


def _taken_out(calls: Iterable[_Calls]) -> Iterator[tuple[CallFuture[Any], tuple[str, str, str]]]:
    for each in calls:
        while each:
            try:
                yield each.popitem()  # in one step, where a loop over them may be disturbed
            except KeyError:  # it has ended just now
                break


class _EnclosedScope(Scope):
    """An enclosure's resources; their contexts tell nothing but their scope, and that tells the enclosure."""

    def __init__(self, enclosure: Enclosure) -> None:
        super().__init__()
        self.enclosure = ref(enclosure)


_MOST_TOLD = 100  # leftovers of a run that are told of one by one; all are counted


def isolation_of(task: AnyTask | None = None) -> str | None:
    """
    Tell which isolated work the calling code, or a task, belongs to: its context id; None for none.

    Tier none counts for none. A task belongs where its context does, whoever created it.

    Thread: any.
    """
    if task is None:
        enclosure = _here.get()
    else:
        context = task_context(task)
        enclosure = None if context is None else context.get(_here)
    return None if enclosure is None else enclosure.context_id


class _Births:
    """
    Notes, on one loop, which line creates which task inside an enclosure.

    As a task factory: it does what the loop would do without it, and steps aside when the last enclosure is
    gone. If somebody has put another factory over it meanwhile, it stays below that one and does nothing; the next
    enclosure puts a new one over that, since this one, put there once more, would end up calling itself.
    """

    def __init__(self, inner: Any) -> None:
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None  # while somebody is inside: a key of its own value
        self._inner = inner  # Any: a task factory, of which there are several shapes
        # By the task's id, which costs a third of a weak reference; the coroutine's code tells a dead one's apart.
        self._places: dict[int, tuple[CodeType, int, CodeType | None]] = {}
        self._most = _MOST_PLACES

    @classmethod
    def enter(cls, loop: asyncio.AbstractEventLoop) -> "_Births":
        births = _by_loop.get(loop)
        if births is None:
            current: Any = loop.get_task_factory()
            if isinstance(current, cls):  # put back by somebody who had put another one over it
                births = current
            else:
                births = cls(current)
                loop.set_task_factory(births)
            births._loop = loop
            _by_loop[loop] = births
        births._users += 1
        return births

    def leave(self) -> None:
        self._users -= 1
        if self._users == 0 and self._loop is not None:
            loop, self._loop = self._loop, None
            del _by_loop[loop]
            self._places.clear()
            self._most = _MOST_PLACES
            if loop.get_task_factory() is self:
                loop.set_task_factory(self._inner)

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        # Any: coroutine, options and task of whatever factory is below. Every task of a graph comes by here: the
        # frame's line is not looked up before somebody asks, and tasks outside are noted rather than told apart.
        if self._inner is None:
            made: Any = asyncio.Task(coro, loop=loop, **options)
        else:
            made = self._inner(loop, coro, **options)
        if self._users:
            found = _somebodys(sys._getframe(1))  # pyright: ignore[reportPrivateUsage] - documented
            if len(self._places) > self._most:
                self._drop_dead(loop)
            self._places[id(made)] = found.f_code, found.f_lasti, getattr(coro, "cr_code", None)
        return made

    def _drop_dead(self, loop: asyncio.AbstractEventLoop) -> None:
        alive = {id(each) for each in asyncio.all_tasks(loop)}
        self._places = {each: place for each, place in self._places.items() if each in alive}
        # Looking takes time for each that is alive: as many more must come before it is done again.
        self._most = max(_MOST_PLACES, 2 * len(self._places))

    def place(self, task: AnyTask) -> str:
        """Name the line that created a task; where its coroutine is defined, if it went past the factory."""
        own = getattr(task.get_coro(), "cr_code", None)
        code, instruction, of = self._places.get(id(task)) or (None, 0, None)
        if code is not None and of is own:
            return code_place(code, _line(code, instruction))
        return "an unknown line" if own is None else code_place(own, own.co_firstlineno)


_MOST_PLACES = 10_000  # before those of dead tasks are dropped, if few are alive

_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _Births] = WeakKeyDictionary()

_MACHINERY = ("asyncio", "anyio", "homeloop")  # what creates tasks on somebody's behalf


def _somebodys(first: FrameType) -> FrameType:
    """Find the frame on whose behalf something is created."""
    frame: FrameType | None = first
    while frame is not None:
        if not frame.f_globals.get("__name__", "").startswith(_MACHINERY):
            return frame
        frame = frame.f_back
    return first


def _tell_on(loop: asyncio.AbstractEventLoop, ended: "asyncio.Future[None]") -> None:
    try:
        loop.call_soon_threadsafe(_mark, ended)
    except RuntimeError:  # it has been closed meanwhile
        pass


def _mark(ended: "asyncio.Future[None]") -> None:
    if not ended.done():
        ended.set_result(None)


def _around(scope: Scope | None) -> Enclosure | None:
    """Find the enclosure that a scope is in, at any depth."""
    while scope is not None and not isinstance(scope, _EnclosedScope):
        scope = scope.outer
    return None if scope is None else scope.enclosure()


def _note_submitted(future: CallFuture[Any], fn: Callable[..., object]) -> None:
    """Have a call that is submitted inside an enclosure, by work or by its resources, recalled at its end."""
    enclosure = _here.get()
    if enclosure is None:  # a resource's context tells nothing but its scope
        enclosure = _around(Scope.current())
    if enclosure is not None:
        frame = _somebodys(sys._getframe(1))  # pyright: ignore[reportPrivateUsage] - documented
        enclosure.note_call(future, callable_name(fn), code_place(frame.f_code, frame.f_lineno))


submission_listeners.append(_note_submitted)


def _line(code: CodeType, instruction: int) -> int:
    """Find the line of an instruction."""
    for start, end, line in code.co_lines():
        if start <= instruction < end and line is not None:
            return line
    return code.co_firstlineno
