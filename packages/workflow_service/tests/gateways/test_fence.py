"""The fence: checkpoints are written by the attempt that holds the run when it commits, and by nobody else."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint

from workflow_service.domain.run import CancelMode, Claim, NewRun
from workflow_service.gateways.postgres.checkpoints import CheckpointPool, open_checkpoint_pool, saver_on
from workflow_service.gateways.postgres.runs import PostgresRunStore
from workflow_service.ports import ClaimLostError

pytestmark = pytest.mark.needs("postgres")

LEASE = 30.0  # seconds
TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
WAITS_FOR_LOCK = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)

Saver = BaseCheckpointSaver[Any]  # Any: its version type


async def keep(saver: Saver, run_id: UUID, text: str = "a document's text") -> None:
    """Write a checkpoint with a blob, as a superstep does."""
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"text": [text]}
    checkpoint["channel_versions"] = {"text": f"{uuid4()}"}
    config: Any = {"configurable": {"thread_id": str(run_id), "checkpoint_ns": ""}}
    await saver.aput(
        config, checkpoint, {"source": "loop", "step": 1, "parents": {}}, checkpoint["channel_versions"]
    )


async def keep_write(saver: Saver, run_id: UUID) -> None:
    """Write what a node has written, as is done before the superstep ends."""
    of = {"thread_id": str(run_id), "checkpoint_ns": "", "checkpoint_id": "1"}
    await saver.aput_writes({"configurable": of}, [("text", "a document's text")], f"task {uuid4()}")


async def remove(saver: Saver, run_id: UUID) -> None:
    """Remove all that is kept."""
    await saver.adelete_thread(str(run_id))


class Bench:
    """A run store, savers, and what is in the tables."""

    def __init__(self, pool: Any, checkpoints: CheckpointPool) -> None:
        self.pool = pool
        self.runs = PostgresRunStore(pool.acquire)
        self._checkpoints = checkpoints

    async def claimed(self) -> Claim:
        """Return the claim of a new run."""
        run, _ = await self.runs.create(NewRun("alice", "idle", {}))
        return await self.claim(run.id)

    async def claim(self, run_id: UUID) -> Claim:
        """Claim a run."""
        claim = await self.runs.claim(run_id, "worker", LEASE)
        assert claim is not None
        return claim

    def saver(self, run_id: UUID, attempt: int | None) -> Any:
        """Lend a saver."""
        return saver_on(self._checkpoints, run_id, attempt)

    @asynccontextmanager
    async def saver_of(self, claim: Claim) -> AsyncIterator[Saver]:
        """Lend the saver of a claim."""
        async with self.saver(claim.run.id, claim.run.attempt) as saver:
            yield saver

    async def kept(self, run_id: UUID) -> dict[str, int]:
        """Count the rows of a thread, as a superuser, whom no policy binds."""
        return {
            table: await self.pool.fetchval(
                f"SELECT count(*) FROM workflow.{table} WHERE thread_id = $1", str(run_id)
            )
            for table in TABLES
        }


Scenario = Callable[[Bench], Awaitable[None]]
NOTHING = dict.fromkeys(TABLES, 0)


@pytest.fixture
def bench(with_pool: Any, database: str) -> Callable[[Scenario], None]:
    """Run a scenario with a bench."""

    def run(scenario: Scenario) -> None:
        async def main(pool: Any) -> None:
            async with open_checkpoint_pool(database, 3, LEASE) as checkpoints:
                await scenario(Bench(pool, checkpoints))

        with_pool(main)

    return run


async def lose_to_another(bench: Bench, claim: Claim, expire: Any) -> None:
    await expire(bench.pool, claim.run.id)
    await bench.claim(claim.run.id)


async def lose_to_the_queue(bench: Bench, claim: Claim, expire: Any) -> None:
    await expire(bench.pool, claim.run.id)
    assert await bench.runs.requeue_lost(10) == [claim.run.id]


async def lose_by_kill(bench: Bench, claim: Claim, _expire: Any) -> None:
    await bench.runs.request_cancel("alice", claim.run.id, CancelMode.KILL)


async def lose_by_its_end(bench: Bench, claim: Claim, _expire: Any) -> None:
    await bench.runs.succeed(claim, {})


async def lose_by_deletion(bench: Bench, claim: Claim, _expire: Any) -> None:
    await bench.runs.request_cancel("alice", claim.run.id, CancelMode.KILL)
    await bench.runs.delete("alice", claim.run.id)


LOSSES = (lose_to_another, lose_to_the_queue, lose_by_kill, lose_by_its_end, lose_by_deletion)


@pytest.mark.parametrize("write", [keep, keep_write, remove])
@pytest.mark.parametrize("lose", LOSSES)
def test_an_outdated_attempt_writes_and_deletes_nothing(bench: Any, expire: Any, lose: Any, write: Any) -> None:
    """Checkpoints, blobs and writes: refused with words that say why, and the tables are as they were."""

    async def scenario(bench: Bench) -> None:
        claim = await bench.claimed()
        async with bench.saver_of(claim) as saver:
            await keep(saver, claim.run.id)
            await keep_write(saver, claim.run.id)
            before = await bench.kept(claim.run.id)
            assert before == dict.fromkeys(TABLES, 1)
            await lose(bench, claim, expire)
            with pytest.raises(ClaimLostError, match=f"attempt 1 of run {claim.run.id} is outdated"):
                await write(saver, claim.run.id)
            assert await bench.kept(claim.run.id) == before
            config: Any = {"configurable": {"thread_id": str(claim.run.id)}}
            assert await saver.aget_tuple(config) is not None, "it may read: the connection is in order"

    bench(scenario)


@pytest.mark.parametrize("lose", LOSSES)
def test_a_transaction_that_began_in_time_and_commits_too_late_is_refused(
    bench: Any, expire: Any, lose: Any
) -> None:
    """What counts is the commit: the claim is lost while the statements are sent, and nothing of them is left."""

    async def scenario(bench: Bench) -> None:
        claim = await bench.claimed()
        async with bench.saver_of(claim) as saver:
            serialize = saver.serde.dumps_typed
            loop = asyncio.get_running_loop()

            def lose_meanwhile(value: Any) -> Any:  # on a thread, within the transaction
                asyncio.run_coroutine_threadsafe(lose(bench, claim, expire), loop).result(30)
                return serialize(value)

            saver.serde = Serializer(lose_meanwhile)  # type: ignore[assignment]
            with pytest.raises(ClaimLostError, match="outdated"):
                await keep(saver, claim.run.id)
        assert await bench.kept(claim.run.id) == NOTHING

    bench(scenario)


class Serializer:
    """Does something else before it makes bytes of a value."""

    def __init__(self, dumps_typed: Callable[[Any], Any]) -> None:
        self.dumps_typed = dumps_typed


def test_who_takes_the_run_waits_until_a_commit_is_over(bench: Any, expire: Any, database: str) -> None:
    """Between the fence's answer and the end of the commit nobody takes the run: who is next sees all."""

    async def scenario(bench: Bench) -> None:
        claim = await bench.claimed()
        run_id = claim.run.id
        await expire(bench.pool, run_id)
        writer = await asyncpg.connect(database)
        try:
            transaction = writer.transaction()
            await transaction.start()
            await writer.execute(
                "SELECT workflow.enter_scope('run', $1), set_config('workflow.attempt', '1', true)", str(run_id)
            )
            await writer.execute(
                "INSERT INTO workflow.checkpoint_writes VALUES ($1, '', '1', 't', 0, 'c', 's', 'x')", str(run_id)
            )
            await writer.execute("SET CONSTRAINTS ALL IMMEDIATE")  # the commit, as far as the fence's answer
            other = asyncio.create_task(bench.claim(run_id))
            while not await bench.pool.fetchval(WAITS_FOR_LOCK):
                assert not other.done(), "it took the run between the answer and the end of the commit"
            await transaction.commit()
            assert (await other).run.attempt == 2
            assert (await bench.kept(run_id))["checkpoint_writes"] == 1
        finally:
            await writer.close()

    bench(scenario)


