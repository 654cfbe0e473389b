"""Graphs that run on whatever loop asks, each run with a checkpointer and a store of that loop."""

import inspect
import itertools
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import StateGraph  # pyright: ignore[reportMissingTypeStubs] - typed inline
from langgraph.pregel import Pregel  # pyright: ignore[reportMissingTypeStubs] - typed inline
from langgraph.store.base import BaseStore
from langgraph.types import Command  # pyright: ignore[reportMissingTypeStubs] - typed inline

import homeloop
from homeloop import LoopLocal
from homeloop.adapters.langgraph._drain import draining
from homeloop.errors import IsolationError

# Any: states, contexts, inputs and outputs are the graph's business, and are handed through.
Graph: TypeAlias = Pregel[Any, Any, Any, Any]
Builder: TypeAlias = StateGraph[Any, Any, Any, Any]
Saver: TypeAlias = BaseCheckpointSaver[Any]
T = TypeVar("T")
Lent: TypeAlias = Callable[[], AbstractAsyncContextManager[T]]

_numbers = itertools.count(1)


class LoopLocalGraph:
    """
    Run one graph on any loop: ``graphs = LoopLocalGraph(builder, checkpointer=savers)`` at module level.

    Every run borrows the running loop's own checkpointer and store, so nothing of it belongs to another
    loop, and neither is closed under a run. Its methods may be given to `homeloop.run`,
    `homeloop.run_isolated` and `homeloop.stream_isolated`, for the process tier too: another process finds
    the object by the module's attribute that it is.

    Args:
        graph: The builder; or what `StateGraph.compile` or a prebuilt agent gives; or a function, async
            or not, that makes one on each loop, for graphs whose nodes need something of the loop.
        checkpointer: A `LoopLocal` of savers, such as `homeloop.adapters.langgraph.postgres.loop_local_saver`
            gives, or any function whose result is entered for the time of one run. Or a saver that
            lives on no loop: ``InMemorySaver``.
        store: The same for the store.
        name: For logs and errors.
        require_isolation: Refuse to run outside of isolated work: `homeloop.run_isolated`, `homeloop.enclosed`, a
            context of `LangGraphEventLoopManager`.

    Raises:
        TypeError: The checkpointer or store is one that lives on one loop.

    Attributes:
        isolation_kind: What `homeloop.Isolation.AUTO` learns by: each graph by itself.

    Thread: one object serves all threads and loops.
    """

    def __init__(
        self,
        graph: Builder | Graph | Callable[[], Graph | Awaitable[Graph]],
        *,
        checkpointer: Lent[Saver] | Saver | None = None,
        store: Lent[BaseStore] | BaseStore | None = None,
        name: str | None = None,
        require_isolation: bool = False,
    ) -> None:
        for given in (checkpointer, store, getattr(graph, "checkpointer", None), getattr(graph, "store", None)):
            _refuse_if_loop_bound(given)
        self._checkpointer = checkpointer
        self._store = store
        self._require_isolation = require_isolation
        self._graphs: LoopLocal[Graph] | None = None
        self._graph: Graph | None = None
        if isinstance(graph, StateGraph):
            self._graph = compiled(cast("Any", graph))
        elif isinstance(graph, Pregel):
            self._graph = graph  # pyright: ignore[reportUnknownMemberType] - the narrowed type
        else:
            self._graphs = LoopLocal(
                partial(_made, graph), close=_leave, name=name or getattr(graph, "__name__", None)
            )
        caller = sys._getframe(1)  # pyright: ignore[reportPrivateUsage] - documented all the same
        self._defined_in = str(caller.f_globals.get("__name__"))
        self.name = name or (self._graph.get_name() if self._graph else str(self._graphs))
        self.isolation_kind = f"{self.name}, graph {next(_numbers)} in {self._defined_in}"

    @asynccontextmanager
    async def __call__(self) -> AsyncGenerator[Graph, None]:
        """
        Lend the graph for the running loop: ``async with graphs() as graph``, for all that graphs can do.

        Its checkpointer and store are the loop's own, and stay open meanwhile.

        Raises:
            IsolationError: The graph requires isolation, and the caller has none.
        """
        if self._require_isolation and homeloop.isolation_of() is None:
            raise IsolationError(
                f"{self.name} runs in isolated work only; use run_isolated() or get_langgraph_manager()."
                "create_isolated_context()"
            )
        async with AsyncExitStack() as stack:
            graph = self._graph
            if graph is None:
                graph = await stack.enter_async_context(cast("LoopLocal[Graph]", self._graphs)())
            update: dict[str, object] = {}
            for what, given in (("checkpointer", self._checkpointer), ("store", self._store)):
                if given is not None:
                    loopless = isinstance(given, (BaseCheckpointSaver, BaseStore))
                    update[what] = (
                        given if loopless else await stack.enter_async_context(cast("Lent[Any]", given)())
                    )
            yield graph.copy(update) if update else graph

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Any:
        """
        Run the graph; arguments, result and errors are those of LangGraph's ``ainvoke``.

        Raises, besides:
            GraphDrained: `drain` was called meanwhile. The run can be resumed.
        """
        with draining(options):
            async with self() as graph:
                return await cast("Any", graph).ainvoke(input, config, **options)

    async def ainvoke_durably(self, input: Any, config: RunnableConfig, **options: Any) -> Any:
        """
        Run the graph such that calling it again, after whatever ended it, resumes it and starts nothing over.

        A thread that has not begun is begun with ``input``; one that was cut off goes on with its unfinished
        nodes; one that has finished is not run: its result is returned once more. Checkpoints are written before
        the next step begins (``durability="sync"``). A node that was cut off runs again, so nodes must bear that.

        Args:
            input: The graph's input; None to go on with what exists; a ``Command`` to answer an interrupt.
            config: Must name the thread: ``{"configurable": {"thread_id": ...}}``.

        Raises:
            ValueError: The graph has no checkpointer.
            BaseException: As `ainvoke`.
        """
        options.setdefault("durability", "sync")
        with draining(options):
            async with self() as graph:
                if not cast("Any", graph).checkpointer:
                    raise ValueError(
                        f"{self.name} has no checkpointer, so its runs cannot be resumed: pass checkpointer="
                    )
                state = await graph.aget_state(config)
                # Without input LangGraph goes on, and gives the result when there is nothing left to run.
                # Not state.next: that leaves out a node that has written its result but not its checkpoint.
                answers = state.tasks and isinstance(input, Command)
                begins = state.created_at is None
                return await cast("Any", graph).ainvoke(input if begins or answers else None, config, **options)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **options: Any
    ) -> AsyncGenerator[Any, None]:
        """Run the graph and yield what LangGraph's ``astream`` yields; errors as `ainvoke`."""
        with draining(options):
            async with self() as graph:
                items: AsyncGenerator[Any, None] = cast("Any", graph).astream(input, config, **options)
                async with aclosing(items):
                    async for item in items:
                        yield item

    async def astream_events(
        self, input: Any, config: RunnableConfig | None = None, **options: Any
    ) -> AsyncGenerator[Any, None]:
        """Run the graph and yield what its ``astream_events``, version 1 or 2, yields; errors as `ainvoke`."""
        with draining(options):
            async with self() as graph:
                items: AsyncGenerator[Any, None] = cast("Any", graph).astream_events(input, config, **options)
                async with aclosing(items):
                    async for item in items:
                        yield item

    def invoke(
        self, input: Any, config: RunnableConfig | None = None, *, timeout: float | None = None, **options: Any
    ) -> Any:
        """
        Run the graph on the process's default loop, from sync code, and block meanwhile.

        Args:
            timeout: Seconds; see `homeloop.run`.

        Raises: as `ainvoke` and `homeloop.run`.

        Thread: any except the default runtime's own.
        """
        return homeloop.run(partial(self.ainvoke, input, config, **options), timeout=timeout)

    def __repr__(self) -> str:
        return f"<LoopLocalGraph {self.name}>"

    def __reduce__(self) -> str:
        """
        Pickle as the module's attribute that this object is.

        Raises:
            TypeError: It is none; nothing of it can be carried to another process.
        """
        # Where it was made first: those who import it from there have it as an attribute, too.
        for module in (sys.modules.get(self._defined_in), *list(sys.modules.values())):
            namespace: dict[str, object] = getattr(module, "__dict__", {})
            for attribute, value in list(namespace.items()):
                if value is self:
                    self.__module__ = str(namespace["__name__"])  # where pickle looks for a global
                    return attribute
        raise TypeError(
            f"{self!r} is no attribute of a module, so another process cannot find it: define it there"
        )


def _refuse_if_loop_bound(given: object) -> None:
    kept = hasattr(given, "loop") or hasattr(given, "_loop")
    if kept and isinstance(given, (BaseCheckpointSaver, BaseStore)):
        raise TypeError(
            f"a {type(cast('object', given)).__name__} lives on one loop, and other loops run this graph, too; "
            "pass a LoopLocal that opens one per loop"
        )


def compiled(builder: Builder) -> Graph:
    """Make the graph of a builder."""
    return cast("Graph", cast("Any", builder).compile())


async def _made(make: Callable[[], Graph | Awaitable[Graph]]) -> Graph:
    made = make()
    return await made if inspect.isawaitable(made) else made


async def _leave(_: Graph) -> None:
    """A graph is not closed; what it borrows is."""
