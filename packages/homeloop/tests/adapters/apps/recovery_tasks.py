"""Tasks that survive their workers, and write down which worker did what, and when."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path

import asyncpg
from celery import Celery, signals
from celery.exceptions import SoftTimeLimitExceeded

from homeloop import LoopLocal, current_user
from homeloop.adapters.celery import carry_users, install, user_aware_task
from homeloop.adapters.celery.recovery import PostgresStore, RecoveryContext, recover_tasks

log = Path(os.environ["SEED_LOG"])
LEASE = float(os.environ.get("RECOVERY_LEASE", "2"))  # seconds
BOUND = 60.0  # seconds a task waits for another process before it fails

app = Celery("recovery", broker=os.environ["SEED_BROKER"], backend=os.environ["SEED_BROKER"])
app.conf.update(
    task_default_queue=os.environ["SEED_QUEUE"],
    worker_prefetch_multiplier=1,
    task_publish_retry=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
)
install(app)
carry_users([os.environ["SEED_KEYS"]])
recovery = recover_tasks(
    app,
    PostgresStore(os.environ.get("RECOVERY_STORE_DSN") or os.environ["RECOVERY_DSN"]),
    lease=LEASE,
    sweep_interval=0.2,
    max_losses=int(os.environ.get("RECOVERY_MAX_LOSSES", "5")),
)
pools = LoopLocal(lambda: asyncpg.create_pool(os.environ["RECOVERY_DSN"], min_size=0, max_size=3))


@signals.worker_ready.connect
def tell(**_: object) -> None:
    with log.open("a") as file:
        file.write(f"{os.getpid()} ready\n")


async def note(context: RecoveryContext, what: str, step: int | None = None) -> None:
    """Write down what a run does, with the database's time."""
    async with pools() as pool:
        await pool.execute(
            "INSERT INTO notes (task_id, fence, pid, what, step) VALUES ($1, $2, $3, $4, $5)",
            context.task_id, context.fence, os.getpid(), what, step,
        )  # fmt: skip


async def gate(name: str) -> None:
    """Wait until the test opens a gate."""
    async with asyncio.timeout(BOUND):
        while not await is_open(name):  # noqa: ASYNC110  # another process opens it
            await asyncio.sleep(0.05)


async def is_open(name: str) -> bool:
    async with pools() as pool:
        return bool(await pool.fetchval("SELECT count(*) FROM gates WHERE name = $1", name))


@app.task(bind=True)
@user_aware_task(recovery_enabled=True)
async def walk(self, steps: int, middle: int, name: str, recovery_ctx: RecoveryContext) -> list[object]:
    """Add up its steps, a checkpoint after each; in the middle wait at a gate."""
    last = recovery_ctx.resume_from
    total = 0 if last is None else last.payload["total"]
    for step in range(0 if last is None else last.step + 1, steps):
        await note(recovery_ctx, "step", step)
        if step == middle:
            await gate(name)
        total += step
        await recovery_ctx.checkpoint(step, 100 * (step + 1) / steps, {"total": total})
    await note(recovery_ctx, "end")
    user = current_user()
    return [total, self.request.id == recovery_ctx.task_id, None if user is None else user.id]


@app.task
@user_aware_task(recovery_enabled=True, checkpoint_frequency=25, recovery_priority=1)
async def hold(name: str, recovery_ctx: RecoveryContext) -> str:
    """Wait at a gate with half of the work done; its clean-up says that it ran."""
    last = recovery_ctx.resume_from
    await note(recovery_ctx, "begin", None if last is None else int(last.percent))
    await recovery_ctx.checkpoint("half", 50, {"secret": name})
    await note(recovery_ctx, "half")
    try:
        await gate(name)
        await recovery_ctx.checkpoint("more", 60)
        await recovery_ctx.checkpoint("most", 80)
    finally:
        await note(recovery_ctx, "cleaned")
    return f"fence {recovery_ctx.fence}"


@app.task
@user_aware_task(recovery_enabled=True, recovery_priority=5)
async def hold_first(name: str, recovery_ctx: RecoveryContext) -> str:
    """As `hold`, but more urgent."""
    return await hold_body(name, recovery_ctx)


