"""The tasks of the pool table: each shows one promise of Celery's, as ``async def`` unless it says sync."""

import asyncio
import contextvars
import json
import os
import threading
import time
from datetime import datetime
from pathlib import Path

from celery import Celery, current_task, group, signals
from celery.exceptions import Reject, SoftTimeLimitExceeded
from celery.utils.log import get_task_logger

import homeloop
from homeloop import LoopLocal
from homeloop.adapters.celery import install
from workflow_service.gateways import filesystem_broker

filesystem_broker.register()

BOUND = 30.0  # seconds a task waits for another process before it fails
LONG = 600.0  # seconds a task waits that is to be ended from outside

logger = get_task_logger(__name__)
folder = Path(os.environ["POOL_FOLDER"])
app = Celery("pools", broker=os.environ["POOL_BROKER"], backend=os.environ["POOL_BACKEND"])
app.conf.update(
    json.loads(os.environ["POOL_SETTINGS"]),
    task_default_queue=os.environ["POOL_QUEUE"],
    task_track_started=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    result_expires=600,
)


class Resource:
    """Stands for a pool of connections; tells when it is opened and closed."""

    async def __aenter__(self) -> "Resource":
        note("resources", f"opened {os.getpid()}")
        return self

    async def __aexit__(self, *_: object) -> None:
        note("resources", f"closed {os.getpid()}")


resources = LoopLocal(Resource)
install(app, warm_up=[resources.get])


