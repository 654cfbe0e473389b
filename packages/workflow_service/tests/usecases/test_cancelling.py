"""Cancel a run: four modes, whatever its worker does, and what can be resumed afterwards."""

import asyncio
import sys

import pytest

from workflow_service.domain.run import CancelMode, NewRun, RunStatus
from workflow_service.gateways.postgres.runs import PostgresRunStore
from workflow_service.ports import ClaimLostError, DrainedError, RunStateError, StoreUnavailableError
from workflow_service.usecases.afterlife import delete_run, forget_ended, resume_run
from workflow_service.usecases.execution import execute_run
from workflow_service.usecases.following import follow_run
from workflow_service.usecases.forgetting import forget_forever
from workflow_service.usecases.performing import Performer

pytestmark = pytest.mark.needs("postgres")

NEW = NewRun("alice", "scripted", {})
MODES = list(CancelMode)
IN_ONE_STEP = [CancelMode.INTERRUPT, CancelMode.ROLLBACK]


async def always():
    return True


async def stand(store, run):
    return await store.get("alice", run.id)


async def kinds(store, run):
    return [event.kind.value for event in await store.events("alice", run.id)]


class Stuck:
    """The body of a workflow that makes one step and then waits for its end, and cleans up."""

    def __init__(self):
        self.working = asyncio.Event()
        self.cleaned = []

    async def __call__(self, report):
        await report("read", 30, "")
        self.working.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cleaned.append(True)


@pytest.mark.parametrize("mode", IN_ONE_STEP)
@pytest.mark.parametrize("is_told", [True, False], ids=["told", "finds-out"])
def test_an_interrupted_run_cleans_up_and_ends(execute, with_pool, scripted, quiet_feed, mode, is_told):
    """The code is cancelled at the wake-up, or with the heartbeat when the wake-up is lost; the slot is free."""

    async def scenario(pool):
        store, body, feed = PostgresRunStore(pool.acquire), Stuck(), quiet_feed()
        run, _ = await store.create(NEW)
        working = asyncio.create_task(execute(store, run, scripted(body), lease=60 if is_told else 0.6, feed=feed))
        await body.working.wait()
        assert (await store.request_cancel("alice", run.id, mode)).status is RunStatus.CANCELLING
        if is_told:
            feed.rung.set()
        await working
        ended = await stand(store, run)
        assert (ended.status, ended.cancel_mode, body.cleaned) == (RunStatus.CANCELLED, mode, [True])
        assert ended.can_resume is (mode is CancelMode.INTERRUPT)
        assert await kinds(store, run) == ["queued", "started", "progress", "cancelling", "cancelled"]

    with_pool(scenario)


@pytest.mark.parametrize("raised", [KeyError("x"), StoreUnavailableError("away"), None])
def test_whatever_an_interrupted_run_makes_of_it_it_is_cancelled(execute, with_pool, scripted, quiet_feed, raised):
    """An error of the clean-up, or a result in spite of the cancellation, does not change what was asked for."""

    async def scenario(pool):
        store, feed, working = PostgresRunStore(pool.acquire), quiet_feed(), asyncio.Event()

        async def body(_report):
            working.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if raised is None:
                    return {"late": True}
                raise raised from None

        run, _ = await store.create(NEW)
        execution = asyncio.create_task(execute(store, run, scripted(body), feed=feed))
        await working.wait()
        await store.request_cancel("alice", run.id, CancelMode.INTERRUPT)
        feed.rung.set()
        await execution
        assert (await stand(store, run)).status is RunStatus.CANCELLED

    with_pool(scenario)


@pytest.mark.parametrize("heeds", [True, False])
def test_a_drained_run_ends_at_its_step_boundary_or_finishes(execute, with_pool, scripted, quiet_feed, heeds):
    """The step that runs is finished; a workflow with no boundary left succeeds."""

    async def scenario(pool):
        store, feed = PostgresRunStore(pool.acquire), quiet_feed()
        in_step, go_on = asyncio.Event(), asyncio.Event()

        async def body(report):
            drain = workflows["scripted"].context.drain
            drain.on_request(go_on.set)
            in_step.set()
            await go_on.wait()
            await report("read", 50, "")
            if heeds and drain.is_requested:
                raise DrainedError("after read")
            return {"whole": True}

        workflows = scripted(body)
        run, _ = await store.create(NEW)
        execution = asyncio.create_task(execute(store, run, workflows, feed=feed))
        await in_step.wait()
        await store.request_cancel("alice", run.id, CancelMode.DRAIN)
        feed.rung.set()
        await execution
        ended = await stand(store, run)
        assert (ended.step, ended.can_resume) == ("read", heeds)
        assert ended.status is (RunStatus.CANCELLED if heeds else RunStatus.SUCCEEDED)

    with_pool(scenario)


