"""Tasks for the asyncio pool; those that hold wait until a file is there."""

import asyncio
import json
import os
import threading
import time
from contextvars import ContextVar
from pathlib import Path

from celery import Celery, Task, signals
from celery.backends.redis import RedisBackend
from celery.exceptions import SoftTimeLimitExceeded

from homeloop import LoopRuntime, default_runtime
from homeloop.adapters.celery import install

app = Celery("asyncio-pool", broker=os.environ["SEED_BROKER"], backend=os.environ["SEED_BACKEND"])
app.conf.update(
    task_default_queue=os.environ["SEED_QUEUE"],
    control_exchange=os.environ["SEED_QUEUE"],  # other tests' workers do not hear this one's commands
    worker_prefetch_multiplier=1,
)
app.conf.broker_transport_options = {
    "data_folder_in": os.environ["SEED_FOLDER"],
    "data_folder_out": os.environ["SEED_FOLDER"],
    "control_folder": os.environ["SEED_FOLDER"],
    **json.loads(os.environ.get("SEED_TRANSPORT", "{}")),
}
install(app)

log = Path(os.environ["SEED_LOG"])
flag = log.with_name("released")


def note(line: str) -> None:
    with log.open("a") as file:
        file.write(f"{line}\n")


class HesitantBackend(RedisBackend):
    """Gives a new attempt of a task the time to succeed while the attempt before is stored as a retry."""

    def set(self, key, value, *args, **options):  # type: ignore[no-untyped-def]
        if '"RETRY"' in value:
            deadline = time.monotonic() + 0.5
            while '"SUCCESS"' not in (self.get(key) or b"").decode() and time.monotonic() < deadline:
                time.sleep(0.02)
        return super().set(key, value, *args, **options)


class Gate:
    """Lets everybody on the loop through while a file is there."""

    _open: "asyncio.Task[None] | None" = None

    async def wait(self) -> None:
        if self._open is None or self._open.done():
            self._open = asyncio.create_task(self._watch())
        await asyncio.shield(self._open)

    async def _watch(self) -> None:
        while not flag.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # a file tells nobody


gate = Gate()


class Barrier:
    """Lets everybody go when as many as were announced have come."""

    def __init__(self) -> None:
        self.here = 0
        self.full = asyncio.Event()

    async def reach(self, parties: int) -> None:
        self.here += 1
        if self.here == parties:
            self.full.set()
        await self.full.wait()


barrier = Barrier()


@app.task
async def meet(parties: int) -> int:
    """Returns, once that many tasks are here at the same time, how many threads there are."""
    await barrier.reach(parties)
    return threading.active_count()


@app.task
async def add(x: int, y: int) -> int:
    return x + y


@app.task
async def hold(number: int) -> int:
    await gate.wait()
    return number


@app.task(acks_late=True)
async def hold_late(number: int) -> int:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        note("cleaned")
    return number


@app.task
async def begins(number: int) -> int:
    note(f"begun {number}")
    await asyncio.sleep(0.01)
    return number


@app.task(acks_late=True)
async def begins_late(number: int) -> int:
    note(f"begun {number}")
    await asyncio.sleep(0.01)
    return number


@app.task(bind=True)
async def again(self, number: int) -> int:  # type: ignore[no-untyped-def]
    if self.request.retries < 1:
        raise self.retry(countdown=0)
    return number


@app.task
async def hold_named(name: str) -> None:
    note(f"{name} holds")
    try:
        await asyncio.Event().wait()
    finally:
        note(f"{name} cleaned")


@app.task(soft_time_limit=0.3)
async def softly(handle: bool) -> str:
    try:
        await asyncio.Event().wait()
    except SoftTimeLimitExceeded:
        await asyncio.sleep(0)
        note("limited softly")
        if not handle:
            raise
    return "half of it"


@app.task(time_limit=0.3)
async def hardly() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        note("limited hardly")


quick = LoopRuntime(name="quick", grace=0.5)


@app.task(time_limit=0.3, runtime=quick)
async def block() -> None:
    """Blocks the loop, which a limit cannot end, until the file is there."""
    note("blocks")
    while not flag.exists():
        time.sleep(0.02)  # noqa: ASYNC251


class Counting:
    running = most = 0


@app.task
async def count() -> None:
    Counting.running += 1
    Counting.most = max(Counting.most, Counting.running)
    await gate.wait()
    Counting.running -= 1


@app.task
async def most() -> int:
    most, Counting.most = Counting.most, 0
    return most


@app.task
async def forgets_await() -> object:
    return gate.wait()


@app.task
async def exits() -> None:
    raise SystemExit(3)


@app.task
async def cancels_itself() -> None:
    raise asyncio.CancelledError


@app.task
def close_runtime() -> None:
    default_runtime().close()


@app.task
def sync(number: int) -> str:
    note(f"sync {number}")
    return threading.current_thread().name


variable: ContextVar[str] = ContextVar("variable", default="nothing")
tokens = {}


class Observed(Task):
    """Notes the order of what Celery calls, and on which thread."""

    def before_start(self, task_id, args, kwargs) -> None:  # type: ignore[no-untyped-def]
        self._note("before_start")

    def on_success(self, retval, task_id, args, kwargs) -> None:  # type: ignore[no-untyped-def]
        self._note(f"on_success {retval}")

    def on_failure(self, exc, task_id, args, kwargs, einfo) -> None:  # type: ignore[no-untyped-def]
        self._note(f"on_failure {exc!r}")

    def after_return(self, status, retval, task_id, args, kwargs, einfo) -> None:  # type: ignore[no-untyped-def]
        self._note(f"after_return {status}")

    def _note(self, what: str) -> None:
        is_here = threading.current_thread().name.startswith("homeloop-pool-")
        note(f"{what}{'' if is_here else ' on a strange thread'}; {self.request.args}")


@app.task(base=Observed)
async def observed(word: str) -> str:
    seen = variable.get()
    variable.set("by the body")
    if word == "fails":
        raise LookupError(word)
    return f"{word} {seen}"


@signals.task_prerun.connect(sender=observed)
def _before(task_id: str, **_: object) -> None:
    tokens[task_id] = variable.set("by prerun")


@signals.task_postrun.connect(sender=observed)
def _after(task_id: str, **_: object) -> None:
    note(f"postrun sees {variable.get()}")
    variable.reset(tokens.pop(task_id))  # possible in the same context only


class Called(Task):
    def __call__(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        note("called")
        return self.run(*args, **kwargs)


@app.task(base=Called)
async def called() -> str:
    return threading.current_thread().name


@app.task(base=Called)
async def called_to_hold() -> None:
    note("called holds")
    try:
        await asyncio.Event().wait()
    finally:
        note("called cleaned")
