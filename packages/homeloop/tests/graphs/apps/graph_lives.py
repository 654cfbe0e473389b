"""A program that runs a durable graph in every tier at once; it waits in the middle of its first life."""

import asyncio
import json
import os
import sys

from graph_work import State, add, builder, note, savers

from homeloop import Isolation, current_report, run_isolated
from homeloop.adapters.langgraph import LoopLocalGraph

TIERS = (Isolation.NONE, Isolation.CONTEXT, Isolation.THREAD, Isolation.PROCESS)


async def step(state: State) -> dict[str, object]:
    """Add one; wait for ever in the second step of the first life."""
    if not note(f"{state['places'][0]} step {state['n']}") and state["n"] == 1:
        await current_report()("waits", 50)
        await asyncio.Event().wait()
    return await add(state)


durable = LoopLocalGraph(builder(first=step, second=step, third=step), checkpointer=savers)


async def main(prefix: str) -> None:
    """Begin, or resume, one run in each tier."""

    async def one(tier: Isolation) -> object:
        config = {"configurable": {"thread_id": f"{prefix}-{tier}"}}
        begin = {"n": 0, "places": [tier.value]}
        result = await run_isolated(
            durable.ainvoke_durably, begin, config, isolation=tier, on_progress=lambda *_: print(tier, flush=True)
        )
        return [result["n"], len(result["places"])]

    print(json.dumps(await asyncio.gather(*map(one, TIERS))), flush=True)


if __name__ == "__main__":
    assert os.environ["GRAPH_DSN"]
    asyncio.run(main(sys.argv[1]))
