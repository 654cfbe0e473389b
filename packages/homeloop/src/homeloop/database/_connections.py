"""The doors: a connection for the current user, one for the service, and pools that are open in advance."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType

import asyncpg

from homeloop import current_user
from homeloop.database._manager import ConnectionPoolManager
from homeloop.database._sessions import Connection, enter_scope, verify_scope
from homeloop.errors import MissingUserError, UserScopeError


def get_user_connection() -> AbstractAsyncContextManager[Connection, None]:
    """
    Connect as the current user: ``async with get_user_connection() as connection``.

    The block is one transaction: committed at its end, rolled back if it fails or is cancelled.
    `asyncpg.Connection.transaction` inside is a savepoint. The user's settings, which row level
    security policies read (``app.user_id`` by default), hold for this transaction only, so no other
    user of the connection can meet them. Before the commit they are looked at once more.

    The user is the one of `homeloop.as_user` where the block is entered. It must not be written
    into by others: SQL of the user's own making can set the settings as well as we can.

    Raises, on entering:
        MissingUserError: There is no current user. Nothing was opened.
        ConfigurationError: Nobody said where the database is.
        UnsafeRoleError: The database role is exempt from row level security.
        TimeoutError: No connection became free in ``acquire_timeout`` seconds.

    Raises, on leaving:
        UserScopeError: The block left its transaction, lost its connection or changed its user. What was
            still open was rolled back; what the block had committed itself stays.

    Cancellation: rolls back; the connection is reset and goes back to its pool, or is closed.
    """
    return _Door(_enter_as_user)


def get_service_connection() -> AbstractAsyncContextManager[Connection, None]:
    """
    Connect as the service itself: ``async with get_service_connection() as connection``.

    It has a database address and a pool of its own, no user and no transaction.

    Raises, on entering: as `get_user_connection`, save what concerns users and their role.

    Cancellation: the connection is reset and goes back to its pool, or is closed.
    """
    return _Door(_enter_as_service)


async def ensure_async_pool_initialization() -> None:
    """
    Open the running loop's pools before they are needed, as at the start of a worker.

    Pools that are open already, and those of other loops, are left as they are.

    Raises:
        ConfigurationError: Nobody said where a database is, for users or for the service.
        UnsafeRoleError: Users' connections log in as a role exempt from row level security.
    """
    await ConnectionPoolManager.warm()


async def _enter_as_user(stack: AsyncExitStack) -> Connection:
    user = current_user()
    if user is None:
        raise MissingUserError
    pools = ConnectionPoolManager.current()
    settings = pools.options.user_settings(user)
    connection = await pools.acquire(stack, pools.of_user(user))
    transaction = connection.transaction()
    await transaction.__aenter__()

    async def end(
        kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or not _is_lost(connection):  # else its loss, not what follows, is the error to be seen
            await transaction.__aexit__(kind, error, traceback)

    async def verify(kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            if _is_lost(connection):
                raise UserScopeError(user.id, "its connection was closed or lost")
            await verify_scope(connection, user, held)

    stack.push_async_exit(end)
    held = await enter_scope(connection, settings)
    stack.push_async_exit(verify)
    return connection


async def _enter_as_service(stack: AsyncExitStack) -> Connection:
    pools = ConnectionPoolManager.current()
    return await pools.acquire(stack, pools.service())


def _is_lost(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # its pool has taken it back
        return True


class _Door(AbstractAsyncContextManager[Connection, None]):
    """
    Entered once: tasks that shared one would commit each other's transaction.

    Not an asynchronous generator: the loop's end would close that at the same time as the pool.
    """

    def __init__(self, enter: Callable[[AsyncExitStack], Awaitable[Connection]]) -> None:
        self._enter = enter
        self._entered = False
        self._held = AsyncExitStack()

    async def __aenter__(self) -> Connection:
        if self._entered:
            raise RuntimeError("a connection's block is entered once; call the function again for another one")
        self._entered = True
        async with AsyncExitStack() as stack:
            connection = await self._enter(stack)
            self._held = stack.pop_all()
        return connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._held.__aexit__(kind, error, traceback)