def test_a_worker_that_is_frozen_between_its_statements_does_not_keep_the_run(bench: Any, expire: Any) -> None:
    """Statements lock no run: another attempt begins while those of the frozen one wait for their commit."""

    async def scenario(bench: Bench) -> None:
        claim = await bench.claimed()
        async with bench.saver_of(claim) as saver:
            entered, thawed = asyncio.Event(), asyncio.Event()
            loop = asyncio.get_running_loop()
            serialize = saver.serde.dumps_typed

            def freeze(value: Any) -> Any:
                loop.call_soon_threadsafe(entered.set)
                asyncio.run_coroutine_threadsafe(thawed.wait(), loop).result(30)
                return serialize(value)

            saver.serde = Serializer(freeze)  # type: ignore[assignment]
            frozen = asyncio.create_task(keep(saver, claim.run.id))
            await entered.wait()
            await lose_to_another(bench, claim, expire)
            thawed.set()
            with pytest.raises(ClaimLostError):
                await frozen

    bench(scenario)


def test_without_an_attempt_only_threads_of_no_run_are_written(bench: Any) -> None:
    """What the service's queue does not know is free; a run's thread is its attempt's."""

    async def scenario(bench: Bench) -> None:
        free = uuid4()
        async with bench.saver(free, None) as saver:
            await keep(saver, free)
            await keep_write(saver, free)
            assert await bench.kept(free) == dict.fromkeys(TABLES, 1)
            await remove(saver, free)
            assert await bench.kept(free) == NOTHING
        claim = await bench.claimed()
        async with bench.saver_of(claim) as own:
            await keep(own, claim.run.id)
        before = await bench.kept(claim.run.id)
        async with bench.saver(claim.run.id, None) as saver:
            for write in (keep, keep_write, remove):
                with pytest.raises(ClaimLostError, match="none was named"):
                    await write(saver, claim.run.id)
        assert await bench.kept(claim.run.id) == before

    bench(scenario)


