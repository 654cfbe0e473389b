"""A LoopLocalGraph runs on any loop and in any tier, each run with a saver and a store of its loop."""

import asyncio
import pickle
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, TypedDict

import pytest
from graph_runs import go, thread
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.errors import GraphDrained
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import RunControl
from langgraph.types import Command, interrupt

import homeloop
from homeloop import Isolation
from homeloop.adapters.langgraph import LangGraphEventLoopManager, LoopLocalGraph, drain
from homeloop.adapters.langgraph.sqlite import loop_local_saver, loop_local_store
from homeloop.errors import IsolationError

pytestmark = pytest.mark.needs("postgres")
EVERY = [Isolation.NONE, Isolation.CONTEXT, Isolation.THREAD, Isolation.PROCESS]
BEGIN = {"n": 0, "places": []}


@pytest.fixture(params=EVERY)
def tier(request: pytest.FixtureRequest) -> Isolation:
    """Every tier."""
    return Isolation(request.param)


def test_runs_in_every_tier(work: Any, manager: LangGraphEventLoopManager, tier: Isolation) -> None:
    """Issue 6, 1: the graph with its saver runs in every tier as it does here, and its thread is kept."""

    async def main() -> tuple[Any, Any]:
        config = thread()
        values = await manager.executor.run(work.adding.ainvoke, BEGIN, config, isolation=tier, context_id="a1")
        async with work.adding() as graph:  # on this loop, with this loop's saver
            state = await graph.aget_state(config)
        return values, state

    values, state = go(main)
    assert values["n"] == 4
    assert state.values == values
    assert state.next == ()
    assert {place.split()[2] for place in values["places"]} == {"None" if tier is Isolation.NONE else "a1"}


def test_one_object_serves_many_loops(work: Any) -> None:
    """Loops one after the other, two at once and the default one: each has a saver of its own, closed with it."""

    async def runs() -> list[int]:
        results = await asyncio.gather(*(work.adding.ainvoke(BEGIN, thread()) for _ in range(5)))
        return [each["n"] for each in results]

    async def main() -> None:
        here, there = await asyncio.gather(runs(), asyncio.to_thread(lambda: asyncio.run(runs())))
        assert here == there == [4] * 5

    go(main)
    go(main)
    assert work.adding.invoke(BEGIN, thread(), timeout=30)["n"] == 4
    assert homeloop.run(runs) == [4] * 5
    homeloop.default_runtime().close()
    assert (work.savers.statistics().live, work.pools.statistics().live) == (0, 0)


def test_savers_over_a_pool_do_not_wait_for_each_other(work: Any) -> None:
    """Runs on one loop use the pool's connections at the same time; a saver's lock lets everybody through."""

    async def main() -> int:
        async with work.savers() as saver, saver.lock, saver._cursor() as one, saver._cursor() as other:
            assert one.connection is not other.connection
        async with work.pools() as pool:
            return int(pool.get_stats()["pool_max"])

    assert go(main) == 4


def test_store(work: Any, manager: LangGraphEventLoopManager, tier: Isolation) -> None:
    """A run has a store of its loop; its batches are ended with it, and no task of it is taken for spilled."""

    async def main() -> Any:
        return await manager.executor.run(work.remembering.ainvoke, BEGIN, thread(), isolation=tier)

    before = manager.statistics().tiers[tier].leftovers
    assert go(main)["n"] == 1
    assert manager.statistics().tiers[tier].leftovers == before


def test_sqlite(tmp_path: Any, work: Any) -> None:
    """The same on SQLite, with its tables made on first use."""
    where = tmp_path / "checkpoints.db"
    graphs = LoopLocalGraph(
        work.builder(remember=work.remember),
        checkpointer=loop_local_saver(where),
        store=loop_local_store(tmp_path / "store.db"),
    )
    config = thread()
    assert go(graphs.ainvoke, BEGIN, config)["n"] == 1
    assert go(graphs.ainvoke, {"n": 5}, config)["n"] == 6


def test_streams(work: Any, manager: LangGraphEventLoopManager, tier: Isolation) -> None:
    """Issue 6, 3: astream and astream_events give the same through every tier, one item at a time."""

    async def main() -> tuple[list[Any], list[Any]]:
        stream = partial(manager.executor.stream, isolation=tier)
        updates = [
            each async for each in stream(partial(work.adding.astream, stream_mode="updates"), BEGIN, thread())
        ]
        events = [each async for each in stream(work.adding.astream_events, BEGIN, thread())]
        return updates, events

    updates, events = go(main)
    assert [(name, update["n"]) for each in updates for name, update in each.items()] == [
        (name, number + 1) for number, name in enumerate(work.NODES)
    ]
    ended = [each["name"] for each in events if each["event"] == "on_chain_end"]
    assert [name for name in ended if name in work.NODES] == list(work.NODES)


