"""A run that asks a person: it waits, is answered, and goes on; nobody holds it meanwhile."""

import pytest

from workflow_service.domain.run import CancelMode, EventKind, NewRun, Question, RunStatus
from workflow_service.gateways.postgres.runs import PostgresRunStore
from workflow_service.ports import InvalidInputError, QueueUnavailableError, RunStateError, WaitingError
from workflow_service.usecases.afterlife import answer_run, resume_run
from workflow_service.usecases.following import wait_for_end

pytestmark = pytest.mark.needs("postgres")

NEW = NewRun("alice", "scripted", {})
QUESTIONS = (Question("q1", {"question": "Sign it?"}), Question("q2", None))


async def asks(_report):
    raise WaitingError(QUESTIONS)


async def waiting(store, execute, scripted):
    """Return a run that waits."""
    run, _ = await store.create(NEW)
    await execute(store, run, scripted(asks))
    return await store.get("alice", run.id)


def kinds(events):
    return [event.kind for event in events]


def test_a_run_that_asks_waits_and_goes_on_with_the_answers(execute, with_pool, scripted, queue, quiet_feed):
    """It has no lease and is lost to nobody; answers are kept for every later attempt, and events tell of both."""
    workflows = scripted(asks)

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire, resend_after=0.0)
        run, _ = await store.create(NEW)
        await execute(store, run, workflows)
        run = await wait_for_end("alice", run.id, 60, runs=store, feed=quiet_feed())
        assert (run.status, run.questions, run.can_cancel, run.can_resume) == (
            RunStatus.WAITING,
            QUESTIONS,
            True,
            False,
        )
        assert await store.claim(run.id, "worker", 60) is None
        assert await store.requeue_lost(10) == []
        run = await answer_run("alice", run.id, {"q1": True}, runs=store, queue=queue)
        assert (run.status, run.questions, run.answers, queue.sent) == (
            RunStatus.QUEUED,
            (),
            {"q1": True},
            [run.id],
        )
        await execute(store, run, workflows)
        assert workflows["scripted"].context.answers == {"q1": True}
        run = await answer_run("alice", run.id, {"q2": {"x": [1]}}, runs=store, queue=queue)
        assert run.answers == {"q1": True, "q2": {"x": [1]}}
        events = await store.events("alice", run.id)
        assert kinds(events) == [
            EventKind.QUEUED,
            *(EventKind.STARTED, EventKind.WAITING, EventKind.ANSWERED) * 2,
        ]
        assert events[2].data == {
            "questions": [{"id": "q1", "value": {"question": "Sign it?"}}, {"id": "q2", "value": None}]
        }
        assert events[3].data == {"answers": {"q1": True}}

    with_pool(scenario)