def test_what_ended_runs_keep_is_removed_when_they_can_no_longer_go_on(bench: Any) -> None:
    """As long as a run can be resumed nobody removes what it needs; then it is removed, and stays so."""

    async def scenario(bench: Bench) -> None:
        claim = await bench.claimed()
        run_id = claim.run.id
        async with bench.saver_of(claim) as outdated, bench.saver(run_id, None) as forgetting:
            await keep(outdated, run_id)
            await bench.runs.request_cancel("alice", run_id, CancelMode.KILL)
            with pytest.raises(ClaimLostError, match="none was named"):
                await remove(forgetting, run_id)
            await bench.runs.give_up_keeping("alice", run_id)
            await remove(forgetting, run_id)
            for write in (keep, keep_write):
                with pytest.raises(ClaimLostError):
                    await write(outdated, run_id)
            await bench.runs.delete("alice", run_id)
            for write in (keep, keep_write):
                with pytest.raises(ClaimLostError, match="the run was deleted"):
                    await write(outdated, run_id)
        assert await bench.kept(run_id) == NOTHING

    bench(scenario)


def test_a_worker_of_the_release_before_works_on_while_the_run_is_held(
    bench: Any, expire: Any, database: str
) -> None:
    """It names no attempt: it writes while some attempt holds the run, and is refused with clear words after."""

    async def write(connection: Any, run_id: UUID, task: str) -> None:
        async with connection.transaction():
            await connection.execute("SELECT workflow.enter_scope('run', $1)", str(run_id))
            await connection.execute(
                "INSERT INTO workflow.checkpoint_writes VALUES ($1, '', '1', $2, 0, 'c', 's', 'x')",
                str(run_id),
                task,
            )

    async def scenario(bench: Bench) -> None:
        claim = await bench.claimed()
        old = await asyncpg.connect(database)
        try:
            await write(old, claim.run.id, "in time")
            await lose_to_the_queue(bench, claim, expire)
            with pytest.raises(asyncpg.PostgresError, match=r"attempt of an older release of run .* is outdated"):
                await write(old, claim.run.id, "too late")
        finally:
            await old.close()
        assert (await bench.kept(claim.run.id))["checkpoint_writes"] == 1

    bench(scenario)


def test_an_administrator_is_not_fenced(bench: Any) -> None:
    """A superuser's statements outside every scope, a restore for one, are as free of it as of the policies."""

    async def scenario(bench: Bench) -> None:
        claim = await bench.claimed()
        async with bench.saver_of(claim) as saver:
            await keep(saver, claim.run.id)
        await bench.pool.execute("DELETE FROM workflow.checkpoints WHERE thread_id = $1", str(claim.run.id))
        assert (await bench.kept(claim.run.id))["checkpoints"] == 0

    bench(scenario)
