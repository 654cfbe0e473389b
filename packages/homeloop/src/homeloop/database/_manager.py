"""The process's database pools, by the name under which the documents know them."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from homeloop import User, current_user
from homeloop.database._options import Mode, Options
from homeloop.database._pools import PoolMetrics, Pools
from homeloop.database._sessions import user_settings
from homeloop.errors import ConfigurationError


class ConnectionPoolManager:
    """
    One configuration of database pools for the process; the pools are every loop's own.

    They open on first use, are closed on their own loop before it ends, whoever owns it, and are
    never seen by another loop. A forked child opens its own. Used as a class, never built.
    """

    _pools: ClassVar[Pools | None] = None

    @classmethod
    def configure(
        cls,
        dsn: str | None = None,
        *,
        service_dsn: str | None = None,
        mode: Mode = "shared",
        user_settings: Callable[[User], Mapping[str, str]] = user_settings,
        min_size: int = 1,
        max_size: int = 10,
        user_max_size: int = 2,
        max_user_pools: int = 50,
        max_user_pool_idle: float = 300.0,
        acquire_timeout: float | None = 30.0,
        close_timeout: float = 5.0,
        pooler: Literal["session"] | None = None,
        **pool_options: Any,
    ) -> None:
        """
        Say where the database is and how its pools are kept. Without it, all is as the defaults say.

        Args:
            dsn: Where users' connections go; by default the variable DATABASE_URL, read when a pool
                opens. Its role must be bound by row level security: neither SUPERUSER nor BYPASSRLS,
                nor a member of such a role, nor the owner of tables that do not force it.
            service_dsn: Where the service's connections go; by default SERVICE_DATABASE_URL.
            mode: One pool for all users of a loop, or one for each user, so that a connection never
                changes hands.
            user_settings: The settings that the policies read, for a user. The name ``role`` sets
                the role of the transaction.
            min_size: Connections that a shared or service pool opens at once, per loop.
            max_size: Connections that it opens at most.
            user_max_size: Connections that a user's own pool opens at most; it begins with none.
            max_user_pools: Users' pools per loop; beyond, the least recently used idle one is closed.
            max_user_pool_idle: Seconds after which an unused user's pool is closed.
            acquire_timeout: Seconds to wait for a free connection; None waits for ever.
            close_timeout: Seconds that closing a pool may take, waiting for its connections included.
            pooler: Say ``"session"`` if a pooler such as PgBouncer stands between, and pools sessions.
                Poolers of transactions are refused when a pool opens: what a transaction leaves in
                its session could not be removed.
            pool_options: For `asyncpg.create_pool`. ``init`` runs after our own, and what it prepares and
                sets up stays; ``reset`` cannot be set.

        Raises:
            ConfigurationError: Pools are open; nothing was changed. Call `close` first.
            ValueError: An argument is none of those it may be; nothing was changed.

        Thread: any.
        """
        options = Options(
            dsn=dsn,
            service_dsn=service_dsn,
            mode=mode,
            user_settings=user_settings,
            min_size=min_size,
            max_size=max_size,
            user_max_size=user_max_size,
            max_user_pools=max_user_pools,
            max_user_pool_idle=max_user_pool_idle,
            acquire_timeout=acquire_timeout,
            close_timeout=close_timeout,
            pooler=pooler,
            pool_options=pool_options,
        )
        options.check()
        if cls._pools is not None and not cls._pools.are_closed():
            raise ConfigurationError(
                "database pools are open",
                "call ConnectionPoolManager.close() first; on a loop that is open but does not run, run aclose()",
            )
        cls._pools = Pools(options)

    @classmethod
    def current(cls) -> Pools:
        """Return the pools as they are configured. Thread: any."""
        assert cls._pools is not None  # configured below
        return cls._pools

    @classmethod
    async def warm(cls) -> None:
        """
        Open the running loop's pools: those whose database is known, the current user's among them.

        Raises: as `ensure_async_pool_initialization`.
        """
        await cls.current().warm(current_user())

    @classmethod
    async def aclose(cls) -> None:
        """Close the running loop's pools; the next use opens new ones. Those of other loops stay."""
        await cls.current().aclose()

    @classmethod
    def close(cls, timeout: float = 10.0) -> None:
        """
        Close every loop's pools, each on its own loop, and wait up to ``timeout`` seconds for each.

        Pools of loops that are open and do not run now are left: run `aclose` there.

        Raises:
            WrongThreadError: The calling thread runs a loop with pools: await `aclose` there. Pools of which this
                loop has none of the same kind (users', the service's) are closed.
            TimeoutError: A loop did not close its pools in time; the others' are closed.
        """
        cls.current().close(timeout)

    @classmethod
    def get_metrics(cls) -> PoolMetrics:
        """Return what the pools of this process did and are doing, as data for JSON. Thread: any."""
        return cls.current().metrics()


ConnectionPoolManager.configure()  # the defaults; nothing opens yet
