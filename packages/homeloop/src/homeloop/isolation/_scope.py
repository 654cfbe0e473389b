"""Scopes: what a run goes through, from the choice of its tier to the last call of its progress callback."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from contextvars import ContextVar
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from homeloop._affinity import Affinity
from homeloop._events import CallAbandoned, emit
from homeloop.errors import (
    CallTimeoutError,
    ExecutorClosedError,
    IsolationError,
    NotTransferableError,
    RuntimeClosedError,
    RuntimeDiedError,
    WrongLoopError,
)
from homeloop.isolation._block import ONE_PER_LOOP
from homeloop.isolation._choice import kind_of
from homeloop.isolation._function import check_function, check_generator_function
from homeloop.isolation._progress import Callback, Progress
from homeloop.isolation._stream import stream
from homeloop.isolation._tier import Isolation, Room, Signs, Work
from homeloop.runtime import callable_name, loop_affinity

if TYPE_CHECKING:
    from homeloop.isolation._executor import IsolationExecutor

T = TypeVar("T")


class IsolatedScope:
    """
    A scope that work runs in, one run or several at a time; made by `IsolationExecutor.isolated`.

    Entered and left once. Leaving it cancels what still runs in it; what has not begun is refused.

    Raises:
        RuntimeError: From entering it a second time, and from leaving it while it is not open.
        WrongLoopError: From leaving it on another loop than the one that has entered it. It stays open.

    Thread: one loop's, for all of it.
    """

    def __init__(
        self,
        executor: "IsolationExecutor",
        context_id: str,
        isolation: Isolation,
        kind: str | None,
        carry: tuple[ContextVar[Any], ...],
    ) -> None:
        self.context_id = context_id
        self._executor = executor
        self._isolation = isolation
        self._kind = kind
        self._is_one_kind = kind is not None
        self._kinds: dict[str, str] = {}  # of its runs, by their names; what they leave behind is theirs
        self._carry = carry
        self._tier: Isolation | None = None
        self._room: Room | None = None
        self._spent: list[tuple[Isolation, Room]] = []  # other runs may still be in them
        self._loop: asyncio.AbstractEventLoop | None = None  # that it was entered on
        self._home: Affinity
        self._is_left = False

    @property
    def tier(self) -> Isolation | None:
        """The tier of the scope's runs; None before the first one, if homeloop chooses."""
        return self._tier if self._isolation is Isolation.AUTO else self._isolation

    # Any: as `IsolationExecutor.run`.
    async def run(
        self,
        fn: Callable[..., Awaitable[T]],
        *args: Any,
        on_progress: Callback | None = None,
        timeout: float | None = None,
    ) -> T:
        """
        Run ``fn(*args)`` in the scope; args, raises and cancellation as `IsolationExecutor.run`.

        Raises, besides:
            RuntimeError: The scope is not entered, or was left, also before ``fn`` could begin. It was not called.
            WrongLoopError: Another loop has entered the scope. ``fn`` was not called.
        """
        check_function(fn, timeout)
        value: T = await self._run(fn, args, on_progress, timeout, last=False)
        return value

    def stream(
        self,
        fn: Callable[..., AsyncGenerator[T, None]],
        *args: Any,
        on_progress: Callback | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[T, None]:
        """Iterate the async generator ``fn(*args)`` in the scope; as `IsolationExecutor.stream`."""
        check_generator_function(fn, timeout)
        return stream(partial(self.run, timeout=timeout), fn, args, on_progress)

    async def run_once(
        self,
        fn: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        on_progress: Callback | None,
        timeout: float | None,
    ) -> Any:
        """Run in a scope that nothing else runs in: it is left together with the run, which is cheaper."""
        check_function(fn, timeout)
        return await self._run(fn, args, on_progress, timeout, last=True)

    async def __aenter__(self) -> Self:
        if self._loop is not None:
            raise RuntimeError(f"scope {self.context_id!r} was entered before; call isolated() again")
        self._executor.check_open()
        self._loop = asyncio.get_running_loop()
        self._home = loop_affinity(self._loop)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._check_open()
        self._is_left = True
        if self._room is not None and self._tier is not None:
            self._spent.append((self._tier, self._room))
        async with AsyncExitStack() as rooms:  # each is closed, also when one fails or it is cancelled
            for spent in self._spent:
                rooms.push_async_callback(self._close, *spent)

    async def _close(self, tier: Isolation, room: Room) -> None:
        try:
            signs = await room.aclose()
        except (RuntimeClosedError, RuntimeDiedError):
            if self._executor.is_closed:  # which has ended all that was in there
                return
            raise
        self._executor.tally(tier).count_leftovers(signs)
        spilled: Counter[str] = Counter()
        for name, count in signs.spilled_by.items():
            spilled[self._kinds.get(name, self._kind or self.context_id)] += count
        for each, count in spilled.items():
            self._executor.learn(self._isolation, each, tier, Signs(spilled=count), None)

    def _check_open(self) -> None:
        """Raise unless the scope is entered, on the running loop, and not left."""
        if self._loop is None:
            raise RuntimeError(f"scope {self.context_id!r} is not open: async with isolated(...) as scope: ...")
        if self._loop is not (loop := asyncio.get_running_loop()):
            raise WrongLoopError(
                f"scope {self.context_id!r}", str(self._home), str(loop_affinity(loop)), ONE_PER_LOOP
            )
        if self._is_left:
            raise RuntimeError(f"scope {self.context_id!r} is not open any more; call isolated() again")

    async def _run(
        self,
        fn: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        on_progress: Callback | None,
        timeout: float | None,
        last: bool,
        waited: float = 0.0,
    ) -> Any:
        if not last:
            self._check_open()
        self._executor.check_open()
        name = callable_name(fn)
        if timeout is not None and timeout <= 0:
            raise CallTimeoutError(name, timeout, never_began="its timeout left it no time")
        own = kind_of(fn) if self._isolation is Isolation.AUTO else name
        kind = self._kind = self._kind or own
        own = self._kinds[name] = kind if self._is_one_kind else own
        if self._room is None:
            self._tier = self._executor.choose(self._isolation, kind)
            self._room = self._executor.new_room(self._tier)
        assert self._tier is not None
        room = self._room
        work = Work(fn, args, name, self.context_id, self._tier, Progress(on_progress), timeout, self._carry)
        work.waited = waited
        asked = time.monotonic()
        try:
            return await self._count(room, work, own, last)
        except NotTransferableError as refused:
            if self._isolation is not Isolation.AUTO or work.signs.begun:
                raise
            if own != kind:  # the scope's tier is that of its first run
                self._executor.learn(self._isolation, kind, work.tier, work.signs, refused)
            if self._executor.choose(self._isolation, kind) is work.tier:  # pinned
                raise
        # It was ours to choose, and it has not begun: `learn` has seen that it cannot go there.
        if self._room is room:  # not, if a run beside this one was here first
            self._room = None
            self._spent.append((work.tier, room))
        return await self._run(fn, args, on_progress, timeout, last, waited + time.monotonic() - asked)

    async def _count(self, room: Room, work: Work, kind: str, last: bool) -> Any:
        tally = self._executor.tally(work.tier)
        tally.begin()
        error: BaseException | None = None
        try:
            return await self._run_and_report(room, work, last)
        except BaseException as raised:
            error = raised
            ended = isinstance(raised, _ENDS) and not isinstance(raised, NotTransferableError)
            if ended and not work.signs.begun and self._executor.is_closed:
                error = ExecutorClosedError(self._executor.name)
                raise error from raised
            raise
        finally:
            work.end(error)
            tally.end(work.signs, failed=error is not None)
            self._executor.learn(self._isolation, kind, work.tier, work.signs, error)
            del error  # the frame would keep it, and it the frame

    async def _run_and_report(self, room: Room, work: Work, last: bool) -> Any:
        begun = time.monotonic() - work.waited
        try:
            value = await room.run(work, last)
        except (asyncio.CancelledError, GeneratorExit) as ended:
            if isinstance(ended, asyncio.CancelledError):
                await self._end_callback(work, self._executor.grace)
            raise
        except BaseException as raised:
            hangs = not work.progress.is_settled and not work.progress.coalesces  # it was waited for
            if hangs and isinstance(raised, CallTimeoutError):
                raised.waiting_at += (_callback(work),)
            await self._hear_out(work, begun)
            raise
        if not await self._hear_out(work, begun):
            raise CallTimeoutError(work.name, work.timeout or 0.0, (_callback(work),), abandoned=True)
        return value

    async def _hear_out(self, work: Work, begun: float) -> bool:
        """Wait for the callback, at most for the rest of the timeout and the grace; tell whether it has run."""
        left: float | None = None
        if work.timeout is not None:
            left = max(0.0, begun + work.timeout - time.monotonic()) + self._executor.grace
        try:
            settled = await work.progress.settle(left)
        except asyncio.CancelledError:
            await self._end_callback(work, self._executor.grace)
            raise
        if not settled:  # what cannot be cancelled has had its grace already
            await self._end_callback(work, self._executor.grace if work.progress.is_own else 0.0)
        return settled

    async def _end_callback(self, work: Work, grace: float) -> None:
        """Cancel the callback, if it is the run's own, and wait for it in the grace; report it if that passes."""
        cancelled = await work.progress.end(grace)
        if not work.progress.is_settled:
            emit(CallAbandoned(work.tier.value, f"{work.progress.bound}", (), ()))
        if cancelled is not None:
            raise cancelled


_ENDS = (RuntimeClosedError, RuntimeDiedError, IsolationError)  # what a run gets whose executor is closed under it


def _callback(work: Work) -> str:
    return f"its callback {work.progress.bound}"
