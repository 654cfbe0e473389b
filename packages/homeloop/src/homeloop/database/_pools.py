"""The pools of one configuration: one per loop for the service, one per loop, or per loop and user, for users."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TypeAlias, TypedDict

import asyncpg

from homeloop import KeyedLoopLocal, LoopLocal, User
from homeloop.database._changes import watched
from homeloop.database._options import Mode, Options
from homeloop.database._sessions import (
    Connection,
    RawConnection,
    mark_session,
    refuse_pooler,
    reset_session,
    verify_role,
)
from homeloop.errors import ConfigurationError, WrongThreadError

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Prepare: TypeAlias = Callable[[RawConnection], Awaitable[None]]


class LoopMetrics(TypedDict):
    """One loop's pools: which loop, how many pools are open on it, how many of their uses go on."""

    loop: str
    pools: int
    in_use: int


class PoolMetrics(TypedDict):
    """
    What became of the requests for a pool in this process, and what is open now.

    ``hits`` found their pool open, ``misses`` opened one; ``evictions`` are users' pools closed
    because they were idle for too long or the least recently used of too many.
    """

    mode: Mode
    hits: int
    misses: int
    evictions: int
    active_pools: int
    active_user_pools: int
    loops: list[LoopMetrics]


class Pools:
    """What `ConnectionPoolManager` manages."""

    def __init__(self, options: Options) -> None:
        self.options = options
        close_timeout = options.close_timeout
        self.service: LoopLocal[Pool] = LoopLocal(
            self._open_service_pool, name="service pool", close_timeout=close_timeout
        )
        self._shared: LoopLocal[Pool] = LoopLocal(
            self._open_shared_pool, name="shared user pool", close_timeout=close_timeout
        )
        self._per_user: KeyedLoopLocal[str, Pool] = KeyedLoopLocal(
            self._open_pool_of,
            name="user pool",
            close_timeout=close_timeout,
            max_idle=options.max_user_pool_idle,
            max_items=options.max_user_pools,
        )

    def of_user(self, user: User) -> AbstractAsyncContextManager[Pool, None]:
        """Return a lease of the running loop's pool that serves this user."""
        return self._per_user(user.id) if self.options.mode == "per_user" else self._shared()

    async def acquire(self, stack: AsyncExitStack, lease: AbstractAsyncContextManager[Pool, None]) -> Connection:
        """Hold a pool and a connection of it until the stack ends."""
        pool = await stack.enter_async_context(lease)
        bound = asyncio.timeout(self.options.acquire_timeout)  # the driver's own makes a task for it
        try:
            async with bound:
                return await stack.enter_async_context(pool.acquire())
        except TimeoutError as error:
            if not bound.expired():
                raise
            raise TimeoutError(
                f"no connection within acquire_timeout={self.options.acquire_timeout:g} s: {pool.get_size()} of"
                f" {pool.get_max_size()} are open, {pool.get_idle_size()} of them idle"
            ) from error

    async def warm(self, user: User | None) -> None:
        """
        Open the running loop's pools whose database is known; in per-user mode, this user's.

        A user's pool opens without a connection, so one is had of it; without a user, of a pool for that purpose.
        """
        if not (self.options.user_dsn() or self.options.service_address()):
            _required(None, "DATABASE_URL", "dsn")
        if self.options.service_address():
            await self.service.get()
        if self.options.user_dsn():
            if self.options.mode == "shared":
                await self._shared.get()
            elif user is not None:
                async with AsyncExitStack() as stack:
                    await self.acquire(stack, self.of_user(user))
            else:
                pool = await self._open(self.options.user_dsn() or "", verify_role, 1, 1)
                await pool.close()

    async def aclose(self) -> None:
        """Close the running loop's pools."""
        for each in (self._per_user, self._shared, self.service):
            await each.aclose()

    def close(self, timeout: float) -> None:
        """Close every loop's pools, each on its own loop: all that can be, also when some take too long."""
        failed: TimeoutError | WrongThreadError | None = None
        for each in (self._per_user, self._shared, self.service):
            try:
                each.close(timeout)
            except (TimeoutError, WrongThreadError) as error:
                failed = error
        if failed is not None:
            raise failed

    def are_closed(self) -> bool:
        """Tell whether none is open, opening or closing, on any loop."""
        return not any(each.statistics().instances for each in (self._per_user, self._shared, self.service))

    def metrics(self) -> PoolMetrics:
        """Return what `ConnectionPoolManager.get_metrics` tells."""
        per_user, shared, service = (each.statistics() for each in (self._per_user, self._shared, self.service))
        every = (per_user, shared, service)
        instances = [one for each in every for one in each.instances if one.is_open]
        pools = Counter(one.home for one in instances)
        in_use: Counter[object] = Counter()
        for one in instances:
            in_use[one.home] += one.leases
        return {
            "mode": self.options.mode,
            "hits": sum(each.hits for each in every),
            "misses": sum(each.misses for each in every),
            "evictions": per_user.evicted,
            "active_pools": len(instances),
            "active_user_pools": sum(one.is_open for one in per_user.instances),
            "loops": [
                {"loop": str(home), "pools": count, "in_use": in_use[home]} for home, count in pools.items()
            ],
        }

    async def _open_service_pool(self) -> Pool:
        dsn = _required(self.options.service_address(), "SERVICE_DATABASE_URL", "service_dsn")
        return await self._open(dsn, None, self.options.min_size, self.options.max_size)

    async def _open_shared_pool(self) -> Pool:
        dsn = _required(self.options.user_dsn(), "DATABASE_URL", "dsn")
        return await self._open(dsn, verify_role, self.options.min_size, self.options.max_size)

    async def _open_pool_of(self, user_id: str) -> Pool:
        dsn = _required(self.options.user_dsn(), "DATABASE_URL", "dsn")
        return await self._open(dsn, verify_role, 0, self.options.user_max_size)

    async def _open(self, dsn: str, verify: Prepare | None, min_size: int, max_size: int) -> Pool:
        given = dict(self.options.pool_options)
        init: Prepare | None = given.pop("init", None)
        kind = watched(given.pop("connection_class", asyncpg.Connection))
        refuse = None if self.options.pooler == "session" else refuse_pooler

        async def start(connection: RawConnection) -> None:
            for step in (refuse, verify, init):
                if step is not None:
                    await step(connection)
            await mark_session(connection, is_new=init is None)

        return await asyncpg.create_pool(
            dsn,
            min_size=min_size,
            max_size=max_size,
            connection_class=kind,
            init=start,
            reset=reset_session,
            **given,
        )


def _required(dsn: str | None, variable: str, argument: str) -> str:
    if not dsn:
        remedy = f"set {variable} or call ConnectionPoolManager.configure({argument}=...)"
        raise ConfigurationError("no database address (DSN)", remedy)
    return dsn