def test_a_harder_mode_may_follow_a_softer_one(execute, with_pool, scripted, quiet_feed):
    """A run that does not drain is interrupted; its code is cancelled once."""

    async def scenario(pool):
        store, body, feed = PostgresRunStore(pool.acquire), Stuck(), quiet_feed()
        run, _ = await store.create(NEW)
        workflows = scripted(body)
        execution = asyncio.create_task(execute(store, run, workflows, feed=feed))
        await body.working.wait()
        drained = asyncio.Event()
        workflows["scripted"].context.drain.on_request(drained.set)
        for mode in (CancelMode.DRAIN, CancelMode.INTERRUPT):
            await store.request_cancel("alice", run.id, mode)
            feed.rung.set()
            if mode is CancelMode.DRAIN:
                await drained.wait()
        await execution
        assert (await stand(store, run)).cancel_mode is CancelMode.INTERRUPT
        assert body.cleaned == [True]

    with_pool(scenario)


def test_a_killed_run_has_ended_before_its_worker_knows(execute, with_pool, scripted, quiet_feed, caplog):
    """The database says so at once; the worker stops with its next look, and writes nothing."""

    async def scenario(pool):
        store, body, feed = PostgresRunStore(pool.acquire), Stuck(), quiet_feed()
        run, _ = await store.create(NEW)
        execution = asyncio.create_task(execute(store, run, scripted(body), feed=feed))
        await body.working.wait()
        killed = await store.request_cancel("alice", run.id, CancelMode.KILL)
        assert (killed.status, killed.can_resume, body.cleaned) == (RunStatus.CANCELLED, True, [])
        feed.rung.set()
        await execution
        assert body.cleaned == [True]
        assert await kinds(store, run) == ["queued", "started", "progress", "cancelled"]

    with_pool(scenario)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_killed_run_whose_process_has_ended_already_ends_silently(with_pool, quiet_feed, caplog):
    """The process is gone and its end has not been heard of yet: the worker stops as after any kill."""

    async def scenario(pool):
        store, feed, told = PostgresRunStore(pool.acquire), quiet_feed(), asyncio.Event()

        async def run_apart(_fn, *_args, isolation, timeout, name, on_progress):
            ended = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
            await on_progress("\0process", ended.pid, "")
            await ended.wait()
            told.set()
            await asyncio.Event().wait()

        perform = Performer({}, run_apart, lambda report: report, elsewhere=None)
        run, _ = await store.create(NewRun("alice", "scripted", {}, {"isolation": "process"}))
        work = execute_run(run.id, runs=store, feed=feed, perform=perform, worker_id="worker", lease=60)
        async with asyncio.TaskGroup() as group:
            group.create_task(work)
            await told.wait()
            await store.request_cancel("alice", run.id, CancelMode.KILL)
            feed.rung.set()

    with_pool(scenario)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_killed_run_that_is_resumed_does_not_belong_to_its_old_worker(with_pool):
    """Between the resume and the next claim, and after it, the old claim can write nothing."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        old = await store.claim(run.id, "old", 60)
        await store.request_cancel("alice", run.id, CancelMode.KILL)
        await store.resume("alice", run.id)
        for _ in range(2):
            assert not (await store.renew(old, 60)).is_held
            for write in (
                store.cancel(old),
                store.succeed(old, {}),
                store.release(old),
                store.retry_later(old, {}),
            ):
                with pytest.raises(ClaimLostError):
                    await write
            await store.claim(run.id, "new", 60)
        assert (await stand(store, run)).status is RunStatus.RUNNING

    with_pool(scenario)


@pytest.mark.parametrize("mode", MODES)
def test_a_run_whose_worker_is_dead_or_frozen_ends_when_its_lease_is_over(with_pool, mode):
    """The reaper ends it; it is not queued again, and a worker that thaws may write nothing."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        claim = await store.claim(run.id, "frozen", 60)
        await store.request_cancel("alice", run.id, mode)
        await pool.execute(
            "UPDATE workflow.runs SET lease_until = clock_timestamp() WHERE lease_until IS NOT NULL"
        )
        assert await store.claim(run.id, "other", 60) is None
        assert await store.requeue_lost(10) == []
        ended = await stand(store, run)
        assert (ended.status, ended.cancel_mode) == (RunStatus.CANCELLED, mode)
        assert ended.can_resume is (mode is not CancelMode.ROLLBACK)
        assert (await store.events("alice", run.id))[-1].data == {"mode": mode.value}
        with pytest.raises(ClaimLostError):
            await store.cancel(claim)

    with_pool(scenario)


