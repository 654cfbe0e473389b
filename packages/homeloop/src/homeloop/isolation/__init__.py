"""
Where a piece of work runs, and how far apart from everything else.

    result = await run_isolated(analyse, document, isolation=Isolation.THREAD, on_progress=show, timeout=60)

    async with isolated("analysis_123", isolation=Isolation.PROCESS) as scope:
        result = await scope.run(graph.ainvoke, state)

One `IsolationExecutor` serves all tiers; these functions use the process's default one.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar, Unpack

from homeloop.isolation._block import EnclosedBlock
from homeloop.isolation._choice import KindStatistics
from homeloop.isolation._enclosure import isolation_of
from homeloop.isolation._executor import IsolationExecutor, RunOptions
from homeloop.isolation._progress import Report, current_report
from homeloop.isolation._scope import IsolatedScope
from homeloop.isolation._statistics import IsolationStatistics, TierStatistics
from homeloop.isolation._tier import Isolation
from homeloop.runtime import allocate_lock, forget_in_child

__all__ = (
    "EnclosedBlock",
    "IsolatedScope",
    "Isolation",
    "IsolationExecutor",
    "IsolationStatistics",
    "KindStatistics",
    "Report",
    "RunOptions",
    "TierStatistics",
    "current_report",
    "default_executor",
    "enclosed",
    "isolated",
    "isolation_of",
    "run_isolated",
    "run_isolated_sync",
    "stream_isolated",
)

T = TypeVar("T")


class _Default:
    """The process's default executor."""

    def __init__(self) -> None:
        self.executor: IsolationExecutor | None = None
        self._making = allocate_lock()

    def get(self) -> IsolationExecutor:
        executor = self.executor
        if executor is None or executor.is_closed:
            with self._making:
                forget_in_child(self)
                if self.executor is None or self.executor.is_closed:
                    self.executor = IsolationExecutor()
                return self.executor
        return executor

    def forget_parent(self) -> None:
        self._making = allocate_lock()


_default = _Default()


def default_executor() -> IsolationExecutor:
    """
    Return the process's default executor, with the default options. Starts nothing.

    One that was closed is replaced by a new one.
    """
    return _default.get()


# Any: as `IsolationExecutor.run`.
async def run_isolated(fn: Callable[..., Awaitable[T]], *args: Any, **options: Unpack[RunOptions]) -> T:
    """Run ``fn(*args)`` in a tier of the default executor; see `IsolationExecutor.run` and `RunOptions`."""
    return await default_executor().run(fn, *args, **options)


def run_isolated_sync(fn: Callable[..., Awaitable[T]], *args: Any, **options: Unpack[RunOptions]) -> T:
    """Do `run_isolated` from sync code, and block meanwhile; see `IsolationExecutor.run_sync`."""
    return default_executor().run_sync(fn, *args, **options)


def stream_isolated(
    fn: Callable[..., AsyncGenerator[T, None]], *args: Any, **options: Unpack[RunOptions]
) -> AsyncGenerator[T, None]:
    """Iterate an async generator in a tier of the default executor; see `IsolationExecutor.stream`."""
    return default_executor().stream(fn, *args, **options)


def isolated(
    context_id: str,
    *,
    isolation: Isolation = Isolation.AUTO,
    kind: str | None = None,
    carry: Sequence[ContextVar[Any]] = (),
) -> IsolatedScope:
    """Keep a scope of the default executor open for several runs; see `IsolationExecutor.isolated`."""
    return default_executor().isolated(context_id, isolation=isolation, kind=kind, carry=carry)


def enclosed(context_id: str) -> EnclosedBlock:
    """Keep the code of a block apart, where it stands; see `IsolationExecutor.enclosed`."""
    return default_executor().enclosed(context_id)