@pytest.mark.parametrize("answers", [{}, {"q1": 1, "q3": 2}, {"q1": "\0"}, {"q1": float("nan")}])
def test_what_is_no_answer_changes_nothing(execute, with_pool, scripted, queue, answers):
    """None, one to another question, one that the database cannot hold: the message says which."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run = await waiting(store, execute, scripted)
        with pytest.raises(InvalidInputError, match=r"q1, q2|answers\.q1"):
            await answer_run("alice", run.id, answers, runs=store, queue=queue)
        assert await store.get("alice", run.id) == run
        assert queue.sent == []

    with_pool(scenario)


AMOUNT = {"question": "How much?", "schema": {"type": "integer", "minimum": 1}}


@pytest.mark.parametrize(
    ("value", "answer", "message"),
    [
        (AMOUNT, "much", "answers.q must be a whole number, is the text 'much'"),
        (AMOUNT, None, "answers.q must be a whole number, is null"),
        ({"question": "Sign?", "schema": {"enum": ["yes"]}}, "maybe", 'answers.q must be one of "yes"'),
        ({"question": "Who?", "schema": {"required": ["name"]}}, {}, "answers.q.name is missing"),
    ],
)
def test_an_answer_that_does_not_fit_the_schema_of_its_question_changes_nothing(
    execute, with_pool, scripted, queue, value, answer, message
):
    """A branch would take it for the other one; the fault has its place, and the run can still be answered."""
    questions = (Question("q", value), Question("free", {"question": "Why?"}))

    async def asks_with_schema(_report):
        raise WaitingError(questions)

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        await execute(store, run, scripted(asks_with_schema))
        run = await store.get("alice", run.id)
        with pytest.raises(InvalidInputError) as refused:
            await answer_run("alice", run.id, {"q": answer, "free": 1}, runs=store, queue=queue)
        place, _, fault = message.partition(" ")
        assert (str(refused.value), refused.value.faults) == (message, ((place, fault),))
        assert await store.get("alice", run.id) == run
        assert queue.sent == []

    with_pool(scenario)


@pytest.mark.parametrize(
    "value",
    [
        AMOUNT,
        {"question": "?", "schema": {"$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n"}},
        {"question": "?", "schema": {"type": "no such type"}},
        {"question": "?", "schema": {"$ref": "http://127.0.0.1:9/elsewhere"}},
        {"question": "?", "schema": {"$ref": "#/$defs/absent"}},
        {"question": "?", "schema": {"$ref": "#"}},
        {"question": "?", "schema": "a word"},
        {"schema": {"type": "string"}},
        ["schema"],
    ],
)
def test_an_answer_that_fits_is_taken_and_any_where_there_is_no_schema_to_fit(
    execute, with_pool, scripted, queue, value
):
    """What is no schema, names another document or itself, or belongs to no question in words binds nobody."""

    async def asks_so(_report):
        raise WaitingError((Question("q", value),))

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        await execute(store, run, scripted(asks_so))
        run = await answer_run("alice", run.id, {"q": 5}, runs=store, queue=queue)
        assert (run.status, run.answers) == (RunStatus.QUEUED, {"q": 5})

    with_pool(scenario)


def test_only_a_run_that_waits_is_answered_and_only_by_its_user(execute, with_pool, scripted, queue):
    """A second answer comes too late; a run that waits is not resumed; another user's is not there."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run = await waiting(store, execute, scripted)
        assert await answer_run("mallory", run.id, {"q1": 1}, runs=store, queue=queue) is None
        with pytest.raises(RunStateError, match="it is waiting"):
            await resume_run("alice", run.id, runs=store, queue=queue)
        with pytest.raises(RunStateError, match="it is waiting; cancel it first"):
            await store.delete("alice", run.id)
        await answer_run("alice", run.id, {"q1": 1}, runs=store, queue=queue)
        with pytest.raises(RunStateError, match="the run waits for no answer: it is queued"):
            await answer_run("alice", run.id, {"q1": 2}, runs=store, queue=queue)
        assert (await store.get("alice", run.id)).answers == {"q1": 1}

    with_pool(scenario)


@pytest.mark.parametrize("mode", CancelMode)
def test_a_run_that_waits_ends_at_once_when_it_is_cancelled(execute, with_pool, scripted, queue, mode):
    """And asks no more; resumed, it asks again, with what was answered."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run = await waiting(store, execute, scripted)
        run = await store.request_cancel("alice", run.id, mode)
        assert (run.status, run.questions, run.cancel_mode) == (RunStatus.CANCELLED, (), mode)
        if mode is not CancelMode.ROLLBACK:
            run = await resume_run("alice", run.id, runs=store, queue=queue)
            await execute(store, run, scripted(asks))
            assert (await store.get("alice", run.id)).questions == QUESTIONS

    with_pool(scenario)


def test_a_run_that_is_told_to_end_while_it_asks_ends(execute, with_pool, scripted):
    """It would wait for somebody who has said already that it is not wanted."""

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)

        async def asks_too_late(_report):
            await store.request_cancel("alice", run.id, CancelMode.DRAIN)
            raise WaitingError(QUESTIONS)

        await execute(store, run, scripted(asks_too_late))
        assert (await store.get("alice", run.id)).status is RunStatus.CANCELLED

    with_pool(scenario)


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_a_question_that_is_no_json_fails_the_run(execute, with_pool, scripted, value):
    """As a result that is none: no other attempt would ask a better one, and the run is not left to its lease."""

    async def asks_in_vain(_report):
        raise WaitingError([Question("q1", value)])

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire)
        run, _ = await store.create(NEW)
        await execute(store, run, scripted(asks_in_vain))
        run = await store.get("alice", run.id)
        assert (run.status, run.questions) == (RunStatus.FAILED, ())

    with_pool(scenario)


def test_an_answer_counts_though_the_broker_is_away(execute, with_pool, scripted, queue):
    """It is committed first; the reaper tells the workers."""
    queue.capacity = 0

    async def scenario(pool):
        store = PostgresRunStore(pool.acquire, resend_after=0.0)
        run = await waiting(store, execute, scripted)
        with pytest.raises(QueueUnavailableError):
            await queue.enqueue(run.id)
        run = await answer_run("alice", run.id, {"q1": 1}, runs=store, queue=queue)
        assert run.status is RunStatus.QUEUED
        assert await store.requeue_lost(10) == [run.id]

    with_pool(scenario)