@pytest.mark.parametrize("mode", MODES)
def test_a_queued_run_ends_at_once(with_pool, mode):
    """No worker is needed; a message that comes for it finds nothing to do."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        assert (await store.request_cancel("alice", run.id, mode)).status is RunStatus.CANCELLED
        assert await store.claim(run.id, "late", 60) is None
        with pytest.raises(RunStateError, match="it is cancelled"):
            await store.request_cancel("alice", run.id, mode)

    with_pool(scenario)


def test_a_worker_that_stops_while_its_run_is_cancelled_ends_the_run(execute, with_pool, scripted):
    """What was asked for happens: the run is not handed to another worker."""

    async def scenario(pool):
        store, body = PostgresRunStore(pool.acquire), Stuck()
        run, _ = await store.create(NEW)
        execution = asyncio.create_task(execute(store, run, scripted(body)))
        await body.working.wait()
        await store.request_cancel("alice", run.id, CancelMode.DRAIN)
        execution.cancel()
        with pytest.raises(asyncio.CancelledError):
            await execution
        assert (await stand(store, run)).status is RunStatus.CANCELLED

    with_pool(scenario)


def test_a_run_that_drains_without_being_asked_is_given_back(execute, with_pool, scripted):
    """A process that drains its graphs before it stops hands its runs to others."""

    async def body(_report):
        raise DrainedError("the process stops")

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        await execute(store, run, scripted(body))
        assert (await stand(store, run)).status is RunStatus.QUEUED
        assert await store.claim(run.id, "next", 60) is not None

    with_pool(scenario)


def test_a_workflow_that_cancels_itself_has_failed(execute, with_pool, scripted):
    """It is no request of a person's, and no stop of the worker."""

    async def body(_report):
        raise asyncio.CancelledError

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        await execute(store, run, scripted(body))
        assert (await stand(store, run)).status is RunStatus.FAILED

    with_pool(scenario)


def test_a_resumed_run_goes_on_where_it_stands(execute, with_pool, scripted, queue, quiet_feed):
    """Steps stand once, percent does not go back, and who follows sees one history to its last event."""
    attempts = []

    async def body(report):
        await report("read", 50, "")
        await report("judge", 20 + len(attempts), "")
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("broken")
        return {}

    async def scenario(pool):
        store, workflows = PostgresRunStore(pool.acquire), scripted(body)
        run, _ = await store.create(NEW)
        await execute(store, run, workflows)
        failed = await stand(store, run)
        assert (failed.status, failed.percent, failed.can_resume) == (RunStatus.FAILED, 50, True)
        resumed = await resume_run("alice", run.id, runs=store, queue=queue)
        assert (resumed.status, resumed.error, resumed.finished_at) == (RunStatus.QUEUED, None, None)
        assert queue.sent == [run.id]
        await execute(store, run, workflows)
        followed = [
            event async for event in follow_run("alice", run.id, runs=store, feed=quiet_feed(), is_known=always)
        ]
        assert [event.seq for event in followed] == list(range(1, len(followed) + 1))
        assert [event.kind.value for event in followed] == [
            *("queued", "started", "progress", "progress", "failed"),
            *("resumed", "started", "succeeded"),
        ]

    with_pool(scenario)


@pytest.mark.parametrize(
    ("mode", "keep_for", "forgotten"),
    [(CancelMode.INTERRUPT, 60, False), (CancelMode.INTERRUPT, 0, True), (CancelMode.ROLLBACK, 60, True)],
)
def test_what_a_run_keeps_is_removed_when_nobody_may_resume_it(with_pool, scripted, mode, keep_for, forgotten):
    """At once after a rollback, when its time is over after other ends; one that fails is tried again later."""

    async def scenario(pool):
        store, workflows = PostgresRunStore(pool.acquire, keep_for=keep_for), scripted(None)
        run, _ = await store.create(NEW)
        await store.request_cancel("alice", run.id, mode)
        workflows["scripted"].can_forget = False
        assert await forget_ended(10, runs=store, workflows=workflows) == int(forgotten)
        assert await forget_ended(10, runs=store, workflows=workflows) == 0, "it is left alone for a minute"
        await pool.execute("UPDATE workflow.runs SET forget_at = clock_timestamp() WHERE NOT is_kept")
        workflows["scripted"].can_forget = True
        assert await forget_ended(10, runs=store, workflows=workflows) == int(forgotten)
        assert workflows["scripted"].forgotten == [run.id] * forgotten
        assert (await stand(store, run)).can_resume is not forgotten
        assert await pool.fetchval("SELECT forget_at IS NULL FROM workflow.runs") is forgotten

    with_pool(scenario)


