"""Tasks that tell on whose behalf they ran."""

import asyncio
import os

from celery import Celery, chain, group

from homeloop import current_user
from homeloop.adapters.celery import carry_users, install, user_aware_task

app = Celery("users", broker=os.environ["SEED_BROKER"], backend=os.environ["SEED_BROKER"])
app.conf.update(
    task_default_queue=os.environ["SEED_QUEUE"],
    worker_prefetch_multiplier=4,
    result_extended=True,
    task_publish_retry=False,
)
install(app)
if "SEED_KEYS" in os.environ:
    carry_users(os.environ["SEED_KEYS"].split(","), ttl=float(os.environ.get("SEED_TTL", "60")))


def me() -> str | None:
    user = current_user()
    return None if user is None else user.id


@app.task(bind=True, max_retries=2)
@user_aware_task
async def tell(self, expected: str | None, trouble: str = "none"):
    """Tell who it is, before and after letting others run; fail or retry on the way."""
    before = me()
    await asyncio.sleep(0.001)
    if trouble == "retry" and self.request.retries == 0:
        raise self.retry(countdown=0)
    if trouble == "fail":
        raise ValueError(me())
    if trouble == "nested":
        return [expected, before, await asyncio.to_thread(me)]
    return [expected, before, me()]


@app.task
@user_aware_task
def tell_sync(expected: str | None):
    return [expected, me(), me()]


@app.task
def unaware():
    """A task without the decorator."""
    return me()


@app.task
@user_aware_task
async def calls_others():
    """Call a task from within a body; its own user goes along."""
    return (await asyncio.to_thread(tell.delay, me())).id


@app.task
@user_aware_task
async def claims():
    user = current_user()
    return None if user is None else dict(user.claims)


def canvas(expected: str) -> object:
    """A chain whose later members are called by workers, and a group with a callback."""
    return chain(
        tell.si(expected),
        tell_sync.si(expected),
        group(tell.si(expected), tell.si(expected)),
        tell_sync.si(expected),
    )


@app.task(bind=True, max_retries=2)
@user_aware_task
async def outlasts(self, how: str):
    """Do what `_outlast` says."""
    return _outlast(self, how)


@app.task(bind=True, max_retries=2)
@user_aware_task
def outlasts_sync(self, how: str):
    """Do what `_outlast` says."""
    return _outlast(self, how)


@app.task(bind=True, max_retries=2, autoretry_for=(ValueError,), retry_backoff=False, default_retry_delay=0)
@user_aware_task
def outlasts_failing(self):
    """Fail, to be retried, when the user's time is over."""
    _let_the_user_grow_old()
    raise ValueError(me())


def _let_the_user_grow_old() -> None:
    """From here on no user of this process is good for longer than a microsecond."""
    carry_users(os.environ["SEED_KEYS"].split(","), ttl=1e-6)


def _outlast(self, how: str):
    """Send a message when the user's time is over: a retry, another task, or (with none here) what follows."""
    if self.request.retries:
        return [me()]
    _let_the_user_grow_old()
    if how == "retry":
        raise self.retry(countdown=0)
    if how == "call":
        tell_sync.delay(None)
    return [me()]
