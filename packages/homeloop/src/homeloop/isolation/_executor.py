"""
The executor: one way in for work of every tier.

Over 250 lines, most of them the docstrings of its public face, which belong in one place.
"""

import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextvars import ContextVar
from functools import partial
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack, cast

from homeloop.errors import (
    ExecutorClosedError,
    RuntimeClosedError,
    RuntimeDiedError,
)
from homeloop.isolation._block import EnclosedBlock
from homeloop.isolation._choice import Choice, kind_of
from homeloop.isolation._context import ContextRoom, NoRoom
from homeloop.isolation._function import check_generator_function
from homeloop.isolation._process import Processes, ProcessRoom
from homeloop.isolation._progress import Callback
from homeloop.isolation._scope import IsolatedScope
from homeloop.isolation._statistics import IsolationStatistics, Tally
from homeloop.isolation._stream import stream
from homeloop.isolation._thread import ThreadRoom, Threads
from homeloop.isolation._tier import Isolation, Room, Signs
from homeloop.isolation._watch import Watch
from homeloop.runtime import LoopRuntime, check_seconds, default_runtime

T = TypeVar("T")

_SWEEP = 0.4
"""The part of the grace that goes to leftover tasks; the rest is for the work itself and its resources."""


class RunOptions(TypedDict, total=False):
    """
    How a piece of work runs. Every one may be left out.

    Attributes:
        isolation: The tier; by default `Isolation.AUTO`.
        on_progress: Called with what ``fn`` reports, on the caller's loop, in order; may be async, or made by
            `homeloop.bind_callback`, whose options then hold. The call returns after its last call. When the
            caller is cancelled, it is too, once ``fn`` has ended, and gets ``grace`` to clean up; one that
            `homeloop.bind_callback` has made is not, but waited for as long.
        timeout: Seconds ``fn`` may take, waiting for a thread or process included; None for ever. Then it
            is cancelled and gets ``grace`` to clean up. ``on_progress`` gets as long, and is then cancelled, too.
        context_id: The run's name in logs and events.
        kind: What `Isolation.AUTO` learns by; by default the function's name, or what the object whose method
            it is has as its ``isolation_kind``.
        carry: Context variables that go along to another process, beside the executor's.
    """

    isolation: Isolation
    on_progress: Callback | None
    timeout: float | None
    context_id: str | None
    kind: str | None
    carry: Sequence[ContextVar[Any]]


