"""One loop's share of recovery: it keeps the leases of what runs there, and sends again what others have lost."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

import asyncio
import math
import time
from collections.abc import Coroutine
from contextvars import Context
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from celery.utils.log import get_logger

from homeloop.adapters.celery._checkpoints import Checkpoint, RecoveryContext, Saved, lease_clock
from homeloop.adapters.celery.recovery._bounds import bounded
from homeloop.adapters.celery.recovery._messages import Messages
from homeloop.adapters.celery.recovery._outbox import Outbox
from homeloop.adapters.celery.recovery._records import Claim, Held, Progress, RecoveryStore, Terms
from homeloop.errors import UserContextError

T = TypeVar("T")

logger = get_logger(__name__)

_TRUST = 0.875
"""The part of a lease that a run may use; in the rest it cleans up, before others may run it. A guess."""

_FIRST_PAUSE = 0.05
"""Seconds until a claim that came too early is tried again, at first. A guess: mostly the end of the run before
is being written."""

_BATCH = 100
"""Tasks that one sweep takes: others may take the rest meanwhile."""


class Keeper:
    """
    Holds the tasks that run on one loop, for as long as they run.

    One asyncio task serves all of them: it renews the leases in one statement, four times per lease. A run
    whose lease is about to end is cancelled, as another worker may take it. Another one sweeps.
    """

    def __init__(self, store: RecoveryStore, messages: Messages, terms: Terms) -> None:
        self._store = store
        self._messages = messages
        self._outbox = Outbox(store, messages, terms)
        self._terms = terms
        self._runs: set[RecoveryContext] = set()
        self._preparing = asyncio.Lock()
        self._is_prepared = False

    async def __aenter__(self) -> Self:
        # In no context: what the first task set, and whose it was, is not for the sweep.
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(work, name=f"recovery {number}", context=Context())
            for number, work in enumerate((self._keep(), self._look_after_others()))
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def hold(self, claim: Claim, frequency: float) -> RecoveryContext | None:
        """
        Claim a task for the current asyncio task; None if it is not to run.

        Raises:
            UserContextError: Its checkpoint cannot be opened. It has ended.
            Exception: The store failed, or has not answered. Whether the task is claimed is not known.
            TimeoutError: Also: a run before it has not let go of the task for a whole lease.
        """
        until, (held, deadline) = lease_clock() + self._terms.lease, await self._claim(claim)
        pause = _FIRST_PAUSE
        while held == "later":
            if lease_clock() >= until:
                raise TimeoutError(f"a run before it holds task {claim.task_id} still")
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._terms.beat)
            held, deadline = await self._claim(claim)
        if held is None:
            return None
        run = RecoveryContext(
            claim.task_id,
            resume_from=await self._checkpoint_of(claim, held),
            fence=held.fence,
            losses=held.losses,
            frequency=frequency,
            save=self._save,
            until=deadline,
        )
        self._runs.add(run)
        return run

    async def _claim(self, claim: Claim) -> tuple[Held | Literal["later"] | None, float]:
        await self._wait_for(self._prepare())
        deadline = self._deadline()
        return await self._wait_for(self._store.claim(claim, self._terms.lease, self._terms.max_losses)), deadline

    async def _checkpoint_of(self, claim: Claim, held: Held) -> Checkpoint | None:
        progress = held.progress
        if progress is None:
            return None
        try:
            payload = self._messages.open("payload", claim.task_id, progress.payload)
        except UserContextError:
            await self._wait_for(self._store.end(self._terms.app, claim.task_id, held.fence))
            raise
        return Checkpoint(progress.step, progress.percent, payload)

    def forget(self, run: RecoveryContext) -> bool:
        """A run is over: keep its lease no longer; tell whether it had it. Thread: the loop's."""
        is_held = run in self._runs
        self._runs.discard(run)
        return is_held

    async def _save(self, run: RecoveryContext, checkpoint: Checkpoint) -> Saved:
        until = self._deadline()
        payload = self._messages.seal("payload", run.task_id, checkpoint.payload)
        progress = Progress(checkpoint.step, checkpoint.percent, payload)
        terms = self._terms
        saving = self._store.save(terms.app, run.task_id, run.fence, progress, terms.lease)
        # Not by the bound: what comes late is no harm, and whose lease is over meanwhile is cancelled.
        saved = await bounded(saving, terms.lease, "recovery's store")
        if saved != "lost" and run in self._runs:
            run.until = max(run.until, until)
        return saved

    async def _prepare(self) -> None:
        async with self._preparing:
            if not self._is_prepared:
                await self._wait_for(self._store.prepare())
                self._is_prepared = True

    async def _wait_for(self, step: Coroutine[Any, Any, T]) -> T:
        return await bounded(step, self._terms.bound, "recovery's store")

    async def _keep(self) -> None:
        while True:
            self._give_up()  # this process was frozen, or its loop blocked, or the store is not there
            try:
                await self._renew()
            except Exception:
                logger.exception("recovery cannot renew its leases; it will try again")
            await asyncio.sleep(self._time_left())

    def _time_left(self) -> float:
        """Return the seconds to the next renewal, or to the end of the first lease if that is earlier."""
        first = min((run.until for run in self._runs), default=math.inf)
        return max(0.0, min(self._terms.beat, first - lease_clock()))

    async def _look_after_others(self) -> None:
        purge_at = time.monotonic()
        while True:
            try:
                await self._wait_for(self._prepare())
                await self._sweep()
                if time.monotonic() >= purge_at:
                    await self._wait_for(self._store.purge(self._terms.app, self._terms.keep))
                    purge_at = time.monotonic() + self._terms.keep / 24
            except Exception:
                logger.exception("recovery cannot look for lost tasks; it will try again")
            await asyncio.sleep(self._terms.sweep_interval)

    async def _renew(self) -> None:
        runs = sorted(self._runs, key=lambda run: run.fence)
        if not runs:
            return
        until = self._deadline()
        held = {run.task_id: run.fence for run in runs}  # of two runs of a task the later one
        renewing = self._store.renew(self._terms.app, held, self._terms.lease)
        kept = await bounded(renewing, self._time_left(), "recovery's store")
        for run in runs:
            if run not in self._runs:
                continue  # it has ended meanwhile
            if run.task_id in kept and held[run.task_id] == run.fence:
                run.until = max(run.until, until)
            else:
                self._lose(run)

    def _deadline(self) -> float:
        return lease_clock() + self._terms.lease * _TRUST

    def _give_up(self) -> None:
        for run in list(self._runs):
            if lease_clock() >= run.until:
                self._lose(run)

    def _lose(self, run: RecoveryContext) -> None:
        self._runs.discard(run)
        logger.error("task %s is another worker's now, or may be; it is cancelled here", run.task_id)
        run.lose()

    async def _sweep(self) -> None:
        if self._outbox.is_stuck:
            logger.error("recovery looks for no lost tasks while the broker, or the result backend, hangs")
            return
        terms = self._terms
        for lost in await self._wait_for(self._store.sweep(terms.app, terms.lease, terms.max_losses, _BATCH)):
            await (self._outbox.bury(lost) if lost.is_dead else self._outbox.send(lost))
