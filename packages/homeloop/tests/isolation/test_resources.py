"""Tasks that serve a resource are the resource's to end, and it is told if it does not."""

import asyncio
from typing import Any

import pytest
import resource_work

import homeloop
from homeloop import Isolation, IsolationExecutor
from homeloop._events import ResourceCloseFailed, TaskSpilled

ISOLATED = [Isolation.CONTEXT, Isolation.THREAD, Isolation.PROCESS]


@pytest.mark.parametrize("tier", ISOLATED)
def test_workers_of_resources(executor: IsolationExecutor, go: Any, heard: Any, tier: Isolation) -> None:
    """A resource's worker runs until the resource is closed and is no leftover; one left then is ended."""

    async def main() -> None:
        await executor.run(resource_work.use_tidy, isolation=tier)
        assert heard(TaskSpilled) == []
        if tier is not Isolation.CONTEXT:  # on the caller's loop nobody knows whose it is
            await executor.run(resource_work.use_untidy, isolation=tier)

    go(main)
    assert heard(ResourceCloseFailed) == []
    assert [event.task for event in heard(TaskSpilled)] == ["a resource's worker"] * (
        tier is not Isolation.CONTEXT
    )


def test_a_block(go: Any, heard: Any) -> None:
    """The code of a block is inside while it runs, and so is what it starts; nothing of it is left."""

    async def main() -> None:
        async with homeloop.enclosed("outer") as block:
            assert block.context_id == homeloop.isolation_of() == "outer"
            left = asyncio.create_task(asyncio.Event().wait(), name="left")
            assert homeloop.isolation_of(left) == "outer"
            async with homeloop.enclosed("inner"):
                assert homeloop.isolation_of() == "inner"
            assert not left.done()
        assert left.cancelled()
        assert homeloop.isolation_of() is None

    before = homeloop.default_executor().statistics().tiers[Isolation.CONTEXT].leftovers
    go(main)
    assert homeloop.default_executor().statistics().tiers[Isolation.CONTEXT].leftovers - before == 1
    assert [event.task for event in heard(TaskSpilled)] == ["left"]
