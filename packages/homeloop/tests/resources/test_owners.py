"""Owners of loops as people have them, each a process of its own: what the server saw of their pools."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

pytestmark = [pytest.mark.needs("postgres")]

BOUND = 30.0  # seconds
SIZE = 2  # connections of a pool
POOLS = f"""
import asyncio, os
import asyncpg
from homeloop import LoopLocal

pools = LoopLocal(lambda: asyncpg.create_pool(os.environ["DSN"], min_size={SIZE}, max_size={SIZE}))

async def work():
    async with pools() as pool:
        return await pool.fetchval("select 1")
"""
# Abandoned is a session whose client went away without a word: what a pool that is not closed leaves.
SESSIONS = """
SELECT sessions, sessions_abandoned + sessions_fatal + sessions_killed AS unclean,
       (SELECT count(*) FROM pg_stat_activity WHERE datname = $1) AS left
FROM pg_stat_database WHERE datname = $1
"""


def run(*command: str, folder: Path, **environment: str) -> str:
    """Run a program to its end, which must be good and quiet; return its output."""
    ended = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout + ended.stderr
    return ended.stdout


SERVED = (
    POOLS
    + """
import sys
import uvicorn

others = LoopLocal(lambda: asyncpg.create_pool(os.environ["DSN"], min_size=2, max_size=2))

async def app(scope, receive, send):
    assert await work() == 1
    await send({"type": "http.response.start", "status": 204})
    await send({"type": "http.response.body"})

async def main():
    await others.warm()
    config = uvicorn.Config(app, fd=int(sys.argv[1]), lifespan="off", log_level="warning")
    await uvicorn.Server(config).serve()

if __name__ == "__main__":
    asyncio.run(main())
"""
)


def serve(folder: Path, dsn: str, command: Callable[[str], tuple[str, ...]]) -> None:
    """Start uvicorn on an open socket, make three requests, have it stopped by SIGTERM."""
    (folder / "served.py").write_text(SERVED)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = subprocess.Popen(
            [sys.executable, "-W", "default", *command(str(listening.fileno()))],
            cwd=folder,
            env={**os.environ, "DSN": dsn},
            pass_fds=[listening.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            for _ in range(3):
                with socket.create_connection(listening.getsockname(), BOUND) as client:
                    client.settimeout(BOUND)
                    client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    assert client.recv(1000).startswith(b"HTTP/1.1 204")
            server.send_signal(signal.SIGTERM)
            _, told = server.communicate(timeout=BOUND)
        finally:
            server.kill()
            server.wait()
    # It ends itself by the signal it was sent, after its clean-up.
    assert (server.returncode, told) == (-signal.SIGTERM, "")


def uvicorn_command(folder: Path, dsn: str) -> int:
    """As most people start it."""
    options = ("--lifespan", "off", "--log-level", "warning")
    serve(folder, dsn, lambda fd: ("-m", "uvicorn", "served:app", "--fd", fd, *options))
    return 1


def uvicorn_in_a_loop_in_use(folder: Path, dsn: str) -> int:
    """A program's own asyncio.run, which has opened something before the server begins."""
    serve(folder, dsn, lambda fd: ("served.py", fd))
    return 2


def pytest_asyncio(folder: Path, dsn: str) -> int:
    """Tests on a loop each, and tests that share the session's."""
    (folder / "test_it.py").write_text(
        POOLS
        + textwrap.dedent("""
            import pytest

            seen = []

            async def use():
                assert await work() == 1
                seen.append(await pools.get())

            @pytest.mark.asyncio
            async def test_function_one():
                await use()

            @pytest.mark.asyncio
            async def test_function_two():
                await use()

            @pytest.mark.asyncio(loop_scope="session")
            async def test_session_one():
                await use()

            @pytest.mark.asyncio(loop_scope="session")
            async def test_session_two():
                await use()
                assert seen[2] is seen[3]
                assert len(set(seen)) == 3
                assert pools.statistics().closed == 2
        """)
    )
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    told = run(
        *(sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "pytest_asyncio.plugin", "test_it.py"),
        folder=folder,
        DSN=dsn,
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
    )
    assert "4 passed" in told
    return 3


def jupyter(folder: Path, dsn: str) -> int:
    """Cells of a notebook, which await at their top level on the kernel's loop; the kernel is shut down."""
    client = """
        import sys
        from jupyter_client import KernelManager

        manager = KernelManager(kernel_name="python3", transport="ipc")
        manager.start_kernel()
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=20)
        for cell in (sys.stdin.read(), "print(await work())", "print(pools.statistics().opened)"):
            client.execute_interactive(cell, timeout=20)
        client.stop_channels()
        manager.shutdown_kernel()
        manager.cleanup_resources()
    """
    home = {name: str(folder) for name in ("HOME", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(client)],
        cwd=folder,
        env={**os.environ, **home, "DSN": dsn},
        input=POOLS,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "1\n1\n"), ended.stderr
    return 1


def script_that_closes_no_loop(folder: Path, dsn: str) -> int:
    """``run_until_complete``, and nothing after it."""
    source = POOLS + "\nloop = asyncio.new_event_loop()\nprint(loop.run_until_complete(work()))\n"
    assert run(sys.executable, "-c", source, folder=folder, DSN=dsn) == "1\n"
    return 1


def loop_on_a_daemon_thread(folder: Path, dsn: str) -> int:
    """The loop that people write by hand, running when the process exits."""
    source = POOLS + textwrap.dedent("""
        import threading
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        print(asyncio.run_coroutine_threadsafe(work(), loop).result(10))
    """)
    assert run(sys.executable, "-W", "default", "-c", source, folder=folder, DSN=dsn) == "1\n"
    return 1


OWNERS = (
    uvicorn_command,
    uvicorn_in_a_loop_in_use,
    pytest_asyncio,
    jupyter,
    script_that_closes_no_loop,
    loop_on_a_daemon_thread,
)


@pytest.mark.parametrize("owner", OWNERS, ids=lambda owner: owner.__name__)
def test_the_server_saw_every_connection_closed(
    owner: Callable[[Path, str], int], own_database: str, postgres_url: str, tmp_path: Path
) -> None:
    """As many sessions as pools times their size; none is left, and none was lost without a word."""
    opened = owner(tmp_path, own_database)
    name = own_database.rpartition("/")[2]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        counts = connection.execute(SESSIONS.replace("$1", "%(name)s"), {"name": name}).fetchone()
    assert counts == (SIZE * opened, 0, 0)
