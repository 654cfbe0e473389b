"""The contract analysis in every isolation tier, on a worker's real services: ends, cancellations, time limits."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any
from uuid import UUID

import psutil
import pytest

from workflow_service import bootstrap
from workflow_service.domain.run import CancelMode, Isolation, NewRun, Run, RunStatus
from workflow_service.gateways.postgres.documents import PostgresDocumentStore
from workflow_service.gateways.postgres.runs import PostgresRunStore
from workflow_service.settings import Settings
from workflow_service.usecases.execution import execute_run
from workflow_service.usecases.services import WorkerServices

pytestmark = [pytest.mark.needs("postgres"), pytest.mark.timeout(120)]

TIERS = list(Isolation)
STEPS = ["ingest", "segment", "extract", "assess", "report"]
CLOSE_GATE = "LOCK TABLE workflow.documents IN ACCESS EXCLUSIVE MODE"  # who reads a document waits
IS_AT_GATE = """
SELECT EXISTS (
    SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
    WHERE locktype = 'relation' AND NOT granted AND datname = current_database()
)
"""


class Bench:
    """A database, a worker's services, and runs of one contract."""

    def __init__(self, pool: Any, services: WorkerServices) -> None:
        self.pool = pool
        self.store = PostgresRunStore(pool.acquire)
        self._services = services

    async def submit(self, isolation: Isolation, **options: Any) -> Run:
        """Commit a run of a sample contract."""
        sample = files("workflow_service").joinpath("samples", "mutual-nda.pdf").read_bytes()
        documents = PostgresDocumentStore(self.pool.acquire)
        document = await documents.save("alice", "mutual-nda.pdf", "application/pdf", sample)
        asked = {"isolation": isolation.value, **options}
        run, _ = await self.store.create(
            NewRun("alice", "contract_analysis", {"document_id": str(document.id)}, asked)
        )
        return run

    async def execute(self, run_id: UUID) -> None:
        """Work as a worker does."""
        services = self._services
        await execute_run(
            run_id, runs=services.runs, feed=services.feed, perform=services.perform, worker_id="w", lease=60
        )

    async def ended(self, run: Run) -> Run:
        """Return how the run stands."""
        found = await self.store.get("alice", run.id)
        assert found is not None
        return found

    async def steps(self, run: Run) -> list[tuple[str, int]]:
        """Return the steps that stand, in order."""
        events = await self.store.events("alice", run.id)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        return [(event.data["step"], event.data["percent"]) for event in events if event.kind == "progress"]

    @asynccontextmanager
    async def stuck(self, run: Run) -> AsyncIterator[asyncio.Task[None]]:
        """Execute the run, which stands in its first step for as long as the body lasts."""
        async with self.pool.acquire() as holder, holder.transaction():
            await holder.execute(CLOSE_GATE)
            yield asyncio.create_task(self.execute(run.id))

    async def is_stuck(self) -> None:
        """Wait until the run stands at its gate."""
        async with asyncio.timeout(60):
            while not await self.pool.fetchval(IS_AT_GATE):  # noqa: ASYNC110 - the database decides
                await asyncio.sleep(0.02)


def own_processes() -> set[int]:
    """Return the processes below this one."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.fixture(scope="module")
def services(_migrated_database: str) -> Iterator[WorkerServices]:
    """A worker's services; a process of its own finds the same settings in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", _migrated_database)
        patch.setenv("BROKER_URL", "memory://")
        yield bootstrap.worker_services(Settings.from_environment())


@pytest.fixture
def bench(with_pool: Any, services: WorkerServices) -> Callable[[Callable[[Bench], Awaitable[None]]], None]:
    """Run a scenario with a bench."""

    def run(scenario: Callable[[Bench], Awaitable[None]]) -> None:
        async def main(pool: Any) -> None:
            await scenario(Bench(pool, services))

        with_pool(main)

    return run


@pytest.mark.parametrize("tier", TIERS)
def test_a_run_does_the_same_in_every_tier(bench: Any, tier: Isolation) -> None:
    """The same steps in the same order, each once, and the same result."""

    async def scenario(bench: Bench) -> None:
        run = await bench.submit(tier)
        await bench.execute(run.id)
        ended = await bench.ended(run)
        assert (ended.status, ended.error) == (RunStatus.SUCCEEDED, None)
        assert await bench.steps(run) == list(zip(STEPS, (20, 40, 60, 80, 100), strict=True))
        result = await bench.store.result("alice", run.id)
        assert result is not None
        assert b"governing_law" in result

    bench(scenario)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("mode", list(CancelMode))
