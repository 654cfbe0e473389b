"""The parts of the asyncio pool by themselves: the split tracer and what it refuses, the clock, the threads."""

import functools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, Task, signals
from celery.app.trace import build_tracer, setup_worker_optimizations

from homeloop.adapters.celery import install
from homeloop.adapters.celery._tracer import BODY, RESULT, SplitTracer, Steps
from homeloop.adapters.celery.pool._aftermath import Aftermath
from homeloop.adapters.celery.pool._job import Callbacks, Job
from homeloop.adapters.celery.pool._results import store
from homeloop.adapters.celery.pool._threads import Clock, Threads
from homeloop.errors import AdapterError

BOUND = 10.0  # seconds


@pytest.fixture
def app() -> Celery:
    """An app with async tasks whose results can be read back."""
    made = Celery("tracer", broker="memory://", backend="cache+memory://")
    install(made)
    return made


def target(tracer: Any) -> Callable[..., Any]:
    """Return what a worker would give a pool to call: decodes, then traces."""

    def trace(name: str, uuid: str, request: Any, body: Any, content_type: Any, encoding: Any) -> Any:
        args, kwargs, _ = body
        request.update({"args": args, "kwargs": kwargs, "is_eager": False})
        return tracer(uuid, args, kwargs, request)

    return trace


def traced(app: Celery, task: Any) -> SplitTracer:
    """Return a task's tracer in parts."""
    task = app.tasks[task.name]  # not the proxy for it
    return SplitTracer(task, build_tracer(task.name, task, app=app))


def message(task: Any, uuid: str, *args: Any) -> tuple[Any, ...]:
    """Return the arguments for the target."""
    return task.name, uuid, {"id": uuid, "delivery_info": {}}, (args, {}, None), None, None


def test_the_tracer_stops_before_the_function_and_goes_on_with_its_outcome(app: Celery) -> None:
    """Before: the arguments are there, the task is current; after: a result; finish stores it; nothing twice."""

    @app.task(bind=True)
    async def double(self: Any, number: int) -> int:
        raise AssertionError("the pool calls it, the tracer does not")

    steps = Steps(target(traced(app, double)), message(double, "one", 21))
    context = copy_context()
    assert context.run(steps.before) is BODY
    assert (steps.args, steps.kwargs) == ((21,), {})
    assert context.run(lambda: double.request.id) == "one"
    assert context.run(steps.after, lambda: 42) is RESULT
    assert steps.result is not None
    assert (steps.result[:2], steps.result[3]) == (("one", 42), True)
    assert app.AsyncResult("one").state == "PENDING"
    result, info, _, _ = context.run(steps.finish, False)
    assert (result, info) == (42, None)
    assert app.AsyncResult("one").get(timeout=BOUND) == 42
    assert context.run(lambda: double.request.id) is None


def test_a_failure_and_autoretry_are_celerys_own(app: Celery) -> None:
    """What the coroutine raises goes through autoretry and the tracer, in the state that they say."""

    @app.task(autoretry_for=(ConnectionError,), max_retries=0)
    async def fails() -> None: ...

    steps = Steps(target(traced(app, fails)), message(fails, "two"))
    context = copy_context()
    context.run(steps.before)

    def outcome() -> None:
        raise ConnectionError("no")

    _, info, _, _ = context.run(steps.after, outcome)
    assert (info.state, type(info.retval)) == ("FAILURE", ConnectionError)


def test_a_closed_tracer_leaves_no_request_and_no_result(app: Celery) -> None:
    """For tasks that were revoked: nothing of what follows success or failure happens."""

    @app.task
    async def waits() -> None: ...

    steps = Steps(target(traced(app, waits)), message(waits, "three"))
    context = copy_context()
    context.run(steps.before)
    context.run(steps.close)
    assert context.run(lambda: waits.request.id) is None
    assert app.AsyncResult("three").state == "PENDING"


def test_to_everybody_else_it_is_the_whole_tracer(app: Celery) -> None:
    """Called outside of the pool's steps it runs the task to its end."""

    @app.task
    async def double(number: int) -> int:
        return 2 * number

    result, _, _, _ = traced(app, double)("four", (21,), {}, {"id": "four"})
    assert result == 42