def test_a_stream_left_early(work: Any, manager: LangGraphEventLoopManager, tier: Isolation) -> None:
    """Leaving a stream ends the graph where it stands; its thread goes on later."""

    async def main() -> Any:
        config = thread()
        stream = partial(work.adding.astream, durability="sync")
        async with aclosing(manager.executor.stream(stream, BEGIN, config, isolation=tier)) as items:
            assert "read" in await anext(items)
        return await work.adding.ainvoke_durably(None, config)

    assert go(main)["n"] == 4


def test_factories_and_compiled_graphs(work: Any) -> None:
    """The graph may be a builder, a compiled graph, or made on each loop by a function, async or not."""
    for given in (work.compiled, work.made_here, lambda: work.compiled):
        graphs = LoopLocalGraph(given, checkpointer=InMemorySaver())
        assert go(graphs.ainvoke, BEGIN, thread())["n"] == 4
    assert repr(LoopLocalGraph(work.compiled, name="the graph")) == "<LoopLocalGraph the graph>"


def test_savers_of_one_loop_are_refused(work: Any) -> None:
    """A saver that lives on one loop, the usual slip, is refused where the graph is made."""

    async def main() -> None:
        async with AsyncSqliteSaver.from_conn_string(":memory:") as saver:
            with pytest.raises(TypeError, match="AsyncSqliteSaver lives on one loop"):
                LoopLocalGraph(work.compiled, checkpointer=saver)
            with pytest.raises(TypeError, match="AsyncSqliteSaver lives on one loop"):
                LoopLocalGraph(work.builder(read=work.add).compile(checkpointer=saver))

    go(main)


def test_pickle_is_by_reference(work: Any) -> None:
    """What is a module's attribute is found there again; anything else says why it cannot be carried."""
    assert pickle.loads(pickle.dumps(work.adding)) is work.adding
    assert pickle.loads(pickle.dumps(work.adding.ainvoke)) == work.adding.ainvoke
    with pytest.raises(TypeError, match="is no attribute of a module"):
        pickle.dumps(LoopLocalGraph(work.compiled))


def test_enforcement(work: Any, manager: LangGraphEventLoopManager) -> None:
    """D1: a graph that requires isolation refuses to run without, and runs with it."""
    graphs = LoopLocalGraph(work.compiled, require_isolation=True)

    async def main() -> None:
        with pytest.raises(IsolationError, match="runs in isolated work only"):
            await graphs.ainvoke(BEGIN)
        async with manager.create_isolated_context("a1"):
            assert (await graphs.ainvoke(BEGIN))["n"] == 4
        assert (await manager.run(graphs.ainvoke, BEGIN))["n"] == 4

    go(main)


@pytest.mark.parametrize("tier", EVERY[:3], indirect=True)
def test_drain(work: Any, manager: LangGraphEventLoopManager, tier: Isolation) -> None:
    """Issue 6, 3: drain() ends runs at the end of their superstep, on whatever thread, and they resume."""

    async def waiting(state: Any) -> Any:
        drained.append(drain("shutdown"))
        return await work.add(state)

    drained: list[int] = []
    graphs = LoopLocalGraph(work.builder(read=work.add, find=waiting, judge=work.add), checkpointer=work.savers)

    async def main() -> Any:
        config = thread()
        with pytest.raises(GraphDrained, match="shutdown"):
            await manager.executor.run(graphs.ainvoke_durably, BEGIN, config, isolation=tier)
        async with graphs() as graph:
            state = await graph.aget_state(config)
            assert (state.values["n"], state.next) == (2, ("judge",))
        return await manager.executor.run(graphs.ainvoke_durably, BEGIN, config, isolation=tier)

    assert go(main)["n"] == 3
    assert drained == [1]
    assert drain() == 0


@pytest.mark.parametrize("tier", EVERY[:2], indirect=True)
@pytest.mark.parametrize("how", ["ainvoke", "ainvoke_durably", "astream"])
def test_drain_reaches_runs_that_open_their_saver(
    work: Any, manager: LangGraphEventLoopManager, tier: Isolation, how: str
) -> None:
    """A run counts from its call on: one that waits for its saver is asked, too, and runs no node."""

    @asynccontextmanager
    async def slow_saver() -> AsyncGenerator[Any]:
        opening.set()
        await opened.wait()
        yield saver

    opening, opened, saver = asyncio.Event(), asyncio.Event(), InMemorySaver()
    ran: list[str] = []

    async def step(state: Any) -> Any:
        ran.append("read")
        return await work.add(state)

    graphs = LoopLocalGraph(work.builder(read=step), checkpointer=slow_saver)

    async def consume(*args: Any) -> Any:
        if how == "astream":
            return [each async for each in graphs.astream(*args)]
        return await getattr(graphs, how)(*args)

    async def main() -> None:
        config = thread()
        running = asyncio.ensure_future(manager.executor.run(consume, BEGIN, config, isolation=tier))
        await opening.wait()
        assert drain("shutdown") == 1
        opened.set()
        with pytest.raises(GraphDrained, match="shutdown"):
            await running
        assert ran == []
        assert (await manager.executor.run(graphs.ainvoke_durably, BEGIN, config, isolation=tier))["n"] == 1
        assert ran == ["read"]

    go(main)


