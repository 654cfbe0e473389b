"""What the team of the seed document 002 asked for: three tests, on their pool and on ours, and a clean log."""

import re
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from production import Process, Production, wait_until

from workflow_service.testing.providers import ProviderServer

pytestmark = [pytest.mark.needs("postgres", "redis"), pytest.mark.timeout(240)]

LOOP_ERRORS = re.compile(
    "Event loop is closed|different loop|was never awaited|Task was destroyed|never retrieved|WrongLoopError|"
    "another loop is running|cannot be called from a running event loop|Traceback"
)


@pytest.mark.parametrize("pool", ["eventlet", "asyncio"])
def test_restarted_concurrent_and_sequential_jobs_all_succeed(production: Production, pool: str) -> None:
    """`emergency_contacts` right after a restart, 3 at once, 10 in a row: no loop error, no connection left."""
    with ProviderServer() as providers:
        settings = dict(providers.environment)
        production.start_api(**settings)

        def run() -> str:
            run_id = production.execute("emergency_contacts", {"location": "Berlin"})
            return str(production.wait_for_end(run_id)["status"])

        first = production.start_worker("--pool", pool, "--concurrency", "10", **settings)
        assert run() == "succeeded"
        assert first.stop() == 0
        worker = production.start_worker("--pool", pool, "--concurrency", "10", **settings)
        assert run() == "succeeded", "right after the restart"
        with ThreadPoolExecutor(3) as users:
            assert [each.result() for each in [users.submit(run) for _ in range(3)]] == ["succeeded"] * 3
        assert [run() for _ in range(10)] == ["succeeded"] * 10
        wait_until(lambda: _connections(worker, providers.address) == 0)
        assert worker.stop() == 0
    for each in (first, worker):
        assert not LOOP_ERRORS.search(each.text), each.text


def _connections(worker: Process, address: str) -> int:
    """Return how many connections a worker has to an address."""
    port = int(address.rpartition(":")[2])
    connections = psutil.Process(worker.popen.pid).net_connections("tcp")
    return len([each for each in connections if each.raddr and each.raddr.port == port])
