"""F3, the tree of tasks: who awaits whom, where each was made, since when, and what it works for."""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import Context, ContextVar
from functools import partial
from typing import Any, TypedDict
from uuid import UUID

import pytest
from langgraph.graph import StateGraph

from homeloop import LoopRuntime, label_tasks, trace
from homeloop.health import _tree
from homeloop.health._tree import TaskTree, jobs_of

BOUND = 20.0  # seconds
Settle = Callable[[LoopRuntime], None]
Told = dict[str, Any]  # Any: what JSON knows

order: ContextVar[str | None] = ContextVar("order", default=None)


async def leaf(over: asyncio.Event) -> None:
    """Wait."""
    await over.wait()


async def group(over: asyncio.Event) -> None:
    """Three in a group."""
    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(leaf(over))


async def waits(over: asyncio.Event) -> None:
    """Two that `asyncio.wait` waits for."""
    await asyncio.wait([asyncio.create_task(leaf(over)) for _ in range(2)])


async def root(over: asyncio.Event) -> None:
    """All the ways to await another task."""
    shielded = asyncio.create_task(leaf(over), name="shielded")
    await asyncio.gather(group(over), waits(over), asyncio.shield(shielded), asyncio.wait_for(leaf(over), BOUND))


class Grown:
    """Tasks that await each other, on a runtime's loop."""

    def __init__(self, runtime: LoopRuntime, settle: Settle) -> None:
        self.runtime = runtime
        self._settle = settle
        self._over = asyncio.Event()
        self._kept: list[asyncio.Task[None]] = []

    def plant(self, what: Callable[[asyncio.Event], Any], number: int = 1) -> Told:
        """Start tasks; return the tree of the loop once all of them wait."""

        async def start() -> None:
            self._kept += [asyncio.create_task(what(self._over)) for _ in range(number)]
            for _ in range(10):  # each starts the next, a turn of the loop later
                await asyncio.sleep(0)

        self.runtime.run(start)
        self._settle(self.runtime)
        return self.look()

    def look(self) -> Told:
        """Return the tree now."""
        residence = self.runtime.residence()
        assert residence is not None
        return TaskTree().tell([residence.loop])

    def cut(self) -> None:
        """Let all of them end."""

        async def end() -> None:
            self._over.set()
            await asyncio.gather(*self._kept)

        self.runtime.run(end)


@pytest.fixture
def grown(runtime: LoopRuntime, settle: Settle) -> Iterator[Grown]:
    """Tasks, let go after the test."""
    made = Grown(runtime, settle)
    yield made
    made.cut()


@pytest.fixture
def traced() -> Iterator[None]:
    """Tracing that records where tasks are made."""
    trace.enable(2)
    yield
    trace.disable()


def shape(groups: list[Told]) -> dict[str, Any]:
    """Return a tree as names and numbers."""
    return {f"{each['number']} {each['coroutine']}": shape(each["children"]) for each in groups}


def test_f3_a_task_stands_below_the_one_that_awaits_it(grown: Grown) -> None:
    """In a group, by gather, wait, wait_for and shield; alike ones are told together."""
    told = grown.plant(root)
    (tree,) = told["trees"]
    # Since Python 3.12 wait_for awaits within its own task.
    waited_for = {} if sys.version_info >= (3, 12) else {"1 leaf": {}}
    children = {"1 group": {"3 leaf": {}}, "1 waits": {"2 leaf": {}}, "1 leaf": {}, "1 wait_for": waited_for}
    assert shape(tree["groups"]) == {"1 root": children}
    assert told["pending"] == told["looked_at"]
    assert told["groups_left_out"] == 0
    (first,) = tree["groups"]
    assert first["waiting_at"][0].startswith("test_task_tree.py:")
    assert first["waiting_at"][0].endswith("in root")
    assert not first["running"]


def test_f3_origin_and_age_are_told(traced: None, grown: Grown) -> None:
    """Where tracing recorded it: the line that made the task; else where its coroutine is defined."""
    (tree,) = grown.plant(leaf, 5)["trees"]
    (told,) = tree["groups"]
    assert told["is_origin"]
    assert "in Grown.plant.<locals>.start" in told["made_at"]
    assert told["number"] == 5
    assert len(told["names"]) == 3
    assert told["oldest"] >= 0


def test_without_tracing_the_definition_is_told(grown: Grown) -> None:
    """And that it is no origin."""
    told = grown.plant(leaf)
    (first,) = told["trees"][0]["groups"]
    assert not told["origins"]
    assert not first["is_origin"]
    assert first["made_at"].endswith("in leaf")