async def hold_body(name: str, context: RecoveryContext) -> str:
    await note(context, "begin")
    await gate(name)
    return "done"


@app.task
@user_aware_task(recovery_enabled=True)
async def kills_its_worker(recovery_ctx: RecoveryContext) -> None:
    await note(recovery_ctx, "begin")
    os.kill(os.getpid(), 9)


@app.task(bind=True, max_retries=3)
@user_aware_task(recovery_enabled=True)
async def retried(self, recovery_ctx: RecoveryContext) -> list[object]:
    """A retry goes on from the checkpoint of the run before."""
    last = recovery_ctx.resume_from
    await note(recovery_ctx, "begin", self.request.retries)
    await recovery_ctx.checkpoint(self.request.retries, 10 * self.request.retries)
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return [None if last is None else last.step, recovery_ctx.losses]


@app.task(soft_time_limit=1)
@user_aware_task(recovery_enabled=True)
async def limited(name: str, recovery_ctx: RecoveryContext) -> str:
    try:
        await hold_body(name, recovery_ctx)
    except SoftTimeLimitExceeded:
        return "softly"
    return "never"


@app.task(time_limit=1)
@user_aware_task(recovery_enabled=True)
async def limited_hard(name: str, recovery_ctx: RecoveryContext) -> None:
    await hold_body(name, recovery_ctx)


@app.task
@user_aware_task(recovery_enabled=True)
async def fails(recovery_ctx: RecoveryContext) -> None:
    await note(recovery_ctx, "begin")
    raise LookupError("for good")


@app.task(bind=True)
@user_aware_task(recovery_enabled=True)
async def counts_down(self, number: int, recovery_ctx: RecoveryContext) -> int:
    """Replaces itself, under the same id, until it is zero."""
    assert recovery_ctx.resume_from is None
    await recovery_ctx.checkpoint(number, 90)
    if number:
        raise self.replace(counts_down.s(number - 1))
    return recovery_ctx.fence


@app.task
@user_aware_task(recovery_enabled=True)
async def without_context(number: int) -> int:
    """A task that is recovered from its start: it takes no context."""
    return number + 1


@app.task
async def plain(number: int) -> int:
    """A task without recovery."""
    return number


@app.task(bind=True, max_retries=3)
@user_aware_task(recovery_enabled=True)
async def retries_when_cut(self, name: str, recovery_ctx: RecoveryContext) -> str:
    """Takes its own cancellation for a reason to be retried."""
    await note(recovery_ctx, "begin", self.request.retries)
    try:
        await gate(name)
    except asyncio.CancelledError:
        await note(recovery_ctx, "cut")
        raise self.retry(countdown=0) from None
    return f"fence {recovery_ctx.fence}"


@app.task(bind=True, max_retries=3)
@user_aware_task(recovery_enabled=True)
async def retries_quietly(self, recovery_ctx: RecoveryContext) -> str:
    """Asks for its retry, and goes on to its end."""
    await note(recovery_ctx, "begin", self.request.retries)
    if not self.request.retries:
        await recovery_ctx.checkpoint("asked", 50)
        self.retry(countdown=0, throw=False)
    return "done"


def then_blocked(fn: Callable[..., Awaitable[str]]) -> Callable[..., Awaitable[str]]:
    """Block the loop after the end of the first run, until the test makes a file."""

    @wraps(fn)
    async def call(*args: object, **kwargs: object) -> str:
        value = await fn(*args, **kwargs)
        while value == "fence 1" and not Path(f"{log}.go").exists():  # noqa: ASYNC240  # as its author should not
            time.sleep(0.01)  # noqa: ASYNC251
        return value

    return call


@app.task
@then_blocked
@user_aware_task(recovery_enabled=True)
async def ends_late(recovery_ctx: RecoveryContext) -> str:
    await note(recovery_ctx, "begin")
    return f"fence {recovery_ctx.fence}"


@app.task
async def hears(value: str, task_id: str) -> None:
    """A callback: writes down the result that it is called with."""
    async with pools() as pool:
        await pool.execute("INSERT INTO notes (task_id, what) VALUES ($1, $2)", task_id, value)
