"""What the tests of recovery share: the app as its client sees it, and a line to the database that can be cut."""

import asyncio
import importlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from celery import Celery
from cryptography.fernet import Fernet

from homeloop import LoopRuntime, default_runtime, run

WAIT = 60.0  # seconds for anything; tells a hang from an answer
TABLES = """
CREATE TABLE notes (id bigserial, task_id text, fence bigint, pid int, what text, step int);
CREATE TABLE gates (name text);
"""


class Client:
    """
    Sends the app's tasks, and looks at what they do.

    Attributes:
        tasks: The app's module.
    """

    def __init__(self, tasks: ModuleType, wait_until: Callable[..., None]) -> None:
        self.tasks = tasks
        self._wait_until = wait_until

    def ask(self, query: str, *args: object) -> list[Any]:
        """Ask the test's database, over the app's pool on the default runtime."""

        async def fetch() -> list[Any]:
            async with self.tasks.pools() as pool:
                return list(await pool.fetch(query, *args))

        return run(fetch, timeout=WAIT)

    def notes(self, task_id: str) -> list[tuple[str, int | None]]:
        """Return what a task has written down."""
        rows = self.ask("SELECT what, step FROM notes WHERE task_id = $1 ORDER BY id", task_id)
        return [(row["what"], row["step"]) for row in rows]

    def fences(self, task_id: str, what: str) -> list[int]:
        """Return by which runs a task has written something down."""
        rows = self.ask("SELECT fence FROM notes WHERE task_id = $1 AND what = $2 ORDER BY id", task_id, what)
        return [row["fence"] for row in rows]

    def open_gate(self, name: str) -> None:
        """Let the tasks that wait there go on."""
        self.ask("INSERT INTO gates VALUES ($1)", name)

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait, within a bound, for something that happens elsewhere."""
        self._wait_until(condition, what, WAIT)

    def ready(self) -> int:
        """Return how many workers have been ready so far."""
        log = self.tasks.log
        return len(log.read_text().splitlines()) if log.exists() else 0

    def state_of(self, task_id: str) -> str | None:
        """Return what recovery has written down of a task."""
        rows = self.ask("SELECT state FROM homeloop_recovery WHERE task_id = $1", task_id)
        return rows[0]["state"] if rows else None


@pytest.fixture
def client(
    own_database: str,
    celery_environment: None,
    close_client: Callable[[Celery], None],
    wait_until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Client]:
    """The app's client. What changes the app's settings comes before."""

    async def make_tables() -> None:
        connection = await asyncpg.connect(own_database)
        try:
            await connection.execute(TABLES)
        finally:
            await connection.close()

    asyncio.run(make_tables())
    monkeypatch.setenv("SEED_KEYS", Fernet.generate_key().decode())
    monkeypatch.setenv("RECOVERY_DSN", own_database)
    monkeypatch.setenv("CELERY_CUSTOM_WORKER_POOL", "homeloop.adapters.celery.pool:TaskPool")
    import recovery_tasks

    module = importlib.reload(recovery_tasks)
    yield Client(module, wait_until)
    default_runtime().close()
    module.app.control.purge()
    close_client(module.app)


@pytest.fixture
def tasks(client: Client) -> ModuleType:
    """The app's module, as the client sees it."""
    return client.tasks


class Line:
    """
    A TCP line to a server that can be made to hang, as behind a firewall that drops: nobody is told.

    Args:
        url: Of the server.

    Attributes:
        url: Of this end of the line.
    """

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self._server = where.hostname, where.port
        self._runtime = LoopRuntime(name="line")
        self._hangs = False
        self._kept = 0  # pieces that were not passed on
        self._open: set[asyncio.StreamWriter] = set()
        self._lines: set[asyncio.Task[None]] = set()
        self._listening = self._runtime.run(self._listen)
        port = self._listening.sockets[0].getsockname()[1]
        user = (
            f"{where.username}:{where.password}@"
            if where.password
            else f"{where.username}@" * bool(where.username)
        )
        self.url = where._replace(netloc=f"{user}127.0.0.1:{port}").geturl()

    def hang(self) -> None:
        """Pass nothing on any more: not on the connections that there are, which never will, nor on new ones."""
        self._kept = 0
        self._hangs = True

    def heal(self) -> None:
        """Pass on what comes over new connections."""
        self._hangs = False

    @property
    def is_tried(self) -> bool:
        """Whether somebody has sent something since it hangs."""
        return self._kept > 0

    def close(self) -> None:
        """Close all connections. Idempotent."""
        if not self._runtime.is_closed:
            self._runtime.run(self._close)
            self._runtime.close()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._connect, "127.0.0.1", 0)

    async def _close(self) -> None:
        self._listening.close()
        for writer in self._open:
            writer.close()
        if self._lines:
            await asyncio.wait(self._lines)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._server)
        task = asyncio.current_task()
        assert task is not None
        self._lines.add(task)
        self._open |= {writer, back}
        ways = [asyncio.create_task(each) for each in (self._pass(reader, back), self._pass(there, writer))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for each in (writer, back):
            each.close()
        await asyncio.wait(ways)
        self._open -= {writer, back}
        self._lines.discard(task)

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        is_dead = False
        try:
            while data := await source.read(65536):
                is_dead = is_dead or self._hangs
                if is_dead:
                    self._kept += 1
                else:
                    target.write(data)
                    await target.drain()
        except ConnectionError:
            pass


@pytest.fixture
def lines() -> Iterator[Callable[[str], Line]]:
    """Make lines to servers, by their URLs."""
    made: list[Line] = []

    def make(url: str) -> Line:
        made.append(Line(url))
        return made[-1]

    yield make
    for each in made:
        each.close()