def test_a_tracer_that_was_wrapped_is_refused(app: Celery) -> None:
    """As error trackers do; the reason names the wrapper."""

    @app.task
    async def plain() -> None: ...

    task = app.tasks[plain.name]
    whole = build_tracer(plain.name, task, app=app)

    @functools.wraps(whole)
    def tracked(*args: Any) -> Any:
        return whole(*args)

    with pytest.raises(AdapterError, match=r"its tracer is not Celery's own but .*test_celery_pool_parts"):
        SplitTracer(task, tracked)


def test_a_builder_that_was_replaced_is_refused(app: Celery, script) -> None:  # type: ignore[no-untyped-def]
    """Whoever replaces Celery's function for good is named, too."""
    ended = script(
        """
        from celery.app import trace
        def other(*args, **options): ...
        original, trace.build_tracer = trace.build_tracer, other
        from celery import Celery
        from homeloop.adapters.celery import install
        from homeloop.adapters.celery._tracer import SplitTracer
        from homeloop.errors import AdapterError
        app = Celery("replaced", broker="memory://")
        install(app)
        @app.task
        async def plain(): ...
        task = app.tasks[plain.name]
        try: SplitTracer(task, original(task.name, task, app=app))
        except AdapterError as error: print(error)
        """
    )
    assert "build_tracer is replaced by other" in ended.stdout


def test_a_run_that_was_wrapped_is_refused(app: Celery) -> None:
    """What stands between the tracer and the coroutine must be Celery's, or it would run after the coroutine."""

    @app.task
    async def plain() -> None: ...

    task = app.tasks[plain.name]
    bridge = task.run

    @functools.wraps(bridge)
    def wrapped(*args: Any) -> Any:
        return bridge(*args)

    task.run = wrapped
    with pytest.raises(AdapterError, match="its run is wrapped by"):
        traced(app, task)


def test_only_a_call_of_its_own_is_refused_not_the_one_that_workers_install(app: Celery) -> None:
    """A worker patches the class of all tasks; that is Celery itself."""

    class Own(Task):  # type: ignore[misc]
        abstract = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self.run(*args, **kwargs)

    @app.task
    async def plain() -> None: ...

    @app.task(base=Own)
    async def own() -> None: ...

    setup_worker_optimizations(app)
    traced(app, plain)
    with pytest.raises(AdapterError, match="Own has a __call__ of its own"):
        traced(app, own)


def at_result(app: Celery, task: Any, uuid: str, *args: Any, value: Any = None, **request: Any) -> Job:
    """Return a job of the pool whose coroutine has returned a value, which is to be stored next."""
    name, _, headers, *rest = message(task, uuid, *args)
    whole = (name, uuid, {**headers, **request}, *rest)
    job = Job(1, target(traced(app, task)), whole, Callbacks(), (None, None), lambda *_: None, copy_context())
    steps = job.split(app.tasks[task.name].coroutine_function)
    assert job.context.run(steps.before) is BODY
    job.value = value
    assert job.context.run(steps.after, job.replay) is RESULT
    return job


@pytest.fixture
def redis_app(redis_url: str) -> Iterator[Celery]:
    """An app with async tasks that stores in Redis, with a task; its keys are deleted afterwards."""
    made = Celery("results", broker="memory://", backend=redis_url)
    made.conf.result_expires = 600
    install(made)
    yield made
    made.backend.client.close()
    made.close()