def test_ended_runs_are_forgotten_until_cancelled_whatever_fails(with_pool, scripted, caplog):
    """A database that is away, or a fault of ours, ends no loop; cancelled in the middle, the run is due again."""

    async def scenario(pool):
        store, workflows = PostgresRunStore(pool.acquire, keep_for=0), scripted(None)
        faults = [StoreUnavailableError("away"), ZeroDivisionError()]
        take, begun = store.take_forgettable, asyncio.Event()

        async def take_forgettable(limit):
            if faults:
                raise faults.pop(0)
            return await take(limit)

        async def forget(_run_id):
            begun.set()
            await asyncio.Event().wait()

        store.take_forgettable = take_forgettable
        workflows["scripted"].forget = forget
        run, _ = await store.create(NEW)
        await store.request_cancel("alice", run.id, CancelMode.INTERRUPT)
        forgetting = asyncio.create_task(forget_forever(runs=store, workflows=workflows, interval=0))
        await begun.wait()
        forgetting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await forgetting
        assert await pool.fetchval("SELECT forget_at > clock_timestamp() AND NOT is_kept FROM workflow.runs")
        assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]

    with_pool(scenario)


def test_a_run_that_fails_before_it_hears_of_its_rollback_keeps_nothing(with_pool, scripted):
    """Who asked for a rollback asked for what is kept to go, whichever way the run ends."""

    async def scenario(pool):
        store, workflows = PostgresRunStore(pool.acquire, keep_for=60), scripted(None)
        run, _ = await store.create(NEW)
        claim = await store.claim(run.id, "worker", 60)
        await store.request_cancel("alice", run.id, CancelMode.ROLLBACK)
        await store.fail(claim, {"type": "WorkflowError", "message": "its own"})
        failed = await stand(store, run)
        assert (failed.status, failed.can_resume) == (RunStatus.FAILED, False)
        assert await forget_ended(10, runs=store, workflows=workflows) == 1
        assert workflows["scripted"].forgotten == [run.id]

    with_pool(scenario)


def test_a_run_that_succeeded_keeps_nothing_and_cannot_be_resumed(execute, with_pool, scripted):
    """Its checkpoints are removed after its end."""

    async def body(_report):
        return {}

    async def scenario(pool):
        store, workflows = PostgresRunStore(pool.acquire), scripted(body)
        run, _ = await store.create(NEW)
        await execute(store, run, workflows)
        with pytest.raises(RunStateError, match="nothing is kept"):
            await store.resume("alice", run.id)
        assert await forget_ended(10, runs=store, workflows=workflows) == 1
        assert workflows["scripted"].forgotten == [run.id]

    with_pool(scenario)


def test_a_deleted_run_leaves_nothing(with_pool, scripted):
    """Run, events and what it kept; one that has not ended, or cannot be forgotten now, stays."""

    async def scenario(pool):
        store, workflows = PostgresRunStore(pool.acquire), scripted(None)
        run, _ = await store.create(NEW)
        with pytest.raises(RunStateError, match="cancel it first"):
            await delete_run("alice", run.id, runs=store, workflows=workflows)
        await store.request_cancel("alice", run.id, CancelMode.INTERRUPT)
        assert not await delete_run("bob", run.id, runs=store, workflows=workflows)
        workflows["scripted"].can_forget = False
        with pytest.raises(StoreUnavailableError):
            await delete_run("alice", run.id, runs=store, workflows=workflows)
        assert not (await stand(store, run)).can_resume
        workflows["scripted"].can_forget = True
        assert await delete_run("alice", run.id, runs=store, workflows=workflows)
        assert await pool.fetchval("SELECT count(*) FROM workflow.run_events") == 0
        assert not await delete_run("alice", run.id, runs=store, workflows=workflows)

    with_pool(scenario)
