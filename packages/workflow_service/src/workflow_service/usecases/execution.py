"""Execute a run: claim it, keep the claim alive, work, and write down how it ended."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from workflow_service.domain.run import CancelMode, Claim, JsonObject, Progress
from workflow_service.logs import bound
from workflow_service.ports import (
    ClaimLostError,
    DrainedError,
    InvalidInputError,
    ModelUnavailableError,
    Perform,
    ProcessLostError,
    RunFeed,
    RunStore,
    RunTimeoutError,
    StoreUnavailableError,
    WaitingError,
    WorkflowError,
)

_RENEWALS_PER_LEASE = 3
GIVE_BACK_BOUND = 10.0
"""Seconds to give a run back at the most: whoever told the worker to stop waits. Else its lease runs out."""

_ANOTHER_ATTEMPT_MAY_DO = (StoreUnavailableError, ModelUnavailableError, ProcessLostError)
_IN_ITS_OWN_WORDS = (WorkflowError, InvalidInputError, RunTimeoutError, ProcessLostError)
"""Errors whose message is for the user; what others say may name hosts, files, or what is in a document."""

_logger = logging.getLogger(__name__)

_Wait = Callable[[float], Awaitable[bool]]


async def execute_run(
    run_id: UUID, *, runs: RunStore, feed: RunFeed, perform: Perform, worker_id: str, lease: float
) -> None:
    """Execute the run if it is there to be taken; ``lease`` is in seconds.

    What the workflow raises ends the run as failed: with its own words if the input is at fault, else with
    words that tell where the log has more. What was away (database, model, a process of its own that died) leads
    to another attempt after a pause; after too many of them the run is dead. One that asks a person waits, and is
    nobody's, until it has been answered. A run that another worker has taken over, or that was killed, is left
    without a word.

    Args:
        run_id: The run.
        runs: Where it is kept.
        feed: Wakes this worker when a run of its own is to end; without a word from it the heartbeat finds out.
        perform: Prepares the workflow's work.
        worker_id: For people who look at the run.
        lease: How long the run is this worker's without a renewal.

    Raises:
        StoreUnavailableError: The database went away and how the run ended could not be written. The run has not
            ended: its lease runs out and another worker goes on.

    Cancellation: gives the run back, so that another worker goes on after the last checkpoint, then re-raises.
    """
    # Watched before it is claimed: a request that comes between the two would be seen by the heartbeat only.
    async with feed.watch(run_id) as wait:
        claim = await runs.claim(run_id, worker_id, lease)
        if claim is None:
            _logger.info("run %s: nothing to do", run_id)
            return
        try:
            with bound(user_id=claim.run.user_id):
                await _Attempt(claim, runs, lease, perform).work(wait)
        except ClaimLostError as error:
            _logger.warning("run %s: %s", run_id, error)
        except asyncio.CancelledError:
            await _give_back(claim, runs, lease)
            raise


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a workflow ended: with a result, with what it raised, or by a cancellation, asked for or not."""

    result: JsonObject | None = None
    error: Exception | None = None
    is_cancelled: bool = False


