"""Where LangGraph keeps its checkpoints: the same database, through psycopg, in the schema ``workflow``."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Any, TypeAlias
from uuid import UUID
from weakref import WeakSet

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
)
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncConnection, AsyncCursor, DatabaseError, OperationalError
from psycopg.rows import DictRow, dict_row
from psycopg.sql import SQL, Composed, Literal
from psycopg_pool import AsyncConnectionPool

from workflow_service.gateways.postgres.pooler import Pooler
from workflow_service.ports import ClaimLostError, StoreUnavailableError

_Pool: TypeAlias = AsyncConnectionPool[AsyncConnection[DictRow]]

_LOCK = 7_094_823_517_160_043  # beside the migrator's
_SET_UP_POLL = 0.05  # seconds
_OPEN_TIMEOUT = 30.0  # seconds for the first connection
_SEARCH_PATH = "SET search_path TO workflow"
_BEGIN = SQL("""
BEGIN;
SELECT workflow.enter_scope('run', {run_id}), set_config('workflow.attempt', {attempt}, true),
       set_config('search_path', 'workflow', true)
""")
_NO_ATTEMPT = "none"
_OUTDATED = "WS001"  # what the fence raises (migration 0007)
_CONNECTION: dict[str, Any] = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
"""What LangGraph asks of a connection. Any: psycopg types each option by itself."""

_TABLES = """
SELECT bool_or(NOT relrowsecurity AND relname <> 'checkpoint_migrations') AS unprotected
FROM pg_class
WHERE relnamespace = 'workflow'::regnamespace AND relkind = 'r' AND relname LIKE 'checkpoint%'
HAVING count(*) > 1
"""

# A worker that is frozen while it writes a checkpoint holds locks that the next one would wait for. It writes in
# a pipeline, where the server sees no transaction that is idle: transaction_timeout ends it, which PostgreSQL has
# from 17 on. lock_timeout, for older ones, lets the next worker fail instead of waiting for ever.
_BOUNDS = ("idle_in_transaction_session_timeout", "lock_timeout")
_TRANSACTION_TIMEOUT_SINCE = 170_000


class CheckpointPool(_Pool):
    """A pool whose connections tell of the loss of the database, or of a claim, as all of the service does."""

    def __init__(self, dsn: str, max_size: int, lease: float, pooler: Pooler | None = None) -> None:
        self._pooler = pooler
        self._waits = f"{max(1, round(lease * 1000))}ms"
        self._alive: WeakSet[AsyncConnection[DictRow]] = WeakSet()
        super().__init__(
            dsn,
            kwargs={**_CONNECTION, "prepare_threshold": None} if pooler else _CONNECTION,
            min_size=1,
            max_size=max_size,
            configure=self._prepare,
            check=_hear_farewell,
            open=False,
            name="checkpoints",
        )

    async def close(self, timeout: float = 5.0) -> None:
        """Close the pool and its connections, also when its own tasks have been cancelled.

        The owner of a loop that ends cancels all tasks first, the pool's workers too. psycopg_pool waits for
        them, takes their cancellation for its own and leaves its connections open.
        """
        try:
            await super().close(timeout)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            for connection in self._alive:
                await connection.close()

    async def _prepare(self, connection: AsyncConnection[DictRow]) -> None:
        self._alive.add(connection)
        if self._pooler is None:
            await connection.execute(self._bounds(connection, is_local=False))

    def beginning(self, connection: AsyncConnection[DictRow], begin: Composed) -> Composed:
        """Return what begins a transaction; it brings its bounds where its session is anybody's and has none."""
        return begin if self._pooler is None else begin + SQL(";") + self._bounds(connection, is_local=True)

    def _bounds(self, connection: AsyncConnection[DictRow], *, is_local: bool) -> Composed:
        has_more = connection.info.server_version >= _TRANSACTION_TIMEOUT_SINCE
        names = (*_BOUNDS, "transaction_timeout") if has_more else _BOUNDS
        set_each = SQL("set_config({}, {}, {})")
        return SQL("SELECT {}").format(
            SQL(", ").join(set_each.format(name, self._waits, is_local) for name in names)
        )

    @asynccontextmanager
    async def connection(self, timeout: float | None = None) -> AsyncIterator[AsyncConnection[DictRow]]:
        """Lend a connection; wait ``timeout`` seconds for a free one, None is the pool's own bound.

        Raises:
            StoreUnavailableError: The database could not be reached, or the connection broke in the body.
            ClaimLostError: The body wrote what the attempt that its scope names may not.
        """
        with _translated():
            async with super().connection(timeout) as connection:
                yield connection


