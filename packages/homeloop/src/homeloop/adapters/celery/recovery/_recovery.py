"""Recovery of an app's tasks: who holds which, what their end means, and what an operator may ask."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import asyncio
import inspect
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from celery import Celery, signals, states
from celery.exceptions import Ignore, Reject
from celery.utils.log import get_logger
from celery.worker import state as worker_state

from homeloop import LoopLocal, LoopRuntime, default_runtime
from homeloop.adapters.celery._arguments import check_app, check_number, check_whole
from homeloop.adapters.celery._body import current_body
from homeloop.adapters.celery._checkpoints import RecoveryContext
from homeloop.adapters.celery._install import runtime_of
from homeloop.adapters.celery._keys import fernet_of
from homeloop.adapters.celery._lifecycle import warm_up_with_worker
from homeloop.adapters.celery._recoverable import MARK, RUN, Body, Options, ensure_held, recoveries
from homeloop.adapters.celery._users import fernet_here
from homeloop.adapters.celery._worker import hard_limit_of, is_pool_child, is_prefork
from homeloop.adapters.celery.recovery._bounds import bounded
from homeloop.adapters.celery.recovery._ends import Ends, Tell
from homeloop.adapters.celery.recovery._keeper import Keeper
from homeloop.adapters.celery.recovery._messages import Messages
from homeloop.adapters.celery.recovery._outbox import Outbox
from homeloop.adapters.celery.recovery._records import Claim, RecoveryStore, State, TaskRecord, Terms
from homeloop.adapters.celery.recovery._revocations import Revocations
from homeloop.errors import ConfigurationError, UserContextError

logger = get_logger(__name__)

_WHERE = "recover_tasks"

_DELAY = 5.0
"""Seconds, at most, before a message whose task could not be claimed goes back to the broker. A guess."""


@dataclass(slots=True)
class _Run:
    keeper: Keeper
    context: RecoveryContext
    hard_limit_at: float | None  # monotonic
    was_cancelled: bool = False
    has_sent: bool = False  # a retry, as its function asked for

    @property
    def is_over_limit(self) -> bool:
        return self.hard_limit_at is not None and time.monotonic() >= self.hard_limit_at


class Recovery:
    """
    What `recover_tasks` has set up: for workers the leases, for operators the list of tasks.

    Thread: the methods are coroutines for any loop; ``homeloop.run(recovery.list_tasks, "dead")`` from sync code.
    """

    def __init__(
        self, store: RecoveryStore, messages: Messages, terms: Terms, runtime: LoopRuntime | None
    ) -> None:
        self._store = store
        self._messages = messages
        self._terms = terms
        self._runtime = runtime
        self._keepers = LoopLocal(lambda: Keeper(store, messages, terms), name="recovery")
        self._ends = LoopLocal(lambda: Ends(store, terms), name="recovery ends")
        self._revocations = Revocations(self._end_revoked)

    async def list_tasks(self, state: State | None = None, limit: int = 100) -> Sequence[TaskRecord]:
        """Return the app's tasks, of one state or of all, the latest change first."""
        await self._store.prepare()
        return await self._store.list_tasks(self._terms.app, state, limit)

    async def requeue(self, task_id: str) -> bool:
        """
        Send a dead task again, as if it had never been lost; it resumes from its last checkpoint.

        Returns:
            Whether there was such a task.
        """
        await self._store.prepare()
        lost = await self._store.requeue(self._terms.app, task_id, self._terms.lease)
        if lost is not None:
            await Outbox(self._store, self._messages, self._terms).send(lost)
        return lost is not None

    async def discard(self, task_id: str) -> bool:
        """End a task for good, dead or not; tell whether it had not ended. One that runs is cancelled."""
        await self._store.prepare()
        return await self._store.end(self._terms.app, task_id, None)

    # -- in workers -------------------------------------------------------------------------------

    async def warm(self) -> None:
        """Begin to look after the tasks of this loop, and those that others have lost."""
        await self._keepers.get()

    async def run(self, task: Any, request: Any, options: Options, body: Body) -> Any:
        """
        Run a task's body while holding the task.

        Raises:
            Ignore: Another worker runs it, or it has ended: ``body`` was not called. Or it has become
                another worker's: ``body`` was cancelled, and what it wanted to be sent is not.
            Reject: The store has failed, or not answered: ``body`` was not called, the message goes back.
        """
        begun = time.monotonic()
        keeper = await self._keepers.get()
        claim = Claim(
            app=self._terms.app,
            task_id=request.id,
            name=task.name,
            replaced=request.replaced_task_nesting or 0,
            retries=request.retries,
            priority=options.recovery_priority,
            holder=f"{socket.gethostname()}:{os.getpid()}",
            message=self._messages.take(task, request),
        )
        context = await self._hold(keeper, claim, task, options)
        if context is None:
            logger.info("task %s[%s] is not run: it runs elsewhere, or has ended", task.name, request.id)
            raise Ignore("it runs elsewhere, or has ended")
        hard = hard_limit_of(task, request)
        # Celery's clock began before ours.
        run = _Run(keeper, context, None if hard is None else begun + 0.9 * hard)
        vars(request)[RUN] = run
        around = current_body.get()
        postponed = None if around is None else around.postponed
        try:
            value = await body(context)
        except BaseException as error:
            run.was_cancelled = isinstance(error, asyncio.CancelledError)
            ensure_held(request, postponed)
            raise
        else:
            ensure_held(request, postponed)
            return value
        finally:
            run.has_sent = bool(postponed)

    async def _hold(self, keeper: Keeper, claim: Claim, task: Any, options: Options) -> RecoveryContext | None:
        try:
            return await keeper.hold(claim, options.checkpoint_frequency)
        except (asyncio.CancelledError, UserContextError):
            raise
        except Exception as error:
            if not task.acks_late:  # the broker has nothing that could go back
                raise
            logger.exception("task %s[%s] cannot be claimed; its message goes back", task.name, claim.task_id)
            await asyncio.sleep(min(_DELAY, self._terms.sweep_interval))
            raise Reject(f"it cannot be claimed: {error!r}", requeue=True) from error

    def connect(self, app: Celery) -> None:
        """Follow what becomes of the tasks, and start with the worker."""
        warm_up_with_worker(app, self._runtime, [self.warm], owner=self)
        # Held by Celery, as this object is by the app.
        signals.task_postrun.connect(self._note_end, weak=False, dispatch_uid=f"homeloop.end.{id(self)}")
        signals.task_revoked.connect(self._note_revoked, weak=False, dispatch_uid=f"homeloop.revoked.{id(self)}")
        signals.worker_shutdown.connect(
            self._note_shutdown, weak=False, dispatch_uid=f"homeloop.shutdown.{id(self)}"
        )

    def _note_shutdown(self, **_: Any) -> None:
        self._revocations.wait(self._terms.bound)

    def _note_end(self, task: Any, state: Any, retval: Any, **_: Any) -> None:
        """Celery has stored the outcome. Only now: killed in between, the task is to run again."""
        if recoveries.get(task.app) is not self:
            return
        run: _Run | None = vars(task.request).pop(RUN, None)
        if run is None:
            return
        finish = partial(self._finish, run, self._end_of(task, state, retval, run))
        try:
            # Twice the bound: it returns by itself, unless its loop is blocked.
            (task.runtime or default_runtime()).run(finish, timeout=2 * self._terms.bound)
        except Exception:
            logger.exception("recovery was not told of the end of task %s: it may run again", run.context.task_id)

    async def _finish(self, run: _Run, tell: Tell) -> None:
        if run.keeper.forget(run.context):
            ends = await self._ends.get()
            await ends.tell(run.context, tell)

    def _end_of(self, task: Any, state: Any, retval: Any, run: _Run) -> Tell:
        """Return what tells the store what this end means."""
        if run.context.is_lost:  # and if nobody has it yet, somebody is to
            return _release_after(0.0)
        if state == states.REJECTED and retval.requeue:
            return _release_after(self._terms.resend_after)
        if state == states.RETRY or run.has_sent:
            return _wait_for(getattr(retval, "when", None))
        if run.was_cancelled and self._is_to_resume(task.request.id, state, run):
            return _release_after(0.0)
        return lambda store, app, task_id, fence: store.end(app, task_id, fence)

    def _is_to_resume(self, task_id: str, state: Any, run: _Run) -> bool:
        """Tell whether a cancelled task was cut off by its worker's end, not by its own: Celery has no outcome."""
        is_decided = state in (states.SUCCESS, states.FAILURE, states.RETRY)
        return not is_decided and task_id not in worker_state.revoked and not run.is_over_limit

    def _note_revoked(self, sender: Any, request: Any, expired: bool, **_: Any) -> None:
        """A revoked task is not to be sent again. Thread: the worker's main one."""
        if recoveries.get(sender.app) is not self or not getattr(sender.run, MARK, False):
            return
        if expired:
            # That message is; a task that has begun before is not, and if it is lost its next message is to run.
            worker_state.revoked.discard(request.id)
        elif is_prefork() and not is_pool_child():
            self._revocations.add(request.id)
        else:
            (sender.runtime or default_runtime()).submit(self._end_revoked, request.id)

    async def _end_revoked(self, task_id: str) -> None:
        try:
            ending = self._store.end(self._terms.app, task_id, None)
            await bounded(ending, self._terms.bound, "recovery's store")
        except Exception:
            logger.exception("recovery was not told that task %s is revoked: it may be sent again", task_id)


