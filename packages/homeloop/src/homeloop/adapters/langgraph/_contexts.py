"""Contexts: where graphs run apart from everything else, under the names of the documents behind homeloop."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import homeloop
from homeloop import Isolation, IsolationExecutor, IsolationStatistics
from homeloop.adapters.langgraph._options import isolation_from_options
from homeloop.adapters.langgraph._processes import PRELOAD, ProcessIsolatedLangGraphExecutor
from homeloop.errors import IsolationError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ContextRecord:
    """A context that is open. Attributes: isolation: the tier of its runs; age: seconds."""

    context_id: str
    isolation: Isolation
    age: float


@dataclass(frozen=True, slots=True)
class IsolationFindings:
    """
    What graphs do on one loop.

    Attributes:
        tasks: How many tasks run graphs.
        outside: The names of those that belong to no isolated work: they share context, resources and loop with
            everything else.
    """

    tasks: int
    outside: tuple[str, ...]


class IsolatedLangGraphContext:
    """
    An isolated context: ``async with manager.create_isolated_context("analysis_123") as context: ...``

    The code of the block is kept apart as `Isolation.CONTEXT` does it, whatever the tier (unless it is none):
    the resources (`LoopLocal`) that it opens are private and closed at the end, nobody else's are touched, and
    no task born in it outlives it. `run` and `stream` go further and use the context's tier.

    Thread: one loop's. Entered and left once, in the same task.
    """

    def __init__(self, manager: "LangGraphEventLoopManager", context_id: str, isolation: Isolation) -> None:
        self.context_id = context_id
        self.isolation = isolation
        self.pid = os.getpid()
        self.since = time.monotonic()
        self._manager = manager
        self._scope = manager.executor.isolated(context_id, isolation=isolation)
        self._stack = AsyncExitStack()

    # Any: as `IsolationExecutor.run`.
    async def run(
        self,
        fn: Callable[..., Awaitable[T]],
        *args: Any,
        on_progress: Callable[..., object] | None = None,
        timeout: float | None = None,
    ) -> T:
        """Run ``fn(*args)`` in the context's tier; args, raises and cancellation as `homeloop.run_isolated`."""
        return await self._scope.run(fn, *args, on_progress=on_progress, timeout=timeout)

    def stream(
        self,
        fn: Callable[..., AsyncGenerator[T, None]],
        *args: Any,
        on_progress: Callable[..., object] | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[T, None]:
        """Iterate the async generator ``fn(*args)`` in the context's tier; as `homeloop.stream_isolated`."""
        return self._scope.stream(fn, *args, on_progress=on_progress, timeout=timeout)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            if self.isolation is not Isolation.NONE:
                await stack.enter_async_context(self._manager.executor.enclosed(self.context_id))
            await stack.enter_async_context(self._scope)
            self.since = time.monotonic()
            self._manager.register(self)
            stack.callback(self._manager.unregister, self)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)


