"""
Failures that people have with graphs, and their twins: by hand the work fails, through homeloop it succeeds.

Numbers are those of the collected failures.
"""

import asyncio
import gc
from typing import Any, TypedDict

import aiosqlite
import psycopg
import pytest
from graph_runs import go, thread
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.store.sqlite.aio import AsyncSqliteStore

import homeloop
from homeloop import Isolation
from homeloop._events import TaskSpilled
from homeloop.adapters.langgraph import LangGraphEventLoopManager, LoopLocalGraph
from homeloop.adapters.langgraph import sqlite as local_sqlite

BEGIN = {"n": 1}


class State(TypedDict):
    n: int


def builder(node: Any) -> Any:
    """A graph of one node."""
    made = StateGraph(State)
    made.add_node("node", node)
    made.add_edge(START, "node")
    made.add_edge("node", END)
    return made


async def add(state: State) -> State:
    """Add one."""
    await asyncio.sleep(0.01)
    return {"n": state["n"] + 1}


def there(fn: Any, bound: float = 20) -> Any:
    """Run an async function by asyncio.run on another thread, as people do; not longer than ``bound`` seconds."""
    return asyncio.to_thread(lambda: asyncio.run(asyncio.wait_for(fn(), bound)))


@pytest.mark.needs("postgres")
def test_59_a_saver_used_from_two_loops(dsn: str, work: Any) -> None:
    """Parallel runs from another loop contend for the saver's lock; a saver per loop has none of theirs."""

    async def runs(graph: Any) -> None:
        results = await asyncio.gather(*(graph.ainvoke(BEGIN, thread()) for _ in range(6)))
        assert results == [{"n": 2}] * 6

    async def by_hand() -> None:
        async with AsyncPostgresSaver.from_conn_string(dsn) as saver:
            graph = builder(add).compile(checkpointer=saver)
            await asyncio.gather(runs(graph), there(lambda: runs(graph), bound=3))

    with pytest.raises((RuntimeError, TimeoutError), match=r"bound to a different event loop|^$"):
        go(by_hand)

    graphs = LoopLocalGraph(builder(add), checkpointer=work.savers)

    async def ours() -> None:
        await asyncio.gather(runs(graphs), there(lambda: runs(graphs)))

    go(ours)


@pytest.mark.needs("postgres")
def test_60_a_saver_kept_after_its_loop(dsn: str, work: Any) -> None:
    """A graph made at start-up outlives its saver's connection; one that borrows opens another."""

    async def start_up() -> Any:
        async with AsyncPostgresSaver.from_conn_string(dsn) as saver:
            return builder(add).compile(checkpointer=saver)

    kept = go(start_up)
    with pytest.raises(psycopg.OperationalError, match="the connection is closed"):
        go(kept.ainvoke, BEGIN, thread())

    graphs = LoopLocalGraph(builder(add), checkpointer=work.savers)
    for _ in range(2):
        assert go(graphs.ainvoke, BEGIN, thread()) == {"n": 2}


def test_62_invoke_on_the_savers_own_loop(tmp_path: Any) -> None:
    """A sync helper that is called on a loop may run the graph, for it runs on another."""

    async def by_hand() -> None:
        async with AsyncSqliteSaver.from_conn_string(":memory:") as saver:
            builder(lambda state: {"n": 2}).compile(checkpointer=saver).invoke(BEGIN, thread())

    with pytest.raises(asyncio.InvalidStateError, match="only allowed from a different thread"):
        go(by_hand)

    graphs = LoopLocalGraph(
        builder(lambda state: {"n": 2}), checkpointer=local_sqlite.loop_local_saver(tmp_path / "checkpoints.db")
    )

    async def ours() -> Any:
        return graphs.invoke(BEGIN, thread(), timeout=30)

    assert go(ours) == {"n": 2}


def test_66_a_task_that_a_node_leaves(heard: Any) -> None:
    """asyncio.run ends it without a word; on the kept loop it finishes, and isolated work names it."""
    saved: list[int] = []

    async def save(n: int) -> None:
        await asyncio.sleep(0.05)  # what saving takes
        saved.append(n)

    async def leave(state: State) -> State:
        tasks.append(asyncio.create_task(save(state["n"]), name="save"))
        return {"n": state["n"] + 1}

    tasks: list[asyncio.Task[None]] = []
    graph = builder(leave).compile()
    assert go(graph.ainvoke, BEGIN) == {"n": 2}
    assert (saved, tasks.pop().cancelled()) == ([], True)  # lost

    async def finish() -> None:
        await tasks.pop()

    assert homeloop.run(graph.ainvoke, BEGIN) == {"n": 2}
    homeloop.run(finish)
    assert saved == [1]

    async def isolated() -> None:
        await homeloop.run_isolated(graph.ainvoke, BEGIN, isolation=Isolation.CONTEXT)

    go(isolated)
    (spilled,) = heard(TaskSpilled)
    assert (spilled.task, spilled.created_at.endswith("in test_66_a_task_that_a_node_leaves.<locals>.leave")) == (
        "save",
        True,
    )
    homeloop.default_executor().close()