@pytest.mark.needs("redis")
@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")  # Celery's
def test_results_are_stored_together_as_celery_stores_each(redis_app: Celery) -> None:
    """The same value, expiry and publication; a success that is there stays; what follows comes afterwards."""
    after = []

    @redis_app.task(shared=False)
    async def plain() -> None: ...

    @redis_app.task(shared=False, ignore_result=True)
    async def forgotten() -> None: ...

    backend, prefix = redis_app.backend, uuid4().hex
    ids = [f"{prefix}-{number}" for number in range(6)]
    backend.store_result(ids[1], "of the first run", "SUCCESS")
    listening = backend.client.pubsub(ignore_subscribe_messages=True)
    listening.subscribe(backend.get_key_for_task(ids[0]))
    jobs = [
        at_result(redis_app, plain, ids[0], value={"one": 1}),
        at_result(redis_app, plain, ids[1], value="of the second run"),
        at_result(redis_app, plain, ids[2], value=object()),  # cannot be encoded
        at_result(redis_app, forgotten, ids[3], value=3),
        at_result(redis_app, plain, ids[4], value=4, ignore_result=True),
        at_result(redis_app, plain, ids[5], value=5),
    ]
    assert store(redis_app, jobs) == {jobs[0], jobs[1], jobs[5]}
    assert redis_app.AsyncResult(ids[0]).get(timeout=BOUND) == {"one": 1}
    assert redis_app.AsyncResult(ids[1]).get(timeout=BOUND) == "of the first run"
    assert redis_app.AsyncResult(ids[5]).get(timeout=BOUND) == 5
    assert 0 < backend.client.ttl(backend.get_key_for_task(ids[0])) <= 600
    deadline = time.monotonic() + BOUND
    while (published := listening.get_message(timeout=1)) is None:
        assert time.monotonic() < deadline
    assert json.loads(published["data"]) == json.loads(backend.get(backend.get_key_for_task(ids[0])))
    listening.close()
    for job in jobs:
        assert job.steps is not None
        after.append(job.context.run(job.steps.finish, job in {jobs[0], jobs[1], jobs[5]})[0])
    assert redis_app.AsyncResult(ids[2]).state == "FAILURE"
    assert {redis_app.AsyncResult(each).state for each in (ids[3], ids[4])} == {"PENDING"}
    for each in ids:
        redis_app.AsyncResult(each).forget()


