"""Samples of the documents that started homeloop, as they are written there save the import lines."""

import textwrap
from typing import Any

import pytest

# from modelhub.serving import AsyncExecutor
USAGE = """
from homeloop.serving import AsyncExecutor

# Works correctly in all contexts now
result = AsyncExecutor.run_async(
    async_function,
    *args,
    timeout=30,
    **kwargs
)
"""


@pytest.mark.parametrize("where", ["module", "cell", "thread"])
def test_004_usage(where: str, script: Any) -> None:
    """At a program's top level, inside a running loop, and in a worker thread of one."""
    begin = "async def async_function(*args, **kwargs): return args, kwargs\nargs, kwargs = (1, 2), {'three': 3}\n"
    inside = f"def inside():\n{textwrap.indent(USAGE, '    ')}\n    return result\n"
    cell = "async def cell(): return inside()\n"
    ends = {
        "module": f"{begin}{USAGE}\nprint(result)",
        "cell": f"import asyncio\n{begin}{inside}{cell}print(asyncio.run(cell()))",
        "thread": f"import asyncio\n{begin}{inside}print(asyncio.run(asyncio.to_thread(inside)))",
    }
    ended = script(ends[where], timeout=60.0)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "((1, 2), {'three': 3})\n", "")


LOOPS_OF_THEIR_OWN = """
import asyncio, os
from concurrent.futures import ThreadPoolExecutor
import httpx
from homeloop import LoopLocal
from homeloop.serving import AsyncExecutor

clients = LoopLocal(httpx.AsyncClient)

async def ask():
    async with clients() as client:
        return (await client.get(os.environ["URL"])).json()

def before():
    coro = ask()
    # Instead of manually creating and managing loops:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        result = loop.run_until_complete(coro)
    finally:
        loop.close()
    return result

def after():
    coro = ask()
    # We now use:
    result = asyncio.run(coro)
    return result

def here():
    return AsyncExecutor.run_async(ask)

with ThreadPoolExecutor(6) as pool:
    for work in 2 * [before, after, here]:
        print(*pool.map(lambda _: work(), range(6)))
"""


def test_004_asyncio_run_beside_it(script: Any, site: Any) -> None:
    """004, both ways of "Using asyncio.run() for Complete Isolation", with the clients that ours use."""
    ended = script(LOOPS_OF_THEIR_OWN, timeout=60.0, URL=f"{site.url}/")
    assert (ended.returncode, ended.stdout) == (0, 6 * "ok ok ok ok ok ok\n"), ended.stderr
    assert "Event loop is closed" not in ended.stderr
    site.wait_for_no_connection()


# logging.getLogger('app.core.async_utils').setLevel(logging.DEBUG)
# from app.database.connection import ConnectionPoolManager
DEBUGGING = """
import logging

logging.basicConfig()
logging.getLogger('homeloop').setLevel(logging.DEBUG)

# Check current event loop state
import asyncio
try:
    loop = asyncio.get_running_loop()
    print(f"Loop ID: {id(loop)}, Closed: {loop.is_closed()}")
except RuntimeError:
    print("No running event loop")

# Check database pool state
from homeloop.database import ConnectionPoolManager
metrics = ConnectionPoolManager.get_metrics()
print(f"Pool metrics: {metrics}")
"""


def test_000_logging_and_debug_commands(script: Any) -> None:
    """000, "Logging" and "Debug Commands": homeloop's own logger says when a loop begins and ends."""
    ended = script(f"{DEBUGGING}\nimport homeloop\nhomeloop.run(asyncio.sleep, 0)\n", timeout=60.0)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("No running event loop\nPool metrics: {'mode': 'shared', ")
    assert "DEBUG:homeloop:RuntimeStarted(" in ended.stderr


# from app.core.async_utils import detect_cross_loop_issue
DETECTION = """
import asyncio

async def make():
    return asyncio.get_running_loop().create_future()

async def use(future):
    await future

kept = [asyncio.new_event_loop()]
try:
    asyncio.run(use(kept[0].run_until_complete(make())))
except RuntimeError as error:
    exception = error

from homeloop.async_utils import detect_cross_loop_issue
if detect_cross_loop_issue(exception):
    print("This is a cross-loop issue")

assert not detect_cross_loop_issue(RuntimeError(*exception.args)), "the words alone are none"
kept[0].close()
"""


def test_001_cross_loop_detection(script: Any) -> None:
    """001, "Debugging Tools" 2."""
    ended = script(DETECTION)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "This is a cross-loop issue\n", "")


EXTERNAL_SERVICE = """
import os
from abc import ABC
import httpx
from homeloop.serving import AsyncExecutor

class ExternalService(ABC):
    def __init__(self, timeout=10.0):
        self.timeout = timeout

    async def __aenter__(self):
        \"""Create HTTP client for this context.\"""
        self._http_client = httpx.AsyncClient(
            timeout=httpx.Timeout(self.timeout),
            follow_redirects=True
        )
        return self

    async def __aexit__(self, exc_type, exc_val, exc_tb):
        \"""Clean up HTTP client.\"""
        if hasattr(self, '_http_client') and self._http_client:
            await self._http_client.aclose()
            delattr(self, '_http_client')
        return False

class Site(ExternalService):
    async def call(self, operation, params, user_id, cache_ttl):
        # Access client directly (created by context manager)
        client = self._http_client
        answer = await client.get(os.environ["URL"])
        assert operation == "ask", operation
        return answer.json()

async def execute(service_class, operation):
    # Use service as context manager for proper lifecycle
    async with service_class() as service:
        # Execute API request
        response = await service.call(
            operation=operation,
            params={},
            user_id="alice",
            cache_ttl=60
        )
        return response

for _ in range(10):
    assert AsyncExecutor.run_async(execute, Site, "ask") == "ok"
assert AsyncExecutor.map_async(lambda _: execute(Site, "ask"), range(3)) == ["ok"] * 3
try:
    AsyncExecutor.run_async(execute, Site, "fail")
except AssertionError as error:
    print("failed:", error)
"""


def test_002_external_service(script: Any, site: Any) -> None:
    """002, "Modify ExternalService Base Class" and its users: in turn, at once, closed on errors, too."""
    ended = script(EXTERNAL_SERVICE, timeout=60.0, URL=f"{site.url}/")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "failed: fail\n", "")
    site.wait_for_no_connection()
