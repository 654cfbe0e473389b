"""Async tasks called without a worker: by each other, from threads, with classes and runtimes of their own."""

import asyncio
import contextvars
import threading
from collections.abc import Iterator

import pytest
from celery import Celery, Task, current_app, current_task, shared_task

import homeloop
from homeloop.adapters.celery import AsyncTask, install
from homeloop.errors import AdapterError, CallTimeoutError

MANY = 3
seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="nothing")


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app without a broker, whose tasks may be ``async def``."""
    made = Celery("calls", broker="memory://", backend="cache+memory://")
    install(made)
    yield made
    made.close()


@pytest.fixture
def chosen() -> Iterator[homeloop.LoopRuntime]:
    """A runtime that is not the default one."""
    with homeloop.LoopRuntime(name="chosen") as runtime:
        yield runtime


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_tasks_in_threads_of_an_async_task_see_their_own_request(app: Celery, kind: str) -> None:
    """Three at a time, by to_thread: neither each other's request nor, afterwards, anything but the owner's."""
    together = threading.Barrier(MANY, timeout=10)

    @app.task(bind=True)
    def sync(self):  # type: ignore[no-untyped-def]
        before = self.request.id
        together.wait()
        return before, self.request.id, current_task.request.id

    @app.task(bind=True)
    async def asynchronous(self):  # type: ignore[no-untyped-def]
        before = self.request.id
        await asyncio.to_thread(together.wait)
        return before, self.request.id, current_task.request.id

    inner = sync if kind == "sync" else asynchronous

    @app.task(bind=True)
    async def outer(self):  # type: ignore[no-untyped-def]
        calls = [asyncio.to_thread(inner.apply, task_id=f"inner-{i}") for i in range(MANY)]
        results = [each.result for each in await asyncio.gather(*calls)]
        return results, self.request.id, current_task.name, await asyncio.to_thread(lambda: current_task.name)

    results, own, name, name_in_thread = outer.apply(task_id="outer").get()
    assert results == [(f"inner-{i}",) * 3 for i in range(MANY)]
    assert (own, name, name_in_thread) == ("outer", outer.name, outer.name)
    assert not current_task


def test_context_variables_come_back_and_celerys_own_do_not(app: Celery) -> None:
    """What a task sets is set for its caller; requests, current task and current app stay inside."""

    @app.task
    async def sets() -> None:
        seen.set("set inside")

    def call() -> None:
        before_call = current_app._get_current_object()
        assert sets.apply().get() is None
        sets()
        assert seen.get() == "set inside"
        assert not current_task
        assert sets.request.id is None
        assert current_app._get_current_object() is before_call

    contextvars.copy_context().run(call)


def test_a_task_with_a_base_class_of_its_own_may_be_async(app: Celery) -> None:
    """Also a shared one; the class keeps its meaning."""

    class Own(Task):
        abstract = True
        greeting = "hello"

    @app.task(base=Own, bind=True)
    async def own(self):  # type: ignore[no-untyped-def]
        await asyncio.sleep(0)
        return self.greeting, self.request.id

    @shared_task(base=Own, name="shared-with-own-base")
    async def shared() -> int:
        return 1

    assert own.apply(task_id="here").get() == ("hello", "here")
    assert isinstance(own, Own)
    assert app.tasks["shared-with-own-base"].apply().get() == 1


def test_a_class_that_was_never_registered_runs_too() -> None:
    """Celery gives it whatever app is current: so does its coroutine."""

    class Loose(AsyncTask):
        name = "loose"

        async def run(self) -> str:
            return str(current_app.main)

    assert Loose().run() == str(current_app.main)


def test_an_async_task_class_that_cannot_be_bridged_is_refused(app: Celery) -> None:
    """A class-based task is registered as it is: the error names the base class it needs."""

    class Classic(Task):
        name = "classic"

        async def run(self) -> int:
            return 1

    with pytest.raises(AdapterError, match=r"Classic\.run is async def; derive .*Classic from AsyncTask"):
        app.register_task(Classic())

    class Fixed(AsyncTask):
        name = "fixed"

        async def run(self) -> int:
            return 2

    assert app.register_task(Fixed()).apply().get() == 2


def test_the_current_app_is_the_tasks_own(app: Celery) -> None:
    """In the coroutine and its threads, and with a second app whose coroutines interleave on the same loop."""
    other = Celery("other", broker="memory://", backend="cache+memory://")
    install(other)
    together = threading.Barrier(2, timeout=10)

    def make(owner: Celery) -> Task:
        @owner.task
        async def which() -> list[str]:
            before = current_app.main
            await asyncio.to_thread(together.wait)
            return [before, current_app.main, await asyncio.to_thread(lambda: current_app.main)]

        return which

    results: dict[str, list[str]] = {}
    threads = [
        threading.Thread(target=lambda each=each: results.update({each.main: make(each)()}))  # type: ignore[misc]
        for each in (app, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert results == {"calls": ["calls"] * 3, "other": ["other"] * 3}


def test_a_task_called_by_a_coroutine_is_awaited(app: Celery) -> None:
    """Directly, and several at a time: each with the request Celery makes for such a call, none afterwards."""

    @app.task(bind=True)
    async def inner(self, x: int):  # type: ignore[no-untyped-def]
        await asyncio.sleep(0)
        return x, list(self.request.args), current_task.name

    @app.task(bind=True)
    async def outer(self):  # type: ignore[no-untyped-def]
        first = await inner(1)
        return first, await asyncio.gather(inner(2), inner(3)), self.request.id, current_task.name

    named = [(x, [x], inner.name) for x in (1, 2, 3)]
    assert outer.apply(task_id="outer").get() == (named[0], named[1:], "outer", outer.name)


@pytest.mark.parametrize("eager", ["apply", "delay"])
def test_an_eager_call_that_would_wait_for_itself_says_what_to_do(app: Celery, eager: str) -> None:
    """The error names both ways, and both work."""
    app.conf.task_always_eager = True

    @app.task
    async def inner() -> int:
        return 1

    @app.task
    async def outer() -> object:
        return getattr(inner, eager)()

    @app.task
    async def as_told() -> tuple[int, int]:
        return await inner(), (await asyncio.to_thread(inner.apply)).get(disable_sync_subtasks=False)

    with pytest.raises(AdapterError, match=r"await inner\(\.\.\.\), or await asyncio\.to_thread\(inner\.apply, "):
        outer.apply().get()
    assert as_told.apply().get() == (1, 1)


def test_a_class_that_names_its_runtime_keeps_it(chosen: homeloop.LoopRuntime) -> None:
    """As the app's task class and as a base; a class that names none follows the app."""

    class Chosen(AsyncTask):
        abstract = True
        runtime = chosen

    class Plain(AsyncTask):
        abstract = True

    async def where() -> str:
        return threading.current_thread().name

    by_class = Celery("by-class", broker="memory://", task_cls=Chosen)
    install(by_class)
    assert by_class.task(where)() == "chosen"
    by_default = Celery("by-default", broker="memory://")
    install(by_default)
    assert by_default.task(base=Chosen)(where)() == "chosen"
    by_app = Celery("by-app", broker="memory://")
    install(by_app, runtime=chosen)
    assert by_app.task(base=Plain)(where)() == "chosen"