def test_other_backends_and_a_redis_that_does_not_answer_are_left_to_celery(
    app: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    """Celery stores one by one then, with its own retries and errors."""

    @app.task
    async def plain() -> None: ...

    assert store(app, [at_result(app, plain, each, value=1) for each in ("a", "b")]) == frozenset()

    nowhere = Celery("nowhere", broker="memory://", backend="redis://127.0.0.1:1/0")
    install(nowhere)

    @nowhere.task(shared=False)
    async def other() -> None: ...

    jobs = [at_result(nowhere, other, each, value=1) for each in ("a", "b")]
    aftermath = Aftermath(nowhere, Threads("none"), *[lambda *_: None] * 3)
    assert aftermath._store(jobs) == frozenset()
    assert "2 results could not be stored together" in caplog.text
    nowhere.close()


def test_a_job_that_keeps_its_thread_keeps_no_other_one(app: Celery) -> None:
    """What waits behind it, for its result or for what follows that, goes on with another thread."""
    threads, told = Threads("aftermath"), SimpleQueue[Any]()
    go_on = threading.Event()

    class Slow(Task):  # type: ignore[misc]
        abstract = True

        def on_success(self, retval: Any, task_id: str, *_: Any) -> None:
            if task_id == "slow":
                go_on.wait(BOUND)

    @app.task(base=Slow)
    async def plain() -> None: ...

    def ended(uuid: str) -> Job:
        whole = message(plain, uuid)
        job = Job(1, target(traced(app, plain)), whole, Callbacks(), (None, None), lambda *_: None, copy_context())
        steps = job.split(app.tasks[plain.name].coroutine_function)
        assert job.context.run(steps.before) is BODY
        return job

    finished = [ended(uuid) for uuid in ("slow", "two", "three", "four")]
    aftermath = Aftermath(app, threads, lambda job, _: told.put(job.id), told.put, told.put)
    for job in finished:
        aftermath.add(job)
    threads.start(2)
    assert {told.get(timeout=BOUND) for _ in range(3)} == {"two", "three", "four"}
    go_on.set()
    assert told.get(timeout=BOUND) == "slow"
    threads.stop(BOUND)


@pytest.mark.parametrize("where", ["on_failure", "what it had postponed", "a callback"])
def test_a_job_that_keeps_its_thread_keeps_no_result_that_came_before(app: Celery, where: str) -> None:
    """One that is ready to be stored is stored by another thread, though no further job has ended."""
    threads, told = Threads("aftermath"), SimpleQueue[Any]()
    is_kept, go_on = threading.Event(), threading.Event()

    def keep(*_: Any, **__: Any) -> None:
        is_kept.set()
        go_on.wait(BOUND)

    class Slow(Task):  # type: ignore[misc]
        abstract = True
        on_failure = keep

    class Receiver(Task):  # type: ignore[misc]
        abstract = True
        apply_async = keep

    @app.task(base=Slow)
    async def plain() -> None: ...

    @app.task(base=Receiver)
    async def receiver() -> None: ...

    def ended(uuid: str, **request: Any) -> Job:
        whole = message(plain, uuid)
        whole[2].update(request)
        job = Job(1, target(traced(app, plain)), whole, Callbacks(), (None, None), lambda *_: None, copy_context())
        steps = job.split(app.tasks[plain.name].coroutine_function)
        assert job.context.run(steps.before) is BODY
        return job

    first, second = ended("first"), ended("second", callbacks=[receiver.s()] if where == "a callback" else None)
    if where == "on_failure":
        second.error = ValueError("on purpose")
    elif where == "what it had postponed":
        second.postponed.append(keep)
    aftermath = Aftermath(app, threads, lambda job, _: told.put(job.id), told.put, told.put)
    aftermath.add(first)
    aftermath.add(second)
    threads.start(1)
    assert is_kept.wait(BOUND)
    threads.start(1)
    assert told.get(timeout=BOUND) == "first"
    assert app.AsyncResult("first").state == "SUCCESS"
    go_on.set()
    assert told.get(timeout=BOUND) == "second"
    threads.stop(BOUND)


@pytest.mark.parametrize("error", [ConnectionError("on purpose"), SystemExit(1)], ids=["error", "exit"])
def test_a_receiver_that_fails_at_the_end_of_a_revoked_job_frees_its_place(
    app: Celery, error: BaseException
) -> None:
    """Whatever it raises: the job is parted with, and those behind it are served."""

    @app.task
    async def plain() -> None: ...

    def fails(**_: Any) -> None:
        raise error

    whole = message(plain, "revoked")
    job = Job(1, target(traced(app, plain)), whole, Callbacks(), (None, None), lambda *_: None, copy_context())
    steps = job.split(app.tasks[plain.name].coroutine_function)
    assert job.context.run(steps.before) is BODY
    assert job.decide()  # by who has revoked it
    threads, parted = Threads("aftermath"), SimpleQueue[Any]()
    aftermath = Aftermath(app, threads, parted.put, parted.put, lambda job: parted.put(job.id))
    signals.task_postrun.connect(fails)
    try:
        aftermath.add(job)
        threads.start(1)
        assert parted.get(timeout=BOUND) == "revoked"
    finally:
        signals.task_postrun.disconnect(fails)
        threads.stop(BOUND)


def test_the_clock_calls_in_time_order_and_not_what_was_cancelled() -> None:
    """Also among many cancelled ones, which it forgets."""
    clock, rung = Clock("clock"), SimpleQueue[str]()
    now = time.monotonic()
    clock.set(now + 0.10, rung.put, "second")
    clock.set(now + 0.05, rung.put, "first")
    for alarm in [clock.set(now + 3600, rung.put, "never") for _ in range(1000)]:
        clock.cancel(alarm)
    cancelled = clock.set(now + 0.07, rung.put, "cancelled")
    clock.cancel(cancelled)
    clock.cancel(cancelled)
    assert len(clock._alarms) < 200
    assert [rung.get(timeout=BOUND), rung.get(timeout=BOUND)] == ["first", "second"]
    clock.stop(BOUND)
    assert rung.empty()


def test_threads_survive_what_they_call_and_end_after_what_they_have(caplog: pytest.LogCaptureFixture) -> None:
    """An error is logged and ends nothing, SystemExit neither; stop() lets finish what was put before."""
    threads, done = Threads("several"), SimpleQueue[str]()
    threads.start(2)
    assert len(threads) == 2

    def leave() -> None:
        raise SystemExit

    for _ in range(2):
        threads.put(lambda: 1 / 0)
        threads.put(leave)
    go_on = threading.Event()
    threads.put(go_on.wait)
    threads.put(done.put, "last")
    go_on.set()
    threads.stop(BOUND)
    assert done.get(timeout=BOUND) == "last"
    assert caplog.text.count("ZeroDivisionError") == 2
    assert caplog.text.count("was to end in") == 2
    threads.stop(BOUND)
