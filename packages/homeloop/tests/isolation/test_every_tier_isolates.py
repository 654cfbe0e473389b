"""Every tier isolates: a real LangGraph graph that leaks tasks, blocks, forks and crashes on purpose."""

import asyncio
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langgraph")
import bad_graphs

from homeloop import Isolation, IsolationExecutor
from homeloop._events import LoopBlocked, TaskSpilled
from homeloop.errors import WorkerDiedError

DEADLINE = 60.0  # seconds; tells a hang from an answer
ISOLATED = [Isolation.CONTEXT, Isolation.THREAD, Isolation.PROCESS]


@pytest.fixture(scope="module")
def graphs() -> Any:
    """An executor whose workers have LangGraph imported; its two threads and two processes are all started."""
    with IsolationExecutor(
        name="graphs", max_threads=2, max_processes=2, block_threshold=0.1, preload=["langgraph.graph"]
    ) as executor:

        async def warm() -> None:
            for tier in ISOLATED[1:]:
                await asyncio.gather(*(executor.run(asyncio.sleep, 0.2, isolation=tier) for _ in range(2)))

        asyncio.run(warm())
        yield executor


async def neighbour(executor: IsolationExecutor, tier: Isolation) -> int:
    """Run good graphs meanwhile, one after the other; return how many ended well."""
    for number in range(5):
        assert (await executor.run(bad_graphs.run_graph, "good", number, isolation=tier))["n"] == number + 4
    return 5


@pytest.mark.parametrize("tier", ISOLATED)
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_every_tier_isolates(graphs: IsolationExecutor, go: Any, heard: Any, tier: Isolation) -> None:
    """
    Whatever a graph does, its neighbours and the caller's loop are as before.

    Leaked tasks are ended and named with their line, on every tier. A fork ends well. A graph that blocks is
    named, and from the thread tier on stalls nobody. A graph that crashes takes its worker along in the process
    tier and nothing else; on the others it would take this very process, so there a node fails instead.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = asyncio.all_tasks()
        for name in ("leaks", "forks", "leaks and blocks and forks"):
            bad = asyncio.create_task(graphs.run(bad_graphs.run_graph, name, isolation=tier, context_id=name))
            assert await neighbour(graphs, tier) == 5
            assert (await bad)["n"] == 4
            left = asyncio.all_tasks() - before - {bad}
            assert [task.get_name() for task in left if task.get_name() == "spilled"] == []
        with pytest.raises(ValueError, match="node failed at 1") as caught:
            await graphs.run(bad_graphs.run_graph, "fails", isolation=tier)
        assert "node1" in str(getattr(caught.value, "__notes__", ""))  # LangGraph's own note has come along
        if tier is Isolation.PROCESS:
            bad = asyncio.create_task(graphs.run(bad_graphs.run_graph, "crashes", isolation=tier))
            assert await neighbour(graphs, tier) == 5
            with pytest.raises(WorkerDiedError, match="exit code 42"):
                await bad
        assert await neighbour(graphs, tier) == 5
        assert asyncio.get_running_loop() is loop
        assert loop.get_task_factory() is None

    threads = set(threading.enumerate())
    earlier = graphs.statistics().tiers[tier]
    go(main)
    statistics = graphs.statistics().tiers[tier]
    assert statistics.leftovers - earlier.leftovers == 2
    assert statistics.stubborn == 0
    spilled = heard(TaskSpilled)
    assert [event.task for event in spilled] == ["spilled", "spilled"]
    assert all("bad_graphs.py" in event.created_at and "in leak" in event.created_at for event in spilled)
    blocked = heard(LoopBlocked)
    guilty = {event.context_id for event in blocked if "in block" in str(event.blocked_at)}
    assert guilty == {"leaks and blocks and forks"}
    assert statistics.lent == 0
    assert set(threading.enumerate()) <= threads


def test_blocking_stalls_nobody_from_the_thread_tier_on(
    graphs: IsolationExecutor, go: Any, tmp_path: Path
) -> None:
    """Good graphs on the caller's loop end while a bad one blocks in a thread, and another in a process."""

    async def main() -> None:
        for tier in (Isolation.THREAD, Isolation.PROCESS):
            await graphs.run(bad_graphs.run_graph, "good", isolation=tier)  # it is there
            go_on = tmp_path / tier.value
            bad = asyncio.create_task(graphs.run(bad_graphs.run_graph, "blocks", 0, str(go_on), isolation=tier))
            while graphs.statistics().tiers[tier].in_flight == 0:
                await asyncio.sleep(0)
            assert (await graphs.run(bad_graphs.run_graph, "good", isolation=Isolation.CONTEXT))["n"] == 4
            assert not bad.done()
            go_on.touch()
            assert (await bad)["n"] == 4

    go(main)


@pytest.mark.parametrize("tier", [Isolation.THREAD, Isolation.PROCESS])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_forked_child_that_goes_on(graphs: IsolationExecutor, go: Any, tier: Isolation) -> None:
    """It ends when its copy of the loop has control again: it does no step of the graph, and answers nobody."""

    async def main() -> None:
        for _ in range(3):
            bad = asyncio.create_task(graphs.run(bad_graphs.run_graph, "forks and goes on", isolation=tier))
            assert await neighbour(graphs, tier) == 5
            result = await bad
            assert (result["n"], result["did"]) == (4, ["child left with 1"])

    go(main)


@pytest.mark.parametrize("tier", [Isolation.CONTEXT, Isolation.THREAD])
def test_a_crash_is_for_the_process_tier(tier: Isolation) -> None:
    """On the tiers inside of this process a graph that crashes takes all of it along: they do not claim more."""
    source = f"""
    import sys
    sys.path.insert(0, {bad_graphs.__file__.rpartition("/")[0]!r})
    import bad_graphs, homeloop
    homeloop.run_isolated_sync(bad_graphs.run_graph, "crashes", isolation=homeloop.Isolation({tier.value!r}))
    """
    command = [sys.executable, "-c", textwrap.dedent(source)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert ended.returncode == 42, ended.stderr


def test_auto_finds_the_tier(graphs: IsolationExecutor, go: Any) -> None:
    """Left to homeloop, the leaking graph moves on, the good one stays where it is."""

    async def main() -> None:
        for _ in range(2):
            await graphs.run(bad_graphs.run_graph, "leaks", kind="leaking graph")
            await graphs.run(bad_graphs.run_graph, "good", kind="good graph")

    go(main)
    kinds = graphs.statistics().kinds
    assert {kind: each.tier for kind, each in kinds.items()} == {"leaking graph": Isolation.PROCESS}


def test_many_graphs_over_all_tiers(graphs: IsolationExecutor) -> None:
    """60 graphs at once over the tiers, good and bad mixed: each good one ends well, nothing is left."""
    descriptors = Path("/proc/self/fd")

    async def main() -> None:
        for tier in ISOLATED:
            await graphs.run(bad_graphs.run_graph, "good", isolation=tier)
        before = len(list(descriptors.iterdir()))
        runs = []
        for number in range(60):
            name = ("good", "leaks", "fails", "good")[number % 4]
            runs.append(graphs.run(bad_graphs.run_graph, name, number, isolation=ISOLATED[number % 3]))
        results = await asyncio.gather(*runs, return_exceptions=True)
        for number, result in enumerate(results):
            if number % 4 == 2:
                assert isinstance(result, ValueError), result
            else:
                assert isinstance(result, dict), result
                assert result["n"] == number + 4
        assert len(list(descriptors.iterdir())) <= before + 20  # two threads and two processes may have come
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
