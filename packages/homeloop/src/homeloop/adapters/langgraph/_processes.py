"""Graphs in processes of their own: named by where they are defined, and run over there."""

import importlib
import inspect
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, cast

from langgraph.graph import StateGraph  # pyright: ignore[reportMissingTypeStubs] - typed inline

import homeloop
from homeloop import Isolation, IsolationExecutor
from homeloop.adapters.langgraph._graph import LoopLocalGraph, compiled
from homeloop.adapters.langgraph._progress import ProgressTrackingWorkflow

PRELOAD = ("homeloop.adapters.langgraph",)
"""What worker processes have imported before they begin: this, and LangGraph with it."""

_KEYS = frozenset(("graph", "input", "config", "options", "steps", "durable"))


class ProcessIsolatedLangGraphExecutor:
    """
    Runs graphs in kept worker processes.

    What to run is a mapping:

    - ``graph``: the graph's address, ``"package.module:attribute"``, or a `LoopLocalGraph` itself. There must be a
      `LoopLocalGraph`, a graph or its builder, or a function without parameters, async or not, that makes one.
    - ``input``, ``config``, ``options``: for its ``ainvoke(input, config, **options)``.
    - ``steps``: for each step's name a percentage and a description, reported when the step has ended; see
      `ProgressTrackingWorkflow`. Nodes may report too: `homeloop.current_report`.
    - ``durable``: true to resume what was cut off; see `LoopLocalGraph.ainvoke_durably`.

    Args:
        max_workers: Processes at the same time; None for one per CPU.
        preload: Modules that the processes have imported before they begin, beside LangGraph.
        executor: Use this one, which somebody else closes.

    Thread: any, unless a method says otherwise.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        preload: Sequence[str] = (),
        executor: IsolationExecutor | None = None,
    ) -> None:
        self._own = executor is None
        self._executor = executor or IsolationExecutor(
            name="langgraph-processes", max_processes=max_workers, preload=(*PRELOAD, *preload)
        )

    async def execute(
        self,
        workflow_config: Mapping[str, Any],
        context_id: str | None = None,
        *,
        on_progress: Callable[..., object] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """
        Run a graph in another process and return its result.

        Args:
            workflow_config: See the class.
            context_id: The run's name in logs and events.
            on_progress: Called with step, percentage and description, in order, on this loop.
            timeout: Seconds, waiting for a process included; None for ever.

        Raises:
            TypeError: ``workflow_config`` is not what it should be. Nothing was run.
            BaseException: As `homeloop.run_isolated`, and what the graph raises.

        Thread: one that runs a loop.
        Cancellation: cancels the run over there, waits for its clean-up, then is raised.
        """
        return await self._executor.run(
            run_workflow,
            checked(workflow_config),
            isolation=Isolation.PROCESS,
            context_id=context_id,
            on_progress=on_progress,
            timeout=timeout,
        )

    def stream(
        self, workflow_config: Mapping[str, Any], context_id: str | None = None, *, timeout: float | None = None
    ) -> AsyncGenerator[Any, None]:
        """Iterate what the graph's ``astream`` yields in another process; args and raises as `execute`."""
        return self._executor.stream(
            stream_workflow,
            checked(workflow_config),
            isolation=Isolation.PROCESS,
            context_id=context_id,
            timeout=timeout,
        )

    def close(self, timeout: float = 5.0) -> None:
        """End the processes, unless the executor is somebody else's. Thread: any except a loop's own."""
        if self._own:
            self._executor.close(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def checked(workflow_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a workflow's description; raise TypeError if it is none."""
    unknown = sorted(set(workflow_config) - _KEYS)
    if unknown or "graph" not in workflow_config:
        wrong = f"has unknown keys {unknown}" if unknown else "names no graph"
        raise TypeError(f"workflow_config {wrong}; it may have {', '.join(sorted(_KEYS))}")
    return dict(workflow_config)


async def run_workflow(workflow: Mapping[str, Any]) -> Any:
    """Run a graph in the process where this is called."""
    graph = await _find(workflow["graph"])
    arguments: tuple[Any, Any] = workflow.get("input"), workflow.get("config")
    options = dict(workflow.get("options") or {})
    if workflow.get("durable"):
        if not isinstance(graph, LoopLocalGraph):
            raise TypeError(f"a durable workflow's graph must be a LoopLocalGraph, got {type(graph).__name__}")
        if workflow.get("steps"):
            raise TypeError("a durable workflow reports from its nodes: it has no steps")
        return await graph.ainvoke_durably(*arguments, **options)
    if workflow.get("steps"):
        tracked = ProgressTrackingWorkflow(
            graph, homeloop.current_report(), steps=workflow["steps"], on_error="raise"
        )
        return await tracked.ainvoke(*arguments, **options)
    return await graph.ainvoke(*arguments, **options)


async def stream_workflow(workflow: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
    """Stream a graph in the process where this is called."""
    graph = await _find(workflow["graph"])
    options = dict(workflow.get("options") or {})
    async with aclosing(graph.astream(workflow.get("input"), workflow.get("config"), **options)) as items:
        async for item in items:
            yield item


async def _find(address: Any) -> Any:
    """Return a `LoopLocalGraph` or a graph. Any: whose types are the graph's business."""
    found: Any = address
    if isinstance(address, str):
        module, _, path = address.partition(":")
        if not module or not path:
            raise TypeError(f"a graph's address is 'package.module:attribute', got {address!r}")
        found = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    if not hasattr(found, "ainvoke") and not isinstance(found, StateGraph):
        made: Any = found()
        found = await made if inspect.isawaitable(made) else made
    return compiled(cast("Any", found)) if isinstance(found, StateGraph) else found