def fails_when_its_loop_is_closed(store: Any) -> None:
    """See a store fail."""
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        go(store.aget, ("ns",), "key")


@pytest.mark.filterwarnings("ignore:coroutine '_run' was never awaited:RuntimeWarning")
def test_68_a_store_kept_after_its_loop(tmp_path: Any) -> None:
    """A store has caught the loop it was made on; a store per loop has the one that runs."""

    async def start_up() -> Any:
        connection = await aiosqlite.connect(":memory:", isolation_level=None)
        store = AsyncSqliteStore(connection)
        await store.setup()
        await store.aput(("ns",), "key", {"value": 1})
        return store

    kept = go(start_up)
    fails_when_its_loop_is_closed(kept)
    go(kept.conn.close)
    del kept
    gc.collect()  # the coroutine that it could not begin

    stores = local_sqlite.loop_local_store(tmp_path / "store.db")

    async def put() -> None:
        async with stores() as store:
            await store.aput(("ns",), "key", {"value": 1})

    async def get() -> Any:
        async with stores() as store:
            return (await store.aget(("ns",), "key")).value

    go(put)
    assert go(get) == {"value": 1}


async def tool(n: int) -> int:
    """What a node needs is async."""
    await asyncio.sleep(0)
    return n + 1


def test_70_a_sync_node_with_an_async_tool() -> None:
    """In an endpoint invoke() runs the node on the loop's thread: asyncio.run is refused there, run() is not."""

    async def by_hand() -> None:
        def node(state: State) -> State:
            refused = tool(state["n"])
            try:
                return {"n": asyncio.run(refused)}
            finally:
                refused.close()

        builder(node).compile().invoke(BEGIN)

    with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
        go(by_hand)

    graph = builder(lambda state: {"n": homeloop.run(tool, state["n"], timeout=30)}).compile()

    async def ours() -> tuple[Any, Any]:
        return graph.invoke(BEGIN), await graph.ainvoke(BEGIN)

    assert go(ours) == ({"n": 2}, {"n": 2})


def test_71_a_node_that_waits_for_a_future_of_the_web_loop(manager: LangGraphEventLoopManager) -> None:
    """A future belongs to one loop; a node elsewhere asks by its report, whose answer it waits for."""

    async def by_hand() -> None:
        approval = asyncio.get_running_loop().create_future()

        async def node(state: State) -> State:
            await approval
            return {"n": 2}

        await there(lambda: builder(node).compile().ainvoke(BEGIN))

    with pytest.raises(RuntimeError, match="attached to a different loop"):
        go(by_hand)

    async def ours() -> Any:
        approval = asyncio.get_running_loop().create_future()
        happened: list[str] = []

        async def node(state: State) -> State:
            await homeloop.current_report()("approval", 50)
            happened.append("goes on")
            return {"n": 2}

        async def on_progress(*_: object) -> None:
            asyncio.get_running_loop().call_soon(approve)
            await approval

        def approve() -> None:
            happened.append("approved")
            approval.set_result(True)

        result = await manager.run(builder(node).compile().ainvoke, BEGIN, on_progress=on_progress)
        return result, happened

    assert go(ours) == ({"n": 2}, ["approved", "goes on"])


def test_72_a_sync_node_that_waits_for_its_own_loop() -> None:
    """run_coroutine_threadsafe(...).result() on the loop's own thread waits for itself; run() does not."""

    async def by_hand() -> None:
        loop = asyncio.get_running_loop()

        def node(state: State) -> State:
            waited_for = asyncio.run_coroutine_threadsafe(tool(state["n"]), loop)
            try:
                return {"n": waited_for.result(timeout=0.5)}  # for ever, without it
            finally:
                waited_for.cancel()

        builder(node).compile().invoke(BEGIN)

    with pytest.raises(TimeoutError):
        go(by_hand)

    async def ours() -> Any:
        return builder(lambda state: {"n": homeloop.run(tool, state["n"], timeout=30)}).compile().invoke(BEGIN)

    assert go(ours) == {"n": 2}
