"""LoopLocal: one resource per loop, opened on first use and closed on that same loop."""

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast, overload

from homeloop._events import ResourceClosed, ResourceCloseFailed, ResourceOpened, emit
from homeloop.errors import LoopEndingError, WrongThreadError
from homeloop.resources._shelf import Shelf, shelves
from homeloop.runtime import callable_name

T = TypeVar("T")
Close = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class ResourceStatistics:
    """How often a resource was opened, failed to open and was closed in this process; ``live`` are open now."""

    opened: int
    failed: int
    closed: int
    live: int


class _Instance(Generic[T]):
    """An open resource on its loop, and how many use it."""

    __slots__ = ("close", "leases", "unused", "value")

    def __init__(self, value: T, close: Close) -> None:
        self.value = value
        self.close = close
        self.leases = 0
        self.unused = asyncio.Event()
        self.unused.set()


class LoopLocal(Generic[T]):
    """
    Give every loop a resource of its own.

    ``factory()`` runs on the loop that first asks, once, however many ask at the same time. What
    it gives may be an async context manager (entered, and left at the end), something to await,
    or the resource itself; without a context manager the end is its ``aclose()`` or ``close()``,
    if it has one. The resource is closed on its own loop before that loop ends, whoever owns the
    loop: `LoopRuntime`, `asyncio.run`, uvicorn. Resources opened later are closed earlier, so one
    may use another in its factory.

    The factory runs in an empty context: the first user's context variables stay the first user's.

    Args:
        factory: Makes the resource.
        close: Closes it instead of what is said above; an async context manager is not entered then.
        name: For logs and errors; the factory's name by default.
        close_timeout: Seconds that closing may take, waiting for leases included, before the
            resource is let go with a warning.

    Thread: one object serves all threads and loops. A forked child starts with nothing open.
    """

    @overload
    def __init__(
        self,
        factory: Callable[[], AbstractAsyncContextManager[T]],
        *,
        name: str | None = None,
        close_timeout: float = 5.0,
    ) -> None: ...
    @overload
    def __init__(
        self,
        factory: Callable[[], Awaitable[T]],
        *,
        close: Callable[[T], Awaitable[object]] | None = None,
        name: str | None = None,
        close_timeout: float = 5.0,
    ) -> None: ...
    @overload
    def __init__(
        self,
        factory: Callable[[], T],
        *,
        close: Callable[[T], Awaitable[object]] | None = None,
        name: str | None = None,
        close_timeout: float = 5.0,
    ) -> None: ...
    def __init__(
        self,
        factory: Callable[[], object],
        *,
        close: Callable[[T], Awaitable[object]] | None = None,
        name: str | None = None,
        close_timeout: float = 5.0,
    ) -> None:
        if not callable(factory):
            raise TypeError(f"pass the function that makes the resource, not the resource: {factory!r}")
        self.name = name or callable_name(factory)
        self._factory = factory
        self._close = close
        self._close_timeout = close_timeout
        self._counting = threading.Lock()
        self._opened = self._failed = self._closed = 0

    async def get(self) -> T:
        """
        Return the running loop's instance; open it if it is not open.

        Raises:
            LoopEndingError: The loop is ending and has closed its resources.
            BaseException: What the factory raised. Nothing is kept; the next call tries again.

        Cancellation: leaves the opening to the others who wait for it; it goes on even if none does.
        """
        return (await self._instance()).value

    @asynccontextmanager
    async def __call__(self) -> AsyncGenerator[T, None]:
        """
        Lease the running loop's instance: ``async with local() as resource``.

        A leased resource is not closed by `aclose` or `close` until it is given back, at most
        ``close_timeout``. Raises as `get`.
        """
        instance = await self._instance()
        instance.leases += 1
        instance.unused.clear()
        try:
            yield instance.value
        finally:
            instance.leases -= 1
            if not instance.leases:
                instance.unused.set()

    async def aclose(self) -> None:
        """Close the running loop's instance, if there is one. The next `get` opens a new one."""
        shelf = shelves.find(asyncio.get_running_loop())
        if shelf is not None:
            await self._close_on(shelf)

    def close(self, timeout: float = 10.0) -> None:
        """
        Close every loop's instance, each on its own loop, and wait for it.

        Args:
            timeout: Seconds to wait for each loop.

        Raises:
            WrongThreadError: The calling thread runs a loop with an instance: await `aclose` there.
                Nothing was closed.
            TimeoutError: A loop did not close its instance in time; the others' are closed.

        Thread: any that runs no loop with an instance. Instances of loops that do not run are left.
        """
        here = asyncio._get_running_loop()  # pyright: ignore[reportPrivateUsage] - documented, returns None
        places = [(loop, shelf) for loop, shelf in shelves.all().items() if self in shelf.entries]
        if any(loop is here for loop, _ in places):
            raise WrongThreadError(f"close() of {self.name}", threading.current_thread().name)
        closing = [
            asyncio.run_coroutine_threadsafe(self._close_on(shelf), loop)
            for loop, shelf in places
            if loop.is_running()
        ]
        late = 0
        for future in closing:
            try:
                future.result(timeout)
            except TimeoutError:
                late += 1
        if late:
            raise TimeoutError(
                f"{self.name} was not closed within {timeout:g} s on {late} of {len(closing)} loops"
            )

    def statistics(self) -> ResourceStatistics:
        """Return the counts of this process. Thread: any."""
        with self._counting:
            live = self._opened - self._closed
            return ResourceStatistics(self._opened, self._failed, self._closed, live)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<LoopLocal {self.name}>"

    # -- on the loop -------------------------------------------------------------------------------

    async def _instance(self) -> _Instance[T]:
        loop = asyncio.get_running_loop()
        shelf = shelves.find(loop)
        if shelf is None:
            shelf = shelves.add(loop)
            await shelf.park()
        entry = shelf.entries.get(self)
        if isinstance(entry, _Instance):
            return cast("_Instance[T]", entry)
        if entry is None:
            if shelf.ended:
                raise LoopEndingError(self.name, str(shelf.affinity))
            entry = loop.create_task(self._open(shelf), context=Context())
            shelf.entries[self] = entry
        opening = cast("asyncio.Task[_Instance[T]]", entry)
        await asyncio.wait((opening,))  # unlike awaiting the task, this does not cancel it with us
        return opening.result()

    async def _open(self, shelf: Shelf) -> _Instance[T]:
        try:
            instance = _Instance[T](*await self._make())
        except BaseException:
            shelf.take(self)
            with self._counting:
                self._failed += 1
            raise
        shelf.put(self, instance, lambda: self._close_instance(shelf, instance))
        with self._counting:
            self._opened += 1
        emit(ResourceOpened(self.name, shelf.affinity))
        return instance

    async def _make(self) -> tuple[T, Close]:
        made: Any = self._factory()  # Any: its shape is found out here
        close = self._close
        if close is None and _is_context_manager(made):
            return await made.__aenter__(), lambda: made.__aexit__(None, None, None)
        if inspect.isawaitable(made):
            made = await made
        if close is not None:
            return made, lambda: close(made)
        for name in ("aclose", "close"):
            if (method := getattr(made, name, None)) is not None:
                return made, lambda: _call(method)
        if _is_context_manager(made):
            return await made.__aenter__(), lambda: made.__aexit__(None, None, None)
        return made, _nothing

    async def _close_on(self, shelf: Shelf) -> None:
        entry = shelf.entries.get(self)
        if isinstance(entry, asyncio.Task):
            await asyncio.wait((cast("asyncio.Task[object]", entry),))
            entry = shelf.entries.get(self)
        if isinstance(entry, _Instance):
            await self._close_instance(shelf, cast("_Instance[T]", entry))

    async def _close_instance(self, shelf: Shelf, instance: _Instance[T]) -> None:
        shelf.take(self)  # first: whoever asks from now on gets a new one
        error: BaseException | None = None
        try:
            async with asyncio.timeout(self._close_timeout):
                await instance.unused.wait()
                await instance.close()
        except Exception as failure:
            error = failure
        finally:
            with self._counting:
                self._closed += 1
        if error is None:
            emit(ResourceClosed(self.name, shelf.affinity))
        else:
            emit(ResourceCloseFailed(self.name, shelf.affinity, f"{type(error).__name__}: {error}"))


def _is_context_manager(made: object) -> bool:
    return hasattr(type(made), "__aenter__") and hasattr(type(made), "__aexit__")


async def _call(method: Callable[[], object]) -> None:
    result = method()
    if inspect.isawaitable(result):
        await result


async def _nothing() -> None:
    pass