class LangGraphEventLoopManager:
    """
    Keeps graphs apart from each other and from everything else; `get_langgraph_manager` gives the process's one.

    Args:
        executor: What runs them; by default one of its own, whose worker processes have LangGraph imported.

    Thread: any, unless a method says otherwise.
    """

    def __init__(self, executor: IsolationExecutor | None = None) -> None:
        self.executor = executor or IsolationExecutor(name="langgraph", preload=PRELOAD)
        self.processes = ProcessIsolatedLangGraphExecutor(executor=self.executor)
        self._contexts: set[IsolatedLangGraphContext] = set()

    def create_isolated_context(
        self, context_id: str, *, isolation: Isolation | None = None, options: Mapping[str, object] | None = None
    ) -> IsolatedLangGraphContext:
        """
        Return a context to be entered: ``async with manager.create_isolated_context("analysis_123") as context``.

        Args:
            context_id: Its name in logs and events.
            isolation: The tier of its `IsolatedLangGraphContext.run`; by default what ``options`` say.
            options: See `isolation_from_options`.
        """
        return IsolatedLangGraphContext(self, context_id, isolation or isolation_from_options(options))

    # Any: as `IsolationExecutor.run`.
    async def run(
        self,
        fn: Callable[..., Awaitable[T]],
        *args: Any,
        options: Mapping[str, object] | None = None,
        on_progress: Callable[..., object] | None = None,
        timeout: float | None = None,
        context_id: str | None = None,
    ) -> T:
        """Run ``fn(*args)`` in the tier that options ask for; see `isolation_from_options`, `run_isolated`."""
        return await self.executor.run(
            fn,
            *args,
            isolation=isolation_from_options(options),
            on_progress=on_progress,
            timeout=timeout,
            context_id=context_id,
        )

    async def execute_in_isolated_thread(
        self, coro_func: Callable[..., Awaitable[T]], context_id: str | None = None, *args: Any, **kwargs: Any
    ) -> T:
        """
        Run ``coro_func(*args, **kwargs)`` in a thread with a loop of its own; raises as `homeloop.run_isolated`.

        Args:
            context_id: The run's name in logs and events.
        """
        return await self.executor.run(
            partial(coro_func, *args, **kwargs), isolation=Isolation.THREAD, context_id=context_id
        )

    # -- what is there -------------------------------------------------------------------------------

    def register(self, context: IsolatedLangGraphContext) -> None:
        """Count a context among the open ones. Called by contexts."""
        self._contexts.add(context)

    def unregister(self, context: IsolatedLangGraphContext) -> None:
        """Forget a context that was left. Called by contexts."""
        self._contexts.discard(context)

    def contexts(self) -> tuple[ContextRecord, ...]:
        """Return the contexts that are open in this process, the oldest first."""
        now, pid = time.monotonic(), os.getpid()
        found = [each for each in tuple(self._contexts) if each.pid == pid]  # not the parent's, in a forked child
        return tuple(
            ContextRecord(each.context_id, each.isolation, now - each.since)
            for each in sorted(found, key=lambda each: each.since)
        )

    def detect(self) -> IsolationFindings:
        """Tell which tasks run graphs on the running loop, and which are not isolated. Thread: a loop's."""
        tasks = [task for task in asyncio.all_tasks() if _runs_graph(task)]
        outside = sorted(task.get_name() for task in tasks if homeloop.isolation_of(task) is None)
        return IsolationFindings(len(tasks), tuple(outside))

    def require_isolation(self) -> str:
        """
        Return the context id of the isolated work that the calling code belongs to.

        Raises:
            IsolationError: It belongs to none.
        """
        context_id = homeloop.isolation_of()
        if context_id is None:
            raise IsolationError(
                "this must run in isolated work: async with get_langgraph_manager().create_isolated_context(id)"
            )
        return context_id

    def statistics(self) -> IsolationStatistics:
        """Return what was run, by tier."""
        return self.executor.statistics()

    def close(self, timeout: float = 5.0) -> None:
        """End its threads and processes; see `IsolationExecutor.close`. Thread: any except a loop's own."""
        self.executor.close(timeout)


_default: dict[str, LangGraphEventLoopManager] = {}
_making = threading.Lock()


def get_langgraph_manager() -> LangGraphEventLoopManager:
    """
    Return the process's `LangGraphEventLoopManager`. Starts nothing.

    One that was closed is replaced by a new one.
    """
    manager = _default.get("manager")
    if manager is None or manager.executor.is_closed:
        with _making:
            manager = _default.get("manager")
            if manager is None or manager.executor.is_closed:
                manager = _default["manager"] = LangGraphEventLoopManager()
    return manager


def _unlock_in_child() -> None:
    """Have a lock of its own in a forked child: a thread of the parent's may have held it."""
    global _making
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)


async def execute_in_isolated_thread(
    coro_func: Callable[..., Awaitable[T]], context_id: str | None = None, *args: Any, **kwargs: Any
) -> T:
    """Do `LangGraphEventLoopManager.execute_in_isolated_thread` with the process's manager."""
    return await get_langgraph_manager().execute_in_isolated_thread(coro_func, context_id, *args, **kwargs)


async def execute_langgraph_in_process(
    workflow_config: Mapping[str, Any],
    context_id: str | None = None,
    *,
    on_progress: Callable[..., object] | None = None,
    timeout: float | None = None,
) -> Any:
    """Do `ProcessIsolatedLangGraphExecutor.execute` with the process's manager."""
    return await get_langgraph_manager().processes.execute(
        workflow_config, context_id, on_progress=on_progress, timeout=timeout
    )


def _runs_graph(task: "asyncio.Task[Any]") -> bool:
    """Tell whether a task runs a graph's loop or one of its nodes. Stores and savers have tasks, too."""
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None)
        if frame is not None and frame.f_globals.get("__name__", "").startswith("langgraph.pregel"):
            return True
        awaited = getattr(awaited, "cr_await", None)
    return False
