"""KeyedLoopLocal: one resource per loop and key, with a bound on how many and how long."""

from collections.abc import Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from typing import Generic, TypeVar, overload

from homeloop._figures import ResourceStatistics
from homeloop.resources._inventory import Inventory
from homeloop.resources._lease import Lease
from homeloop.resources._recipe import Recipe, named
from homeloop.resources._scope import substituted

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class KeyedLoopLocal(Generic[K, T]):
    """
    Give every loop a resource of its own for each key: a pool per user, a client per host.

    As `LoopLocal`, except that ``factory(key)`` gets the key, and that a loop need not keep all:
    what is idle may be closed again, on its loop. Idle is what is neither leased nor waited for.
    What is leased (``async with local(key) as value``) is never evicted. What `get` hands out
    counts as used at that moment only and may be closed while the caller still has it, so with
    ``max_idle`` or ``max_items`` take a lease.

    Keys appear in no log, event, error or statistics: they may be secret.

    Args:
        factory: Makes the resource for a key.
        close: As for `LoopLocal`.
        name: For logs and errors; the factory's name by default.
        close_timeout: Seconds that closing an instance may take, waiting for leases included.
        max_idle: Seconds after which an instance that nobody uses is closed; None: never.
        max_items: How many instances a loop keeps, and a `resource_scope` on it; None: all. The one
            that was not used for longest goes first. While all are in use there may be more, until
            one is given back.

    Raises:
        ValueError: ``close_timeout``, ``max_idle`` or ``max_items`` is not above 0, or ``max_items`` not whole.
        TypeError: ``factory`` or ``close`` is no function.

    Thread: one object serves all threads and loops. A forked child starts with nothing open.
    """

    @overload
    def __init__(
        self,
        factory: Callable[[K], AbstractAsyncContextManager[T]],
        *,
        name: str | None = None,
        close_timeout: float = 5.0,
        max_idle: float | None = None,
        max_items: int | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        factory: Callable[[K], Awaitable[T]],
        *,
        close: Callable[[T], Awaitable[object]] | None = None,
        name: str | None = None,
        close_timeout: float = 5.0,
        max_idle: float | None = None,
        max_items: int | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        factory: Callable[[K], T],
        *,
        close: Callable[[T], Awaitable[object]] | None = None,
        name: str | None = None,
        close_timeout: float = 5.0,
        max_idle: float | None = None,
        max_items: int | None = None,
    ) -> None: ...
    def __init__(
        self,
        factory: Callable[[K], object],
        *,
        close: Callable[[T], Awaitable[object]] | None = None,
        name: str | None = None,
        close_timeout: float = 5.0,
        max_idle: float | None = None,
        max_items: int | None = None,
    ) -> None:
        self.name = named(factory, name)
        self._inventory = Inventory(Recipe[K, T](factory, close, close_timeout, self.name), max_idle, max_items)

    async def get(self, key: K) -> T:
        """
        Return the running loop's instance for a key; open it if it is not open.

        It is not leased: see above.

        Raises:
            LoopEndingError: The loop is ending and has closed its resources, or does so now.
            ScopeEndedError: The `resource_scope` around the caller has ended.
            TypeError: The key is not hashable.
            BaseException: What the factory raised. Nothing is kept; the next call tries again.

        Cancellation: leaves the opening to the others who wait for it; it goes on even if none does.
        """
        return (await self._inventory.current(key)).value

    def __call__(self, key: K) -> AbstractAsyncContextManager[T, None]:
        """
        Lease the running loop's instance for a key: ``async with local(key) as resource``.

        It is not evicted, nor closed by `aclose` or `close`, until it is given back; closing waits
        for at most ``close_timeout``. Entering raises as `get`.
        """
        return Lease(partial(self._inventory.current, key))

    def override(self, key: K, value: T) -> AbstractContextManager[None]:
        """Hand out ``value`` for a key instead, for tests; see `LoopLocal.override`."""
        return substituted(self._inventory, key, value)

    async def aclose(self, *keys: K) -> None:
        """
        Close the running loop's instances for these keys, or all; in a `resource_scope`, the scope's.

        They are closed at the same time. What is being closed already is waited for; an opening that hangs is
        cancelled after ``close_timeout``. The next `get` opens a new one.

        Cancellation: stops the waiting; the closing goes on.
        """
        await self._inventory.aclose(*keys)

    def close(self, timeout: float = 10.0) -> None:
        """
        Close every loop's instances, those of scopes too, each on its own loop, and wait for it.

        Args:
            timeout: Seconds to wait for each loop.

        Raises:
            WrongThreadError: The calling thread runs a loop with an instance: await `aclose` there.
                Nothing was closed.
            TimeoutError: A loop did not close its instances in time; the others' are closed.

        Thread: any that runs no loop with an instance. Instances of loops that do not run are left.
        """
        self._inventory.close(timeout)

    def statistics(self) -> ResourceStatistics:
        """Return the counts of this process. Thread: any."""
        return self._inventory.statistics()

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<KeyedLoopLocal {self.name}>"