@asynccontextmanager
async def open_checkpoint_pool(
    dsn: str, max_size: int, lease: float, *, direct_dsn: str | None = None, pooler: Pooler | None = None
) -> AsyncGenerator[CheckpointPool, None]:
    """Open a pool of at most ``max_size`` connections on the running loop, with LangGraph's tables in place.

    The schema ``workflow`` must be up to date. Any number of processes may do this at once. ``lease`` is how many
    seconds a transaction may last, and may wait for a lock: a run whose worker is frozen in one is lost.
    ``pooler`` stands between, ``direct_dsn`` leads past it: making LangGraph's tables takes a session.

    Raises:
        StoreUnavailableError: The database did not answer within 30 s.
    """
    pool = CheckpointPool(dsn, max_size, lease, pooler)
    try:
        with _translated():
            await pool.open(wait=True, timeout=_OPEN_TIMEOUT)
            await _set_up(direct_dsn or dsn)
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def saver_on(pool: CheckpointPool, run_id: UUID, attempt: int | None) -> AsyncIterator[AsyncPostgresSaver]:
    """Give an attempt at a run a saver of its own, which sees the checkpoints of that run and no others.

    Its own also because a saver holds one lock: runs that share one would wait for each other. What it writes is
    there when the attempt held the run at the moment of the commit; the database sees to that.

    Args:
        pool: Where its connections come from.
        run_id: The run.
        attempt: The number of the claim. With None it writes under an id that is no run's, and deletes there and
            where nothing is kept of a run any more.

    Raises:
        ClaimLostError: Out of the saver's methods: the run is not the attempt's. Nothing of that call was written.
        StoreUnavailableError: Likewise: the database did not answer.
    """
    yield _RunSaver(pool, run_id, attempt)


class _RunSaver(AsyncPostgresSaver):
    """LangGraph's saver, each of whose steps is a transaction in the scope of one run."""

    conn: CheckpointPool

    def __init__(self, pool: CheckpointPool, run_id: UUID, attempt: int | None) -> None:
        super().__init__(pool)
        claim = _NO_ATTEMPT if attempt is None else str(attempt)
        self._begin = _BEGIN.format(run_id=Literal(str(run_id)), attempt=Literal(claim))
        self._is_known_empty = self._has_written = False

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return a checkpoint. Of a run that has none this is asked once: a graph looks again when it begins."""
        if config.get("configurable", {}).get("checkpoint_ns") or get_checkpoint_id(config) is not None:
            return await super().aget_tuple(config)  # of a graph in the graph, or of a step before
        if self._is_known_empty:
            return None
        found = await super().aget_tuple(config)
        self._is_known_empty = found is None and not self._has_written
        return found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep a checkpoint."""
        self._has_written, self._is_known_empty = True, False
        return await super().aput(config, checkpoint, metadata, new_versions)

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[DictRow]]:
        # The one place where the saver takes a connection (a test asks the saver's source for that). What it
        # writes takes two round trips: one enters the scope, and COMMIT travels behind the statements, for a
        # pipeline waits for answers only where one is asked for. What raises is rolled back when it is left.
        async with self.lock, self.conn.connection() as connection:
            begin = self.conn.beginning(connection, self._begin)
            await connection.execute(begin, prepare=False)  # two statements in one message: not prepared
            piped = connection.pipeline() if self.supports_pipeline else nullcontext()
            async with piped, connection.cursor(binary=True, row_factory=dict_row) as cursor:
                yield cursor
                await connection.execute("COMMIT", prepare=False)


async def _hear_farewell(connection: AsyncConnection[DictRow]) -> None:
    """Raise OperationalError if the server has ended an idle connection, as far as can be heard without asking it.

    To ask it each time would be two round trips for whatever a saver does. And not by `select`: gevent and
    eventlet replace what is in there.
    """
    connection.pgconn.consume_input()  # its farewell, if there is one
    connection.pgconn.consume_input()  # the end behind it


@contextmanager
def _translated() -> Iterator[None]:
    # OperationalError: what psycopg and its pool raise when the database is away, ends a session or is overrun.
    try:
        yield
    except OperationalError as error:
        reason = str(error) or type(error).__name__
        message = f"the database did not answer ({reason}); check DATABASE_URL and its server"
        raise StoreUnavailableError(message) from error
    except DatabaseError as error:
        if error.sqlstate != _OUTDATED:
            raise
        raise ClaimLostError(error.diag.message_primary) from error


async def _is_ours(connection: AsyncConnection[DictRow]) -> bool:
    row = await (await connection.execute("SELECT pg_try_advisory_lock(%s) AS ours", (_LOCK,))).fetchone()
    return row is not None and bool(row["ours"])


async def _set_up(dsn: str) -> None:
    # LangGraph's set-up is not safe against itself, and it must not run in a transaction (it builds
    # indexes concurrently): so a lock of the session. On a connection of its own, which may take its time.
    async with await AsyncConnection[DictRow].connect(dsn, **_CONNECTION) as connection:
        if await _is_set_up(connection):
            return  # a role that may not make tables is enough then
        # Asked for again and again: an index is built when all statements have ended, the one that waits for
        # the lock among them, and PostgreSQL ends that as a deadlock.
        while not await _is_ours(connection):  # noqa: ASYNC110 - the others are other processes
            await asyncio.sleep(_SET_UP_POLL)
        await connection.execute(_SEARCH_PATH)
        await AsyncPostgresSaver(connection).setup()
        await connection.execute("SELECT workflow.protect()")


async def _is_set_up(connection: AsyncConnection[DictRow]) -> bool:
    found = await (await connection.execute(_TABLES)).fetchone()
    if found is None or found["unprotected"]:
        return False
    newest = len(AsyncPostgresSaver.MIGRATIONS) - 1
    kept = await (
        await connection.execute("SELECT max(v) AS version FROM workflow.checkpoint_migrations")
    ).fetchone()
    return kept is not None and kept["version"] is not None and kept["version"] >= newest