def _release_after(delay: float) -> Tell:
    return lambda store, app, task_id, fence: store.release(app, task_id, fence, delay)


def _wait_for(when: Any) -> Tell:
    """Wait for the moment, or so many seconds, that `celery.exceptions.Retry` names; it may name none."""
    is_moment = isinstance(when, datetime)
    delay = (when - datetime.now(UTC)).total_seconds() if is_moment else float(when or 0)
    return lambda store, app, task_id, fence: store.wait(app, task_id, fence, delay)


def recover_tasks(
    app: Celery,
    store: RecoveryStore,
    *,
    keys: Sequence[str | bytes] | None = None,
    lease: float = 60.0,
    sweep_interval: float = 15.0,
    resend_after: float = 3600.0,
    max_losses: int = 5,
    keep: float = 86400.0,
) -> Recovery:
    """
    Let the tasks of an app that say ``user_aware_task(recovery_enabled=True)`` survive their workers.

    A worker that runs such a task holds it by a lease. When the lease is over, because the worker was
    killed, frozen or cut off, any other worker sends the task again, and it goes on from its last
    checkpoint. Call it after `install`, where the app is made. Tasks with recovery are ``acks_late`` and
    ``reject_on_worker_lost`` unless they say otherwise.

    Args:
        app: The application, with a name of its own among those that share the store.
        store: Where the records are: a `PostgresStore`, or one of yours.
        keys: Fernet keys that seal arguments and payloads, the newest first; by default those of `carry_users`.
        lease: Seconds after which a silent worker counts as dead. A loop must never be blocked so long.
        sweep_interval: Seconds between two looks for lost tasks, in each process that runs tasks.
        resend_after: Seconds after which a message that nobody has taken counts as lost, too: more than
            the queue is ever long.
        max_losses: How often in a row, without a checkpoint that goes further, a task may lose its
            worker before it is given up as ``dead``.
        keep: Seconds for which an ended task is remembered, so that a late duplicate does not run.

    Raises:
        AdapterError: `install` was not called for the app.
        ConfigurationError: Recovery is set up already, the app has no name, or an argument is no app, no store
            or no such number. Nothing was changed.
        UserContextError: There is no key, or one is none.

    Thread: the one that sets up the app.
    """
    check_app(_WHERE, app)
    if inspect.isclass(store) or not isinstance(store, RecoveryStore):
        raise ConfigurationError(
            f"{_WHERE}: store is {store!r}", "pass a PostgresStore, or a RecoveryStore of yours"
        )
    check_number(_WHERE, "lease", lease, above_least=True)
    check_number(_WHERE, "sweep_interval", sweep_interval, above_least=True)
    check_number(_WHERE, "resend_after", resend_after)
    check_whole(_WHERE, "max_losses", max_losses, least=0)
    check_number(_WHERE, "keep", keep)
    runtime = runtime_of(app)
    if not app.main:
        raise ConfigurationError("the app has no name to know its tasks by", 'name it: Celery("shop")')
    if app in recoveries:
        raise ConfigurationError(f"recovery of {app.main!r} is set up already", "call recover_tasks once")
    terms = Terms(app.main, lease, sweep_interval, resend_after, max_losses, keep)
    messages = Messages(app, fernet_here() if keys is None else fernet_of(keys))
    recovery = Recovery(store, messages, terms, runtime)
    recovery.connect(app)
    recoveries[app] = recovery
    return recovery