def test_a_run_can_be_ended_in_every_tier_and_every_mode(
    bench: Any, tier: Isolation, mode: CancelMode, caplog: pytest.LogCaptureFixture
) -> None:
    """Told by the database's notification alone: the lease lasts a minute. What can be resumed ends whole."""

    caplog.set_level(logging.INFO, "workflow_service")

    async def scenario(bench: Bench) -> None:
        run = await bench.submit(tier)
        async with bench.stuck(run) as working:
            await bench.is_stuck()
            asked = await bench.store.request_cancel("alice", run.id, mode)
            assert asked is not None
            async with asyncio.timeout(20):
                if mode is CancelMode.DRAIN:
                    while not any("told to end" in each.getMessage() for each in caplog.records):  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                else:
                    await working
        async with asyncio.timeout(20):
            await working
        ended = await bench.ended(run)
        assert (ended.status, ended.cancel_mode) == (RunStatus.CANCELLED, mode)
        assert ended.step == ("ingest" if mode is CancelMode.DRAIN else None)
        if mode is CancelMode.ROLLBACK:
            assert not ended.can_resume
            return
        await bench.store.resume("alice", run.id)
        await bench.execute(run.id)
        assert (await bench.ended(run)).status is RunStatus.SUCCEEDED
        assert [step for step, _ in await bench.steps(run)] == STEPS

    bench(scenario)


@pytest.mark.parametrize("tier", TIERS)
def test_a_lost_run_ends_quietly_in_every_tier(
    bench: Any, tier: Isolation, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of it is kept, and the worker's log has one line of it: no traceback, no warning of the library."""

    async def scenario(bench: Bench) -> None:
        run = await bench.submit(tier)
        async with bench.stuck(run) as working:
            await bench.is_stuck()
            await bench.pool.execute("UPDATE workflow.runs SET lease_until = '-infinity' WHERE id = $1", run.id)
            assert await bench.store.claim(run.id, "another", 60) is not None
        async with asyncio.timeout(20):
            await working
        stands = await bench.ended(run)
        assert (stands.status, stands.attempt, stands.step) == (RunStatus.RUNNING, 2, None)

    bench(scenario)
    [told] = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert told.name == "workflow_service.usecases.execution"
    assert "outdated" in told.getMessage()
    assert told.exc_info is None


@pytest.mark.parametrize("tier", TIERS)
def test_a_run_that_takes_too_long_fails_and_says_so(bench: Any, tier: Isolation) -> None:
    """The error names the time that was allowed; the run can be resumed."""

    async def scenario(bench: Bench) -> None:
        run = await bench.submit(tier, timeout=1.5)
        async with bench.stuck(run) as working, asyncio.timeout(20):
            await working
        ended = await bench.ended(run)
        assert (ended.status, ended.can_resume) == (RunStatus.FAILED, True)
        assert ended.error is not None
        assert ended.error["type"] == "RunTimeoutError"
        assert "its timeout of 1.5 s" in ended.error["message"]

    bench(scenario)


def test_the_death_of_a_runs_own_process_is_a_loss_and_another_attempt_follows(bench: Any) -> None:
    """SIGKILL of the process (by the kernel, out of memory, say): the run is queued again, after a pause."""

    async def scenario(bench: Bench) -> None:
        run = await bench.submit(Isolation.PROCESS)
        async with bench.stuck(run) as working:
            await bench.is_stuck()
            [process] = [pid for pid in own_processes() if is_working(pid)]
            os.kill(process, 9)
            async with asyncio.timeout(20):
                await working
        ended = await bench.ended(run)
        assert ended.status is RunStatus.QUEUED
        requeued = (await bench.store.events("alice", run.id))[-1].data
        assert (requeued["reason"], requeued["error"]["type"]) == ("unavailable", "ProcessLostError")

    bench(scenario)


def is_working(pid: int) -> bool:
    """Whether a process is one that a run has for its own: the youngest generation, with a connection open."""
    process = psutil.Process(pid)
    return not process.children() and any(each.raddr for each in process.net_connections(kind="tcp"))
