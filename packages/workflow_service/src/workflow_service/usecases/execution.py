"""Execute a run: claim it, keep the claim alive, work, and write down how it ended."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

from workflow_service.domain.run import Claim, JsonObject, Progress, Run
from workflow_service.ports import (
    ClaimLostError,
    InvalidInputError,
    Report,
    RunContext,
    RunStore,
    StoreUnavailableError,
    Workflow,
    WorkflowError,
)

ReportThrough = Callable[[Callable[[str, int, str], Awaitable[None]]], Report]
"""Makes a callback of this loop callable from any loop."""

_RENEWALS_PER_LEASE = 3

_logger = logging.getLogger(__name__)


async def execute_run(
    run_id: UUID,
    *,
    runs: RunStore,
    workflows: Mapping[str, Workflow],
    report_through: ReportThrough,
    worker_id: str,
    lease: float,
) -> None:
    """Execute the run if it is there to be taken; ``lease`` is in seconds.

    What the workflow raises ends the run as failed: with its own words if the input is at fault, else with
    words that tell where the log has more. A run that another worker has taken over is left to it without a
    word. What a run keeps for going on is removed after its end.

    Raises:
        StoreUnavailableError: The database went away, in the workflow or around it. The run has not ended: its
            lease runs out and another worker goes on. It is not released, for that would never count as a loss,
            and a run that brings the database down must be given up one day.

    Cancellation: gives the run back, so that another worker goes on after the last checkpoint, then re-raises.
    """
    claim = await runs.claim(run_id, worker_id, lease)
    if claim is None:
        _logger.info("run %s: nothing to do", run_id)
        return
    try:
        await _work(claim, runs, workflows, report_through, lease)
    except ClaimLostError as error:
        _logger.warning("run %s: %s", run_id, error)
    except asyncio.CancelledError:
        await _give_back(claim, runs, lease)
        raise


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a workflow ended: with a result or with what it raised."""

    result: JsonObject | None = None
    error: Exception | None = None


async def _work(
    claim: Claim, runs: RunStore, workflows: Mapping[str, Workflow], report_through: ReportThrough, lease: float
) -> None:
    async def record(step: str, percent: int, description: str) -> None:
        await runs.record_progress(claim, Progress(step, percent, description))

    is_ending = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            heartbeat = group.create_task(
                _heartbeat(claim, runs, lease, is_ending), name=f"heartbeat of {claim.run.id}"
            )
            try:
                ending = await _run_workflow(claim.run, workflows, report_through(record))
                is_ending.set()
                await _write_down(claim, runs, ending)
            finally:
                heartbeat.cancel()
    except ExceptionGroup as group_error:
        raise _cause(group_error) from group_error
    await _forget(claim.run, workflows, lease)


def _cause(group: ExceptionGroup[Exception]) -> Exception:
    """Return the loss of the claim if it is in there: it explains whatever else went wrong."""
    losses = [error for error in group.exceptions if isinstance(error, ClaimLostError)]
    return next(iter(losses), group.exceptions[0])


async def _run_workflow(run: Run, workflows: Mapping[str, Workflow], report: Report) -> _Ending:
    workflow = workflows.get(run.workflow_name)
    if workflow is None:
        message = f"this worker has no workflow {run.workflow_name!r}; is it older than the API?"
        return _Ending(error=WorkflowError(message))
    try:
        return _Ending(result=await workflow.run(RunContext(run.id, run.user_id, run.input_data, report)))
    except (ClaimLostError, StoreUnavailableError):
        raise
    except Exception as error:
        return _Ending(error=error)


async def _write_down(claim: Claim, runs: RunStore, ending: _Ending) -> None:
    error = ending.error
    if ending.result is not None:
        try:
            await runs.succeed(claim, ending.result)
        except (TypeError, ValueError) as not_json:
            error = not_json
        else:
            return
    elif error is None:
        error = TypeError("the workflow returned None instead of a JSON object")
    message = str(error)
    if not isinstance(error, WorkflowError | InvalidInputError):
        _logger.error("run %s: workflow %r failed", claim.run.id, claim.run.workflow_name, exc_info=error)
        # What it says is for the log: it may name hosts, files, or what is in the document.
        message = f"the workflow failed unexpectedly; look for run {claim.run.id} in the worker's log"
    await runs.fail(claim, {"type": type(error).__name__, "message": message})


async def _forget(run: Run, workflows: Mapping[str, Workflow], lease: float) -> None:
    """Remove what is kept of an ended run; what cannot be removed takes space and does no harm."""
    workflow = workflows.get(run.workflow_name)
    if workflow is None:
        return
    try:
        async with asyncio.timeout(lease):  # for want of a better bound: nobody waits for this but the worker
            await workflow.forget(run.id)
    except Exception:
        _logger.warning("run %s: what was kept for going on with it was not removed", run.id, exc_info=True)


async def _heartbeat(claim: Claim, runs: RunStore, lease: float, is_ending: asyncio.Event) -> None:
    """Renew the claim until cancelled; a database that is away is tried again until the lease must be over.

    While the ending is written no loss is raised: a renewal that is refused then was most likely refused by the
    ending itself, and an ending that comes too late is refused by the store.
    """
    interval = lease / _RENEWALS_PER_LEASE
    renewed = time.monotonic()
    while True:
        await asyncio.sleep(interval)
        asked = time.monotonic()
        try:
            async with asyncio.timeout(interval):
                is_held = await runs.renew(claim, lease)
        except Exception as error:
            if time.monotonic() - renewed >= lease and not is_ending.is_set():
                raise ClaimLostError("the lease could not be renewed; another worker may have the run") from error
            _logger.warning("run %s: the lease was not renewed: %r", claim.run.id, error)
            continue
        if not is_held:
            if is_ending.is_set():
                return
            raise ClaimLostError("the claim is outdated; another worker may have the run")
        renewed = asked


async def _give_back(claim: Claim, runs: RunStore, lease: float) -> None:
    try:
        async with asyncio.timeout(lease):  # by then the lease is over, and the run is given back without us
            await runs.release(claim)
    except ClaimLostError as error:
        _logger.info("run %s: not given back: %s", claim.run.id, error)
    except Exception:
        _logger.exception("run %s: not given back; its lease will run out", claim.run.id)
    else:
        _logger.info("run %s: given back to the queue", claim.run.id)
