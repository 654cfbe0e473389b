"""The failure of the source documents, and its end: Celery + LangGraph + asyncpg."""

import os
import re
import signal
import subprocess
import time

import asyncpg
import pytest
from celery.result import AsyncResult

import homeloop

pytestmark = [pytest.mark.needs("redis", "postgres"), pytest.mark.timeout(180)]
TASKS = 100
WAIT = 60.0  # seconds for all results
NAIVE_WAIT = 20.0
DOCUMENTED = re.compile("attached to a different loop|Event loop is closed|died of SIGSEGV")


@pytest.fixture
def scenario(celery_environment: None, load_app):  # type: ignore[no-untyped-def]
    """The app's module, as the sender sees it."""
    return load_app("seed_scenario")


async def _connections(application: str) -> int:
    connection = await asyncpg.connect(os.environ["SEED_DSN"].partition("?")[0])
    try:
        count = "select count(*) from pg_stat_activity where application_name = $1"
        return int(await connection.fetchval(count, application))
    finally:
        await connection.close()


def _failures(results: list[AsyncResult], worker: "subprocess.Popen[bytes]") -> str:
    """What the tasks raised; two loops in one asyncpg pool may also kill the worker, or hang it for good."""
    deadline = time.monotonic() + NAIVE_WAIT
    while time.monotonic() < deadline and worker.poll() is None and not all(each.ready() for each in results):
        time.sleep(0.05)
    errors = [repr(each.result) for each in results if each.ready() and each.failed()]
    if worker.poll() is not None:
        errors.append(f"the worker died of {signal.Signals(-worker.returncode).name}")
    return "\n".join(errors)


POOLS = pytest.mark.parametrize(("pool", "concurrency", "processes"), [("prefork", 2, 2), ("threads", 8, 1)])


@POOLS
def test_the_naive_way_fails_as_documented(
    scenario, start_worker, pool: str, concurrency: int, processes: int
) -> None:
    """A pool kept in the module and asyncio.run in each task: the documented error, in a real worker."""
    with start_worker("seed_scenario", pool, concurrency, warm=False) as worker:
        naive = [scenario.naive.delay(i) for i in range(12)]
        assert DOCUMENTED.search(_failures(naive, worker))


@pytest.mark.parametrize(
    ("pool", "concurrency", "processes"),
    [("prefork", 2, 2), ("threads", 8, 1), ("solo", 1, 1), ("gevent", 20, 1), ("eventlet", 10, 1)],
)
def test_the_same_work_through_homeloop_succeeds(
    scenario, start_worker, pool: str, concurrency: int, processes: int
) -> None:
    """100 tasks all succeed, on no more connections than the pools allow; none is left after the worker's end."""
    with start_worker("seed_scenario", pool, concurrency):
        results = [scenario.at_home.delay(i) for i in range(TASKS)]
        backends = [result.get(timeout=WAIT) for result in results]
        assert len(backends) == TASKS
        assert all(len(each) == 3 for each in backends)
        used = {backend for each in backends for backend in each}
        assert len(used) <= processes * scenario.POOL_SIZE
        open_now = homeloop.run(_connections, os.environ["SEED_APPLICATION"])
        assert 0 < open_now <= processes * scenario.POOL_SIZE
    assert homeloop.run(_connections, os.environ["SEED_APPLICATION"]) == 0