def test_what_is_told_is_bounded(grown: Grown, monkeypatch: pytest.MonkeyPatch) -> None:
    """In tasks that are looked at, and in groups of them."""
    monkeypatch.setattr(_tree, "_MOST_TASKS", 4)
    told = grown.plant(leaf, 10)
    assert (told["pending"], told["looked_at"]) == (10, 4)
    monkeypatch.setattr(_tree, "_MOST_TASKS", 100)
    monkeypatch.setattr(_tree, "_MOST_GROUPS", 1)
    told = grown.plant(group)
    assert told["groups_left_out"] >= 1


def test_f3_jobs_are_told_by_the_labels_of_tasks(grown: Grown) -> None:
    """Read from each task's context; what fails to read one is left out, and so is what tells less than a part."""

    def read(context: Context) -> dict[str, str]:
        value = context.get(order)
        return {} if value is None else {"order": value, **({"part": "mail"} if value == "4712" else {})}

    def fails(_: Context) -> dict[str, str]:
        raise ZeroDivisionError

    forget, forget_fails = label_tasks(read), label_tasks(fails)
    try:
        for value in ("4711", "4712"):
            token = order.set(value)
            grown.plant(root)
            order.reset(token)
        grown.plant(leaf)
        told = grown.look()
        jobs = {job["labels"]["order"]: job for job in jobs_of(told)}
        assert set(jobs) == {"4711", "4712"}
        assert jobs["4711"]["tasks"] >= 8
        assert jobs["4711"]["loop"] == told["trees"][0]["loop"]
        assert jobs["4712"]["labels"] == {"order": "4712", "part": "mail"}
    finally:
        forget()
        forget_fails()
        forget()
    assert jobs_of(grown.look()) == []


class Proxy:
    """What callbacks may hold: something that is nothing outside of a request, and says so to whoever looks."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name} outside of a request")

    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class outside of a request")

    def __call__(self, *_: object) -> None: ...


def test_what_callbacks_hold_is_not_touched(grown: Grown) -> None:
    """By partial, in a closure, or itself the callback: a proxy of a web framework spoils no tree."""
    proxy: Any = Proxy()

    async def called_back(over: asyncio.Event) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(partial(print, proxy))
        task.add_done_callback(proxy)
        task.add_done_callback(lambda _, held=proxy: proxy and held)
        await over.wait()

    try:
        (tree,) = grown.plant(called_back)["trees"]
    finally:
        grown.runtime.run(forget_callbacks)
    assert [name.rpartition(".")[2] for name in shape(tree["groups"])] == ["called_back"]


async def forget_callbacks() -> None:
    """Have none called."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        for callback, _ in list(getattr(task, "_callbacks", None) or ()):
            task.remove_done_callback(callback)


def test_labels_are_told_as_words(grown: Grown) -> None:
    """Whatever a reader returns for a value: what cannot be compared or sent would spoil the whole page."""
    forget = label_tasks(lambda _: {"order": ["4711"], "id": UUID(int=7)})  # type: ignore[dict-item]
    try:
        told = grown.plant(leaf)
    finally:
        forget()
    (job,) = jobs_of(told)
    assert job["labels"] == {"order": "['4711']", "id": str(UUID(int=7))}


class State(TypedDict):
    """What the graph works on."""

    n: int


def test_f3_a_node_of_a_graph_is_told_as_a_job(runtime: LoopRuntime, settle: Settle) -> None:
    """With the conversation; the adapter of LangGraph tells it once it is imported."""
    import homeloop.adapters.langgraph

    assert homeloop.adapters.langgraph
    inside, release = threading.Event(), asyncio.Event()

    async def extract(state: State) -> State:
        inside.set()
        await release.wait()
        return state

    building: Any = StateGraph(State)  # Any: its types are its own affair
    building.add_node("extract", extract)
    building.set_entry_point("extract")
    graph = building.compile()
    config = {"configurable": {"thread_id": "case-7"}}
    running = runtime.submit(graph.ainvoke, {"n": 1}, config)
    assert inside.wait(BOUND)
    settle(runtime)
    residence = runtime.residence()
    assert residence is not None
    (job,) = jobs_of(TaskTree().tell([residence.loop]))
    assert job["labels"] == {"graph node": "extract", "thread_id": "case-7"}
    residence.loop.call_soon_threadsafe(release.set)
    assert running.result(BOUND) == {"n": 1}
