"""LoopLocal: one resource per loop, opened on first use and closed on that same loop."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from typing import Generic, TypeVar, overload

from homeloop._figures import ResourceStatistics
from homeloop.resources._inventory import Inventory
from homeloop.resources._lease import Lease
from homeloop.resources._recipe import Recipe, named
from homeloop.resources._scope import substituted

T = TypeVar("T")


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
    The resource is closed in that same context, but in another task: an AnyIO cancel scope or task
    group that stays open for the life of the resource is not supported.

    Inside a `resource_scope` a loop's instance is the scope's own.

    Args:
        factory: Makes the resource.
        close: Closes it instead of what is said above; an async context manager is not entered then.
        name: For logs and errors; the factory's name by default.
        close_timeout: Seconds that closing may take, waiting for leases included. Then it is closed
            though it is leased, or let go if it does not close, with a warning.

    Raises:
        ValueError: ``close_timeout`` is not above 0.
        TypeError: ``factory`` or ``close`` is no function.

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
        self.name = named(factory, name)
        recipe = Recipe[None, T](lambda _: factory(), close, close_timeout, self.name)
        self._inventory = Inventory(recipe)

    async def get(self) -> T:
        """
        Return the running loop's instance; open it if it is not open.

        Raises:
            LoopEndingError: The loop is ending and has closed its resources, or does so now.
            ScopeEndedError: The `resource_scope` around the caller has ended.
            BaseException: What the factory raised. Nothing is kept; the next call tries again.

        Cancellation: leaves the opening to the others who wait for it; it goes on even if none does.
        """
        return (await self._inventory.current(None)).value

    async def warm(self) -> None:
        """
        Open the running loop's instance before anybody needs it: when a worker or an application starts.

        Raises and cancellation: as `get`.
        """
        await self._inventory.current(None)

    def __call__(self) -> AbstractAsyncContextManager[T, None]:
        """
        Lease the running loop's instance: ``async with local() as resource``.

        A leased resource is not closed by `aclose` or `close` until it is given back, at most
        ``close_timeout``. Entering raises as `get`.
        """
        return Lease(partial(self._inventory.current, None))

    def override(self, value: T) -> AbstractContextManager[None]:
        """
        Hand out ``value`` instead, for tests: ``with local.override(fake): ...``

        It holds for the caller's context and for the tasks and calls that take it along, whatever
        loop they run on; other tasks see nothing of it. Nothing is opened or closed for it. The
        factories of other resources see it only inside a `resource_scope`, for what is opened
        outside of one outlives the test.
        """
        return substituted(self._inventory, None, value)

    async def aclose(self) -> None:
        """
        Close the running loop's instance, if there is one; in a `resource_scope`, the scope's.

        What is being closed already is waited for; an opening that hangs is cancelled after ``close_timeout``.
        The next `get` opens a new one.

        Cancellation: stops the waiting; the closing goes on.
        """
        await self._inventory.aclose(None)

    def close(self, timeout: float = 10.0) -> None:
        """
        Close every loop's instance, those of scopes too, each on its own loop, and wait for it.

        Args:
            timeout: Seconds to wait for each loop.

        Raises:
            WrongThreadError: The calling thread runs a loop with an instance: await `aclose` there.
                Nothing was closed.
            TimeoutError: A loop did not close its instance in time; the others' are closed.

        Thread: any that runs no loop with an instance. Instances of loops that do not run are left.
        """
        self._inventory.close(timeout)

    def statistics(self) -> ResourceStatistics:
        """Return the counts of this process. Thread: any."""
        return self._inventory.statistics()

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<LoopLocal {self.name}>"