def note(name: str, line: str) -> None:
    """Add a line to a file that the test reads; one write, so lines of several processes do not mix."""
    descriptor = os.open(folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


async def wait_for_file(name: str) -> None:
    async with asyncio.timeout(BOUND):
        while not (folder / name).exists():  # noqa: ASYNC110  # another process makes it
            await asyncio.sleep(0.01)


async def hold(key: str) -> None:
    """Wait to be ended from outside; the clean-up takes a turn of the loop and says that it ran."""
    note(key, f"holding {os.getpid()}")
    try:
        await asyncio.sleep(LONG)
    finally:
        await asyncio.sleep(0)
        note(key, f"cleaned {os.getpid()}")


@app.task
async def add(x: int, y: int) -> int:
    await asyncio.sleep(0)
    return x + y


@app.task
def add_sync(x: int, y: int) -> int:
    return x + y


@app.task
def add_through_run(x: int, y: int) -> int:
    """A sync task that reaches async code."""
    return homeloop.run(_add, x, y, timeout=BOUND)


async def _add(x: int, y: int) -> int:
    await asyncio.sleep(0)
    return x + y


@app.task
async def logs(lines: int) -> int:
    for number in range(lines):
        logger.warning("line %d of a coroutine", number)
        await asyncio.sleep(0)
    return lines


@app.task
def logs_sync(lines: int) -> int:
    for number in range(lines):
        logger.warning("line %d of a sync task", number)
    return lines


@app.task
async def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
async def fail(message: str) -> None:
    await asyncio.sleep(0)
    raise LookupError(message)


@app.task
async def cancels_itself(how: str) -> None:
    """Ends with a cancellation that nobody has asked for."""
    if how == "raises it":
        raise asyncio.CancelledError
    if how == "asks for it":
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
    other = asyncio.create_task(asyncio.sleep(LONG))
    other.cancel()
    await other


@app.task
async def took_error(request, error, traceback) -> None:  # type: ignore[no-untyped-def]
    """An errback."""
    await asyncio.sleep(0)
    note("errors", f"{request.id} {error!r}")


@app.task(bind=True)
async def who(self) -> list[object]:  # type: ignore[no-untyped-def]
    """What it sees before and after a suspension, and in a thread."""
    before = self.request.id
    await asyncio.sleep(0.01)
    in_thread = await asyncio.to_thread(lambda: current_task.request.id)
    return [before, self.request.id, current_task.request.id, in_thread]


@app.task
async def where() -> list[object]:
    """The process, the loop's thread, the loop."""
    await resources.get()
    return [os.getpid(), threading.current_thread().name, id(asyncio.get_running_loop())]


@app.task
async def cancels_itself_last() -> str:
    """Asks for its cancellation, and is over before that comes."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    return "all of it"


@app.task(bind=True, max_retries=3)
async def retried(self, key: str) -> int:  # type: ignore[no-untyped-def]
    note(key, f"run {self.request.retries}")
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return int(self.request.retries)


@app.task(bind=True, autoretry_for=(ConnectionError,), max_retries=3, default_retry_delay=0)
async def autoretried(self) -> int:  # type: ignore[no-untyped-def]
    if self.request.retries < 2:
        raise ConnectionError("not yet")
    return int(self.request.retries)


@app.task
async def limited(key: str) -> str:
    """Handles its soft limit."""
    try:
        await hold(key)
    except SoftTimeLimitExceeded:
        await asyncio.sleep(0)
        return "half of it"
    return "all of it"


@app.task(autoretry_for=(Exception,), default_retry_delay=0)
async def held_autoretried(key: str) -> None:
    await hold(key)


@app.task
async def held(key: str) -> None:
    await hold(key)


@app.task
async def swallows(key: str, how: str) -> str:
    """Makes something else of its cancellation."""
    try:
        await hold(key)
    except asyncio.CancelledError:
        if how == "raises":
            raise LookupError("it was not that") from None
    return "all of it"


@app.task
async def outlasts_soft_limit(key: str, seconds: float) -> str:
    """Goes on for so long when its soft limit has come."""
    try:
        await hold(key)
    except SoftTimeLimitExceeded:
        await asyncio.sleep(seconds)
    return "half of it"


@app.task(acks_late=True)
async def held_acks_late(key: str) -> str:
    """The first run is cut off; the one after redelivery finishes."""
    if (folder / key).exists():
        note(key, "again")
        return "second run"
    await hold(key)
    return "first run"


@app.task(acks_late=True)
async def gated(key: str, gate: str) -> None:
    note(key, "holding")
    await wait_for_file(gate)


@app.task
async def finishes(key: str, gate: str) -> str:
    note(key, f"holding {os.getpid()}")
    await wait_for_file(gate)
    note(key, "finished")
    return "done"


@app.task(bind=True)
async def when(self) -> list[float]:  # type: ignore[no-untyped-def]
    return [time.time(), datetime.fromisoformat(self.request.eta).timestamp()]


@app.task
async def counted(key: str) -> None:
    note(key, "ran")


@app.task(acks_late=True)
async def rejected(key: str) -> None:
    """Puts its message back once."""
    note(key, "ran")
    if (folder / key).read_text().count("ran") == 1:
        raise Reject("once more", requeue=True)


@app.task
async def meets(key: str, count: int) -> int:
    """Ends only when as many of them run at the same time, in whatever process."""
    note(key, "here")
    async with asyncio.timeout(BOUND):
        while (folder / key).read_bytes().count(b"here") < count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # for what other processes write
    return os.getpid()


barrier: asyncio.Barrier | None = None


@app.task
async def meets_on_loop(count: int) -> int:
    """Ends only when as many of them wait on this loop at the same time."""
    global barrier
    barrier = barrier or asyncio.Barrier(count)
    async with asyncio.timeout(BOUND):
        await barrier.wait()
    return os.getpid()


@app.task
async def blocks(key: str, seconds: float) -> None:
    """What no coroutine should do: nothing can end it but a kill."""
    note(key, f"holding {os.getpid()}")
    time.sleep(seconds)  # noqa: ASYNC251


@app.task(autoretry_for=(Exception,), default_retry_delay=0)
async def blocks_autoretried(key: str) -> None:
    note(key, f"holding {os.getpid()}")
    time.sleep(LONG)  # noqa: ASYNC251


@app.task
async def sends(count: int) -> list[str]:
    """Sends tasks from the loop: one by one, and a group."""
    one_by_one = [add.delay(i, i).id for i in range(count)]
    together = group(add.s(i, i) for i in range(count)).apply_async()
    return [*one_by_one, *(each.id for each in together.results)]


@app.task(bind=True)
async def replaced(self, x: int, y: int) -> None:  # type: ignore[no-untyped-def]
    raise self.replace(add.s(x, y))


@app.task
def calls_others_sync() -> list[object]:
    """From a sync task, in the worker: direct, apply(), eager."""
    return [add(1, 2), add.apply((3, 4)).get(disable_sync_subtasks=False), who.apply(task_id="inner").result]


@app.task(bind=True)
async def calls_others(self) -> list[object]:  # type: ignore[no-untyped-def]
    """From an async task, on the loop: awaited, and eagerly in a thread."""
    inner = await asyncio.to_thread(who.apply, task_id="inner")
    return [await add(1, 2), *await asyncio.gather(add(3, 4), add(5, 6)), inner.result, self.request.id]


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nobody")


@app.task
async def sets_variable(value: str) -> list[str]:
    before = variable.get()
    variable.set(value)
    await asyncio.sleep(0.01)
    return [before, variable.get(), await asyncio.to_thread(variable.get)]


def _tell(signal: str):  # type: ignore[no-untyped-def]
    def tell(sender, task_id=None, request=None, **_: object) -> None:  # type: ignore[no-untyped-def]
        note("signals", f"{signal} {task_id or (request or sender.request).id}")

    return tell


for _name in ("prerun", "postrun", "success", "failure", "retry", "revoked"):
    getattr(signals, f"task_{_name}").connect(_tell(_name), weak=False)