def test_an_app_has_one_runtime(chosen: homeloop.LoopRuntime) -> None:
    """A second install with another one is refused."""
    app = Celery("twice", broker="memory://")
    install(app, runtime=chosen)
    with pytest.raises(AdapterError, match="another runtime"):
        install(app)


def test_a_time_out_within_a_task_stays_what_it_is(app: Celery, chosen: homeloop.LoopRuntime) -> None:
    """A CallTimeoutError that the coroutine's own call raised is not taken for the task's hard limit."""

    @app.task
    async def calls() -> None:
        await chosen.arun(asyncio.Event().wait, timeout=0)

    with pytest.raises(CallTimeoutError, match="did not finish within 0 s"):
        calls.apply().get()


def test_a_warm_up_that_fails_is_logged_and_the_next_one_runs(script) -> None:  # type: ignore[no-untyped-def]
    """In a process of a worker's, before its first task."""
    ended = script(
        """
import logging
from celery import Celery, signals
from homeloop.adapters.celery import install
logging.basicConfig()
async def fails(): raise LookupError("no database")
async def opens(): print("opened")
install(Celery("warm", broker="memory://"), warm_up=[fails, opens])
signals.worker_process_init.send(sender=None)
signals.worker_process_init.send(sender=None)
signals.worker_process_shutdown.send(sender=None, pid=0, exitcode=0)
"""
    )
    assert ended.stdout == "opened\n"
    assert "could not be warmed up" in ended.stderr
    assert "no database" in ended.stderr
