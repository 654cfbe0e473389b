"""Send runs again that the broker or a worker has lost."""

import logging

from workflow_service.ports import JobQueue, QueueUnavailableError, RunStore
from workflow_service.usecases.passes import repeat_forever

_BATCH = 100  # runs per pass: bounds how fast a long queue is told again

_logger = logging.getLogger(__name__)


async def reap(*, runs: RunStore, queue: JobQueue) -> int:
    """Requeue what dead workers left, tell the broker of all that wait too long, and return how many that were.

    Any number of processes may do this at once.
    """
    run_ids = await runs.requeue_lost(_BATCH)
    for position, run_id in enumerate(run_ids):
        try:
            await queue.enqueue(run_id)
        except QueueUnavailableError as error:
            rest = run_ids[position:]
            _logger.warning("reaper: %d runs wait for the broker: %s", len(rest), error)
            await runs.mark_unsent(rest)
            return position
    return len(run_ids)


async def reap_forever(*, runs: RunStore, queue: JobQueue, interval: float) -> None:
    """Reap every ``interval`` seconds until cancelled; a database that is away is tried again."""
    await repeat_forever(lambda: reap(runs=runs, queue=queue), "reaper", interval, _logger)
