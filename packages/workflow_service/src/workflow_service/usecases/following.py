"""Follow a run: its events, as they happen, to the last one."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from uuid import UUID

from workflow_service.domain.run import Run, RunEvent
from workflow_service.ports import RunFeed, RunStore

LOOK_ANYWAY = 10.0
"""Seconds without a wake-up. The feed wakes us for every change: this is for a feed that failed, and for those who
follow and are no longer known."""


async def follow_run(
    user_id: str,
    run_id: UUID,
    *,
    runs: RunStore,
    feed: RunFeed,
    is_known: Callable[[], Awaitable[bool]],
    after: int = 0,
) -> AsyncGenerator[RunEvent, None]:
    """Yield the events of the user's run with ``seq > after``; end after the final one.

    Ends at once when there is no such run, or when it is final and has no event after ``after``. A run that is
    resumed after its final event goes on for who follows it then. Ends without a final event when ``is_known``,
    which is asked before each look and every 10 s, says that whoever follows may not any more.
    Holds no database connection while it waits. Close it (``contextlib.aclosing``) when leaving early.

    Raises:
        StoreUnavailableError: The database did not answer.
    """
    # Watch before the first look: what happens between look and watch would be missed otherwise.
    async with feed.watch(run_id) as wait:
        while await is_known():
            # The run before its events: if it is final now, its last event is among those read next.
            run = await runs.get(user_id, run_id)
            last = None
            for last in await runs.events(user_id, run_id, after):
                yield last
                after = last.seq
            # The last that stands, not the first that is final: a run that was resumed has such in its middle.
            if run is None or (last is None and run.status.is_final) or (last is not None and last.kind.is_final):
                return
            await wait(LOOK_ANYWAY)


async def wait_for_end(user_id: str, run_id: UUID, timeout: float, *, runs: RunStore, feed: RunFeed) -> Run | None:
    """Return the user's run when it has ended, or as it stands after ``timeout`` seconds; None if there is none.

    Holds no database connection while it waits.
    """
    run = None
    async with feed.watch(run_id) as wait:
        deadline = asyncio.get_running_loop().time() + timeout
        while (run := await runs.get(user_id, run_id)) is not None and not run.status.is_final:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                break
            await wait(min(left, LOOK_ANYWAY))
    return run
