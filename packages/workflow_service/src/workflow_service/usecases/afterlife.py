"""What people do with runs that rest: answer one, resume it, delete it; and what ended ones keep is forgotten."""

import asyncio
import logging
from collections.abc import Mapping
from uuid import UUID

from workflow_service.domain.run import JsonObject, Run
from workflow_service.ports import JobQueue, RunStore, StoreUnavailableError, Workflow
from workflow_service.usecases.submission import enqueue, refuse_what_cannot_be_stored
from workflow_service.workflows.engine.schemas import check_answers

_FORGET_BOUND = 10.0  # seconds for one run; who waits are the next ones, or a person who deletes a run

_logger = logging.getLogger(__name__)


async def resume_run(user_id: str, run_id: UUID, *, runs: RunStore, queue: JobQueue) -> Run | None:
    """Queue the user's run again, to go on after its last whole step; None if there is none.

    Raises:
        RunStateError: The run has not ended, has succeeded, or nothing is kept of it.

    Cancellation: the run may or may not be queued.
    """
    run = await runs.resume(user_id, run_id)
    if run is not None:
        await enqueue(run, queue)
    return run


async def answer_run(
    user_id: str, run_id: UUID, answers: JsonObject, *, runs: RunStore, queue: JobQueue
) -> Run | None:
    """Queue the user's waiting run again, to go on with answers to its questions; None if there is none.

    Raises:
        RunStateError: The run does not wait.
        InvalidInputError: No answer, one to a question that the run does not ask, one that cannot be stored, or
            one that does not fit the schema of its question. Nothing was changed.

    Cancellation: the answers may or may not be kept; once they are, another try is refused.
    """
    refuse_what_cannot_be_stored("answers", answers)
    # Looked at before the run is locked: a question's id is no other's, so what it wants is the same then.
    asking = await runs.get(user_id, run_id)
    if asking is not None:
        check_answers(asking.questions, answers)
    run = await runs.answer(user_id, run_id, answers)
    if run is not None:
        await enqueue(run, queue)
    return run


async def delete_run(user_id: str, run_id: UUID, *, runs: RunStore, workflows: Mapping[str, Workflow]) -> bool:
    """Remove the user's run and all that is kept of it; False if there is none.

    Raises:
        RunStateError: The run has not ended. Nothing was removed.
        StoreUnavailableError: Something is left; the run is there, cannot be resumed, and can be deleted again.
    """
    run = await runs.give_up_keeping(user_id, run_id)
    if run is None:
        return False
    if not await _forget(run, workflows):
        raise StoreUnavailableError(f"what is kept of run {run_id} could not be removed")
    return await runs.delete(user_id, run_id)


async def forget_ended(limit: int, *, runs: RunStore, workflows: Mapping[str, Workflow]) -> int:
    """Remove what ended runs keep and need no longer, of at most ``limit`` runs; return how many were looked at.

    What cannot be removed is tried again a minute later: it takes space and does no harm.
    """
    due = await runs.take_forgettable(limit)
    forgotten = [run.id for run in due if await _forget(run, workflows)]
    if forgotten:
        await runs.mark_forgotten(forgotten)
    return len(due)


async def _forget(run: Run, workflows: Mapping[str, Workflow]) -> bool:
    workflow = workflows.get(run.workflow_name)
    if workflow is None:
        _logger.warning("run %s: there is no workflow %r to forget it", run.id, run.workflow_name)
        return True
    try:
        async with asyncio.timeout(_FORGET_BOUND):
            await workflow.forget(run.id)
    except Exception:
        _logger.warning("run %s: what was kept for going on with it was not removed", run.id, exc_info=True)
        return False
    return True