def test_auto_learns_by_graph(work: Any) -> None:
    """A graph that leaks is moved on; others, whose ainvoke is the same function, stay where they are."""
    left: list[asyncio.Task[Any]] = []

    async def leak(state: Any) -> Any:
        left.append(asyncio.create_task(asyncio.Event().wait()))
        return await work.add(state)

    leaking, clean = (LoopLocalGraph(work.builder(read=node)) for node in (leak, work.add))
    with homeloop.IsolationExecutor(name="learns") as executor:

        async def main() -> None:
            for graphs in (leaking, clean):
                for run in (graphs.ainvoke, partial(graphs.ainvoke, print_mode=())):
                    await executor.run(run, BEGIN)

        go(main)
        (kind,) = executor.statistics().kinds
        assert kind == leaking.isolation_kind
        executor.pin(clean.ainvoke, Isolation.THREAD)
        assert executor.statistics().kinds[clean.isolation_kind].tier is Isolation.THREAD


def test_drain_uses_a_control_that_is_given(work: Any) -> None:
    """A run's own RunControl is used, and drains it alone."""

    async def main() -> None:
        control = RunControl()
        control.request_drain("mine")
        with pytest.raises(GraphDrained, match="mine"):
            await work.plain.ainvoke(BEGIN, control=control)

    go(main)


def test_ainvoke_durably(work: Any) -> None:
    """A thread is begun once, gone on with when it was cut off, and not run again when it has finished."""
    runs: list[str] = []

    async def failing(state: Any) -> Any:
        runs.append("judge")
        if len(runs) == 1:
            raise ValueError("the first time")
        return await work.add(state)

    graphs = LoopLocalGraph(work.builder(read=work.add, judge=failing), checkpointer=work.savers)

    async def main() -> None:
        config = thread()
        with pytest.raises(ValueError, match="the first time"):
            await graphs.ainvoke_durably(BEGIN, config)
        first = await graphs.ainvoke_durably({"n": 100, "places": []}, config)
        assert (first["n"], len(first["places"])) == (2, 2)
        assert await graphs.ainvoke_durably({"n": 100, "places": []}, config) == first
        with pytest.raises(ValueError, match="has no checkpointer"):
            await work.plain.ainvoke_durably(BEGIN, config)

    go(main)
    assert runs == ["judge", "judge"]


def test_ainvoke_durably_returns_the_same_again() -> None:
    """What a finished run gives when it is called again is what it gave: no private state, the same form."""

    class Given(TypedDict):
        question: str

    class Result(TypedDict):
        answer: str

    class Whole(Given, Result):
        notes: str

    runs: list[str] = []

    async def think(state: Any) -> Any:
        runs.append("think")
        return {"answer": state["question"].upper(), "notes": "private"}

    builder = StateGraph(Whole, input_schema=Given, output_schema=Result)
    builder.add_node("think", think)
    builder.add_edge(START, "think")
    builder.add_edge("think", END)
    graphs = LoopLocalGraph(builder, checkpointer=InMemorySaver())

    async def main() -> None:
        for number, options in enumerate(({}, {"output_keys": ["notes"]}, {"version": "v2"})):
            config = thread()
            first = await graphs.ainvoke_durably({"question": "why"}, config, **options)
            assert await graphs.ainvoke_durably({"question": "how"}, config, **options) == first
            assert len(runs) == number + 1
            if not options:
                assert first == {"answer": "WHY"}

    go(main)


def test_ainvoke_durably_and_interrupts(work: Any) -> None:
    """A thread that waits for an answer waits on when it is called again, and takes the answer."""

    async def ask(state: Any) -> Any:
        return {"n": interrupt("how many?"), "places": []}

    graphs = LoopLocalGraph(work.builder(read=work.add, ask=ask), checkpointer=InMemorySaver())

    async def main() -> None:
        config = thread()
        for _ in range(2):
            stopped = await graphs.ainvoke_durably(BEGIN, config)
            assert [each.value for each in stopped["__interrupt__"]] == ["how many?"]
        assert (await graphs.ainvoke_durably(Command(resume=7), config))["n"] == 7
        assert (await graphs.ainvoke_durably(BEGIN, config))["n"] == 7

    go(main)


def test_ainvoke_durably_after_a_result_without_its_checkpoint(work: Any) -> None:
    """Cut off when a node's result was written but not the step's checkpoint, a run is not taken for finished."""

    class CutOff(InMemorySaver):
        puts = 0

        async def aput(self, *args: Any) -> Any:
            self.puts += 1
            if self.puts == 3:  # the input, the beginning, the first node's step
                raise ConnectionError("cut off")
            return await super().aput(*args)

    graphs = LoopLocalGraph(work.builder(**dict.fromkeys(work.NODES, work.add)), checkpointer=CutOff())

    async def main() -> None:
        config = thread()
        with pytest.raises(ConnectionError):
            await graphs.ainvoke_durably(BEGIN, config)
        async with graphs() as graph:
            assert (await graph.aget_state(config)).next == ()  # what it looks like
        assert (await graphs.ainvoke_durably(BEGIN, config))["n"] == 4

    go(main)
