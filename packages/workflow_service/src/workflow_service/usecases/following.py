"""Follow a run: its events, as they happen, to the last one."""

from collections.abc import AsyncGenerator
from uuid import UUID

from workflow_service.domain.run import RunEvent
from workflow_service.ports import RunFeed, RunStore

_LOOK_ANYWAY = (
    30.0  # seconds without a wake-up; the feed wakes us for every change, this is for a feed that failed
)


async def follow_run(
    user_id: str, run_id: UUID, *, runs: RunStore, feed: RunFeed, after: int = 0
) -> AsyncGenerator[RunEvent, None]:
    """Yield the events of the user's run with ``seq > after``; end after the final one.

    Ends at once when there is no such run, or when it is final and has no event after ``after``.
    Holds no database connection while it waits. Close it (``contextlib.aclosing``) when leaving early.
    """
    # Watch before the first look: what happens between look and watch would be missed otherwise.
    async with feed.watch(run_id) as wait:
        while True:
            # The run before its events: if it is final now, its last event is among those read next.
            run = await runs.get(user_id, run_id)
            for event in await runs.events(user_id, run_id, after):
                yield event
                after = event.seq
                if event.kind.is_final:
                    return
            if run is None or run.status.is_final:
                return
            await wait(_LOOK_ANYWAY)
