"""Progress of graphs: every step that ends is reported, in order, and never backwards."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any, Literal, cast

from langchain_core.runnables import RunnableConfig

from homeloop import bind_callback
from homeloop.adapters.langgraph._drain import draining
from homeloop.adapters.langgraph._graph import Graph, LoopLocalGraph

_INTERRUPT = "__interrupt__"  # as in what LangGraph's own ainvoke returns

Persist = Callable[[str, float, str], Awaitable[object]]


class ProgressTrackingWorkflow:
    """
    Run a graph and have each step persisted before the next one begins.

    When a step of ``steps`` has ended, ``persist(step, percent, description)`` is awaited; no later step begins
    meanwhile. Nodes may report in between: ``await workflow.report("extract", 15, "page 3")``. What is reported
    never goes backwards: a lower percentage than before is told as that one, also when steps run side by side
    and when the workflow is run again to resume.

    Args:
        graph: A `LoopLocalGraph`, or a graph.
        persist: Async function; it runs on the loop that calls `ainvoke`.
        steps: For each node's name, how far the work has come when it has ended (0 to 100), and what to say.
        percent: How far the work had come before.
        on_error: ``"report"`` logs what ``persist`` raises and goes on; ``"raise"`` has the workflow fail.

    Raises:
        TypeError: A step is not a percentage and a text.

    Attributes:
        percent: How far the work has come.

    Thread: one run at a time; `report` may be called on any loop.
    """

    def __init__(
        self,
        graph: LoopLocalGraph | Graph,
        persist: Persist,
        *,
        steps: Mapping[str, tuple[float, str]],
        percent: float = 0.0,
        on_error: Literal["report", "raise"] = "report",
    ) -> None:
        for step, told in steps.items():
            if not _is_told(told):
                raise TypeError(
                    f"step {step!r} needs (percent, description), such as (50, 'was read'), got {told!r}"
                )
        self.percent = percent
        self._graph = graph
        self._persist = persist
        self._steps = dict(steps)
        self._on_error: Literal["report", "raise"] = on_error
        self._bound: Callable[[str, float, str], Awaitable[object]] | None = None

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Any:
        """
        Run the graph to its end; arguments, result and errors are those of the graph's ``ainvoke``.

        Raises, besides:
            TypeError: ``stream_mode`` or ``version`` is given: these are the workflow's own.
            BaseException: What ``persist`` raised, if ``on_error`` is ``"raise"``. The graph stops after its step.
        """
        for own in ("stream_mode", "version"):
            if own in options:
                raise TypeError(f"{own!r} is the workflow's own: it listens to the graph's steps; leave it out")
        self._bound = bind_callback(self._tell, on_error=self._on_error)
        try:
            return await self._run(input, config, options)
        finally:
            self._bound = None

    async def report(self, step: str, percent: float, description: str = "") -> None:
        """
        Persist a step; return when that is done.

        Raises:
            RuntimeError: The workflow is not running.
            BaseException: What ``persist`` raised, if ``on_error`` is ``"raise"``.
        """
        if self._bound is None:
            raise RuntimeError(
                f"step {step!r} was reported while the workflow is not running; report it in a node"
            )
        await self._bound(step, percent, description)

    async def _run(self, input: Any, config: RunnableConfig | None, options: dict[str, Any]) -> Any:
        values: Any = None
        interrupts: list[Any] = []
        async with AsyncExitStack() as stack:
            graph: Any = self._graph
            if isinstance(graph, LoopLocalGraph):
                stack.enter_context(draining(options))
                graph = await stack.enter_async_context(graph())
            if options.get("output_keys") is None:  # a stream would give private channels, too
                options["output_keys"] = graph.output_channels
            items: Any = graph.astream(input, config, stream_mode=["updates", "values"], **options)
            async for *_, mode, item in await stack.enter_async_context(aclosing(items)):
                if mode == "values":
                    values = item
                    continue
                interrupts.extend(item.get(_INTERRUPT, ()))
                for node in item:
                    if node in self._steps:
                        await self.report(node, *self._steps[node])
        if not interrupts:
            return values
        kept = cast("dict[str, Any]", values) if isinstance(values, dict) else {}
        return {**kept, _INTERRUPT: interrupts}

    async def _tell(self, step: str, percent: float, description: str) -> None:
        # Runs on one loop, one call after the other.
        self.percent = max(self.percent, min(percent, 100.0))
        await self._persist(step, self.percent, description)


def _is_told(told: object) -> bool:
    if not isinstance(told, tuple) or len(cast("tuple[object, ...]", told)) != 2:
        return False
    percent, description = cast("tuple[object, object]", told)
    return isinstance(percent, int | float) and isinstance(description, str)