class IsolationExecutor:
    """
    Runs async functions apart from everything else, in the tier that is asked for.

    Threads and processes are kept for the next run and lent to one scope at a time; what waits for one
    is served in order. Nothing is started before it is needed. A forked child starts its own.

    Args:
        name: For threads, logs and errors.
        max_threads: Threads of the thread tier at the same time, those that work keeps blocked included.
        max_processes: Worker processes at the same time; None for one per CPU. One that is replaced may still
            be ending.
        idle_timeout: Seconds after which a thread or process that nobody uses is ended.
        grace: Seconds that cancelled work gets to clean up, on every tier. A process is then sent SIGTERM,
            gets ``terminate_grace`` seconds, and is killed.
        terminate_grace: Seconds between SIGTERM and SIGKILL.
        block_threshold: Seconds after which a loop that does not run counts as blocked.
        preload: Modules that worker processes have imported before they begin, shared by all: name what
            your functions import, such as ``"langgraph.graph"``. It must not open connections or start threads.
        initializer: Called in every worker process before its first run; must be importable.
        max_runs: Runs after which a worker process is replaced; None for any number.
        max_memory_bytes: What a worker process may allocate, on Linux: beyond it work gets MemoryError, and
            the process is replaced; also when it comes near. None for no limit.
        carry: Context variables that go along to other processes; `homeloop.as_user`'s always does.

    Thread: any, for every method, unless it says otherwise.
    """

    def __init__(
        self,
        *,
        name: str = "isolation",
        max_threads: int = 16,
        max_processes: int | None = None,
        idle_timeout: float = 60.0,
        grace: float = 5.0,
        terminate_grace: float = 1.0,
        block_threshold: float = 0.5,
        preload: Sequence[str] = (),
        initializer: Callable[[], object] | None = None,
        max_runs: int | None = None,
        max_memory_bytes: int | None = None,
        carry: Sequence[ContextVar[Any]] = (),
    ) -> None:
        counts: dict[str, object] = {
            "max_threads": max_threads,
            "max_processes": max_processes,
            "max_runs": max_runs,
        }
        for what, count in counts.items():
            if count is None:
                continue
            if not isinstance(count, int):
                raise TypeError(f"{what} must be a whole number, got {count!r}")
            if count < 1:
                raise ValueError(f"{what} must be at least 1, got {count!r}")
        times = {"idle_timeout": idle_timeout, "grace": grace, "terminate_grace": terminate_grace}
        for what, seconds in times.items():
            check_seconds(what, seconds)
        if block_threshold <= 0:
            raise ValueError(f"block_threshold must be more than 0 seconds, got {block_threshold!r}")
        if isinstance(preload, str):
            raise TypeError(f"preload must be a sequence of modules' names, got {preload!r}; write ({preload!r},)")
        self.name = name
        self.grace = grace
        self._idle_timeout = idle_timeout
        self._carry = _variables(carry)
        self._closed = False
        self._numbers = itertools.count(1)
        self._choice = Choice()
        self._tallies = {tier: Tally() for tier in Isolation}
        # Its loop runs the watch and talks to the workers; no code of users ever blocks it.
        self._home = LoopRuntime(
            name=f"homeloop-{name}", grace=2 * grace + terminate_grace + 5.0, propagate_context=False
        )
        self._watch = Watch(self._home, block_threshold, self._housekeep)
        self._threads = Threads(name, max_threads, grace, self._tallies[Isolation.THREAD], self._watch.begin)
        self._processes = Processes(
            name,
            self._home,
            self._tallies[Isolation.PROCESS],
            max_processes,
            self._watch.begin,
            grace=grace,
            terminate_grace=terminate_grace,
            block_threshold=block_threshold,
            preload=tuple(preload),
            initializer=initializer,
            max_runs=max_runs,
            max_memory_bytes=max_memory_bytes,
        )

    # -- runs --------------------------------------------------------------------------------------

    # Any: a ``report`` argument is ours to give, which no type for ``fn`` and its arguments can say.
    async def run(
        self,
        fn: Callable[..., Awaitable[T]],
        *args: Any,
        isolation: Isolation = Isolation.AUTO,
        on_progress: Callback | None = None,
        timeout: float | None = None,
        context_id: str | None = None,
        kind: str | None = None,
        carry: Sequence[ContextVar[Any]] = (),
    ) -> T:
        """
        Run ``fn(*args)`` in a tier and return what it returns.

        The caller's context variables go in (to another process: those of ``carry``), and on every tier but
        none what ``fn`` changes of them stays inside. If ``fn`` has a parameter named ``report`` that is not among
        ``args``, it gets an async callable, see `Report`; `current_report` finds it from deeper inside.

        Args:
            fn: Async function. For the process tier one that can be imported, or anything that
                cloudpickle can carry (``homeloop[process]``); arguments and result must be picklable.
            isolation, on_progress, timeout, context_id, kind, carry: See `RunOptions`.

        Raises:
            CallTimeoutError: The timeout passed; the error tells where ``fn`` waited, and whether it has ended.
            WorkerDiedError: The worker process ended under ``fn``. The next call gets another one.
            WorkerStartError: No worker process could be started, and why. ``fn`` was not called.
            NotTransferableError: Function, argument or result cannot cross to another process.
            ExecutorClosedError: The executor is closed, or was while ``fn`` waited to begin. It was not called.
            RuntimeDiedError: The executor was closed while ``fn`` ran, and has cancelled it.
            BaseException: What ``fn`` raises. From another process it is rebuilt, with the traceback of
                over there in its notes; see `homeloop.errors.RemoteError` for what cannot be.

        Thread: any with a running loop.
        Cancellation: cancels ``fn``, waits for its clean-up, then is raised.
        """
        scope = self.isolated(
            context_id or f"{self.name}-{next(self._numbers)}", isolation=isolation, kind=kind, carry=carry
        )
        value: T = await scope.run_once(fn, args, on_progress, timeout)
        return value

    def run_sync(self, fn: Callable[..., Awaitable[T]], *args: Any, **options: Unpack[RunOptions]) -> T:
        """
        Do `run` from sync code, and block meanwhile; the default runtime is the caller's loop then.

        Raises, besides: what `homeloop.run` raises.

        Thread: any except the default runtime's own.
        """
        self.check_open()
        return default_runtime().run(partial(self.run, fn, *args, **options))

    def stream(
        self, fn: Callable[..., AsyncGenerator[T, None]], *args: Any, **options: Unpack[RunOptions]
    ) -> AsyncGenerator[T, None]:
        """
        Iterate the async generator ``fn(*args)`` in a tier: ``async for item in executor.stream(fn, ...)``.

        All of the generator runs in one task, and only as far as items are asked for. Close what you leave
        early (``contextlib.aclosing``): its ``finally`` blocks run before ``aclose()`` returns.

        Args, raises and thread as `run`; the timeout is for the whole of it.
        """
        check_generator_function(fn, options.get("timeout"))
        self.check_open()
        on_progress = options.pop("on_progress", None)
        options["kind"] = options.get("kind") or kind_of(fn)
        return stream(partial(self.run, **options), fn, args, on_progress)

    def isolated(
        self,
        context_id: str,
        *,
        isolation: Isolation = Isolation.AUTO,
        kind: str | None = None,
        carry: Sequence[ContextVar[Any]] = (),
    ) -> "IsolatedScope":
        """
        Keep a scope open for several runs: ``async with executor.isolated("analysis_123") as scope: ...``

        Its runs share thread or process, and the resources (`LoopLocal`) that they open; these are closed, and
        tasks that are left are cancelled and awaited, at the end of the block.

        Args:
            context_id: The scope's name in logs and events.
            isolation, kind, carry: as `run`. `Isolation.AUTO` decides with the first run.

        Raises:
            ExecutorClosedError: The executor is closed.
        """
        self.check_open()
        return IsolatedScope(self, context_id, Isolation(isolation), kind, (*self._carry, *_variables(carry)))

    def enclosed(self, context_id: str) -> EnclosedBlock:
        """
        Keep the code of a block apart as `Isolation.CONTEXT` does: ``async with executor.enclosed("a1"): ...``

        For code that is no function of its own. It stays in the caller's task, so its changes of context
        variables are seen outside; the resources (`LoopLocal`) opened in the block are private and closed at
        its end, and the tasks born in it do not outlive it.

        Args:
            context_id: The block's name in logs and events.

        Raises:
            ExecutorClosedError: The executor is closed.

        Cancellation: at the end, is raised when tasks and resources are closed.
        """
        self.check_open()
        return EnclosedBlock(context_id, self.grace * _SWEEP, self._tallies[Isolation.CONTEXT])

    # -- life --------------------------------------------------------------------------------------

    def pin(self, kind: str | Callable[..., object], isolation: Isolation | None) -> None:
        """
        Have a kind of work run in this tier when it is left to `Isolation.AUTO`, whatever is seen of it.

        Args:
            kind: The kind, or the function that names it.
            isolation: The tier; None to let homeloop learn anew, from `Isolation.CONTEXT` on.
        """
        if isolation is Isolation.AUTO:
            raise ValueError("pin a tier, or None to have homeloop choose again")
        self._choice.pin(kind if isinstance(kind, str) else kind_of(kind), isolation)

    def warm(self, isolation: Isolation) -> None:
        """
        Start one thread or process now instead of with the first run, and wait until it is ready.

        Raises:
            ExecutorClosedError: The executor is closed.

        Thread: any except a loop's own.
        """
        self.check_open()
        if isolation in (Isolation.THREAD, Isolation.PROCESS):
            self.run_sync(_nothing, isolation=isolation, context_id=f"{self.name}-warm")

    def statistics(self) -> IsolationStatistics:
        """Return what was done and is being done, by tier. Never starts anything."""
        threads, processes = self._threads.lending, self._processes.lending
        tiers = {
            Isolation.NONE: self._tallies[Isolation.NONE].statistics(),
            Isolation.CONTEXT: self._tallies[Isolation.CONTEXT].statistics(),
            Isolation.THREAD: self._tallies[Isolation.THREAD].statistics(threads.kept, threads.lent),
            Isolation.PROCESS: self._tallies[Isolation.PROCESS].statistics(processes.kept, processes.lent),
        }
        return IsolationStatistics(tiers, self._choice.statistics())

    def close(self, timeout: float = 5.0) -> None:
        """
        End all threads and processes. Idempotent.

        Runs in them are cancelled and answered with `RuntimeDiedError` or `WorkerDiedError`; those that wait to
        begin, and later ones, with `ExecutorClosedError`. Runs on their callers' own loops go on.

        Args:
            timeout: Seconds that each of them may take to clean up; then it is killed or left behind.

        Thread: any except a loop's own: it blocks.
        """
        self._closed = True
        for lending in (self._threads.lending, self._processes.lending):
            lending.close()
        self._threads.close(timeout)
        if self._processes.is_started:
            try:
                self._home.run(self._processes.close, timeout)
            except (RuntimeClosedError, RuntimeDiedError):  # another thread was first; its end is the workers'
                pass
        self._home.close(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called; a closed executor takes no more runs."""
        return self._closed

    def __repr__(self) -> str:
        return f"<IsolationExecutor {self.name!r}{' closed' if self._closed else ''}>"

    # -- inside ------------------------------------------------------------------------------------

    def choose(self, isolation: Isolation, kind: str) -> Isolation:
        """Return the tier of the next run. Called by scopes."""
        return self._choice.tier(kind) if isolation is Isolation.AUTO else isolation

    def learn(
        self, isolation: Isolation, kind: str, tier: Isolation, signs: Signs, error: BaseException | None
    ) -> None:
        """Note what was seen of a run, if the choice is ours. Called by scopes."""
        if isolation is Isolation.AUTO:
            self._choice.learn(kind, tier, signs, error)

    def tally(self, tier: Isolation) -> Tally:
        """Return the counts of a tier. Called by scopes."""
        return self._tallies[tier]

    def check_open(self) -> None:
        """
        Raise unless work can be given to the executor.

        Raises:
            ExecutorClosedError: It is closed.
        """
        if self._closed:
            raise ExecutorClosedError(self.name)

    def new_room(self, tier: Isolation) -> Room:
        """Make room for a scope. Called by scopes."""
        if tier is Isolation.NONE:
            return NoRoom()
        if tier is Isolation.CONTEXT:
            return ContextRoom(self._watch, self.grace, self.grace * _SWEEP)
        if tier is Isolation.THREAD:
            return ThreadRoom(self._threads, self._watch, self.grace * _SWEEP)
        return ProcessRoom(self._processes)

    def _housekeep(self) -> bool:
        idle = self._threads.lending.take_idle(self._idle_timeout)
        for runtime in idle:
            self._threads.retire(runtime)
        self._processes.retire_idle(self._idle_timeout)
        return bool(self._threads.lending.kept or self._processes.lending.kept)


def _variables(carry: object) -> tuple[ContextVar[Any], ...]:
    if isinstance(carry, ContextVar):
        raise TypeError(f"carry must be a sequence of context variables, got one: {carry.name!r}")
    variables: tuple[Any, ...] = tuple(cast("Sequence[Any]", carry))
    for each in variables:
        if not isinstance(each, ContextVar):
            raise TypeError(f"carry must be a sequence of context variables, and {each!r} is none")
    return variables


async def _nothing() -> None:
    pass