class _Attempt:
    """A claimed run that is worked on."""

    def __init__(self, claim: Claim, runs: RunStore, lease: float, perform: Perform) -> None:
        self._claim = claim
        self._run_id = claim.run.id
        self._runs = runs
        self._lease = lease
        self._performance = perform(claim.run, self._record)
        self._performing: asyncio.Task[JsonObject] | None = None
        self._mode: CancelMode | None = None
        self._is_ending = False

    async def work(self, wait: _Wait) -> None:
        """Run the workflow and write down how it ended. Raises as `execute_run`, and ClaimLostError."""
        try:
            async with asyncio.TaskGroup() as group:
                heartbeat = group.create_task(self._heartbeat(wait), name=f"heartbeat of {self._run_id}")
                try:
                    ending = await self._perform()
                    self._is_ending = True
                    await self._write_down(ending)
                finally:
                    heartbeat.cancel()
        except ExceptionGroup as group_error:
            raise _cause(group_error) from group_error

    async def _record(self, step: str, percent: int, description: str) -> None:
        await self._runs.record_progress(self._claim, Progress(step, percent, description))

    async def _perform(self) -> _Ending:
        # A task of its own: the heartbeat cancels it when the run is interrupted, and this one goes on.
        task = self._performing = asyncio.create_task(self._performance.run(), name=f"run {self._run_id}")
        try:
            await asyncio.wait([task])
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        if task.cancelled():
            return _Ending(is_cancelled=True)
        error = task.exception()
        if error is None:
            return _Ending(result=task.result())
        if isinstance(error, ClaimLostError) or not isinstance(error, Exception):
            raise error
        return _Ending(error=error)

    async def _heartbeat(self, wait: _Wait) -> None:
        """Renew the claim until cancelled; a database that is away is tried again until the lease must be over.

        While the ending is written no loss is raised: a renewal that is refused then was most likely refused by
        the ending itself, and an ending that comes too late is refused by the store.
        """
        interval = self._lease / _RENEWALS_PER_LEASE
        renewed = time.monotonic()
        while True:
            await wait(interval)
            asked = time.monotonic()
            try:
                async with asyncio.timeout(interval):
                    standing = await self._runs.renew(self._claim, self._lease)
            except Exception as error:
                if time.monotonic() - renewed >= self._lease and not self._is_ending:
                    raise ClaimLostError(
                        "the lease could not be renewed; another worker may have the run"
                    ) from error
                _logger.warning("run %s: the lease was not renewed: %r", self._run_id, error)
                continue
            if not standing.is_held:
                if self._is_ending:
                    return
                self._performance.kill()
                raise ClaimLostError("the claim is outdated; the run was killed, or another worker has it")
            renewed = asked
            if standing.cancel_mode is not self._mode and standing.cancel_mode is not None:
                self._stop(standing.cancel_mode)

    def _stop(self, mode: CancelMode) -> None:
        _logger.info("run %s: is told to end: %s", self._run_id, mode)
        was_interrupted = self._mode in (CancelMode.INTERRUPT, CancelMode.ROLLBACK)
        self._mode = mode
        if mode is CancelMode.DRAIN:
            self._performance.drain()
        elif self._performing is not None and not was_interrupted:
            self._performing.cancel()

    async def _write_down(self, ending: _Ending) -> None:
        is_interrupted = self._mode in (CancelMode.INTERRUPT, CancelMode.ROLLBACK)
        if is_interrupted and ending.error is not None:
            _logger.warning("run %s: failed while it was interrupted", self._run_id, exc_info=ending.error)
        is_drained = isinstance(ending.error, DrainedError)
        if is_interrupted or (is_drained and self._mode is not None):
            await self._runs.cancel(self._claim)
        elif is_drained:  # this process drains its work before it stops
            await self._runs.release(self._claim)
        elif isinstance(ending.error, WaitingError):
            _logger.info("run %s: %s", self._run_id, ending.error)
            await self._or_fail(self._runs.wait_for_answers(self._claim, ending.error.questions))
        elif isinstance(ending.error, _ANOTHER_ATTEMPT_MAY_DO):
            await self._retry_later(ending.error)
        elif ending.is_cancelled:
            await self._fail(RuntimeError("the workflow cancelled itself"))
        elif ending.result is not None:
            await self._or_fail(self._runs.succeed(self._claim, ending.result))
        else:
            await self._fail(ending.error or TypeError("the workflow returned None instead of a JSON object"))

    async def _or_fail(self, writing: Awaitable[None]) -> None:
        """Write down what the workflow gave; the run fails if that is no JSON, as every attempt would give it."""
        try:
            await writing
        except (TypeError, ValueError) as not_json:
            await self._fail(not_json)

    async def _fail(self, error: Exception) -> None:
        if not isinstance(error, _IN_ITS_OWN_WORDS):
            workflow = self._claim.run.workflow_name
            _logger.error("run %s: workflow %r failed", self._run_id, workflow, exc_info=error)
        await self._runs.fail(self._claim, self._told(error))

    async def _retry_later(self, error: Exception) -> None:
        will_go_on = await self._runs.retry_later(self._claim, self._told(error))
        outcome = "another attempt follows" if will_go_on else "it is given up and waits for a person"
        _logger.warning("run %s: %s: %s", self._run_id, error, outcome)

    def _told(self, error: Exception) -> JsonObject:
        """Return what the user is told."""
        message = str(error)
        if isinstance(error, StoreUnavailableError):
            message = "the database did not answer"
        elif not isinstance(error, _IN_ITS_OWN_WORDS):
            message = f"the workflow failed unexpectedly; look for run {self._run_id} in the worker's log"
        return {"type": type(error).__name__, "message": message}


def _cause(group: ExceptionGroup[Exception]) -> Exception:
    """Return the loss of the claim if it is in there: it explains whatever else went wrong."""
    losses = [error for error in group.exceptions if isinstance(error, ClaimLostError)]
    return next(iter(losses), group.exceptions[0])


async def _give_back(claim: Claim, runs: RunStore, lease: float) -> None:
    try:
        async with asyncio.timeout(min(lease, GIVE_BACK_BOUND)):
            await runs.release(claim)
    except ClaimLostError as error:
        _logger.info("run %s: not given back: %s", claim.run.id, error)
    except (StoreUnavailableError, TimeoutError) as error:
        _logger.warning("run %s: not given back, its lease will run out: %r", claim.run.id, error)
    except Exception:
        _logger.exception("run %s: not given back; its lease will run out", claim.run.id)
    else:
        _logger.info("run %s: given back to the queue", claim.run.id)
