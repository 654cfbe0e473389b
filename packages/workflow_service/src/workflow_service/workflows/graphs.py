"""A LangGraph graph behind the Workflow port: the one way in which graphs are run, resumed and told of."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, cast
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphDrained
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import RunControl
from langgraph.types import Command, Interrupt, StateSnapshot
from pydantic_core import to_jsonable_python

from workflow_service.domain.run import JsonObject, Question
from workflow_service.ports import DrainedError, Report, RunContext, WaitingError, WorkflowError
from workflow_service.workflows.engine.kept import Checkpointer
from workflow_service.workflows.engine.schemas import check_input, schema_fault, with_defaults

Graph = StateGraph[Any, Any, Any, Any]  # Any: the states of other people's graphs
_Compiled = CompiledStateGraph[Any, Any, Any, Any]

_TELLING, _USER = "report", "user_id"  # keys of a run's configuration; they never enter the state
# Keys under which LangGraph tells, among what nodes give, that nodes wait, and that they ended in a life before.
_INTERRUPTS, _CACHED = "__interrupt__", "__metadata__"


class GraphWorkflow:
    """
    Runs a graph; each step is kept before the next begins.

    The graph begins with the run's input, defaults filled in, and what it gives as its output is the run's
    result, made JSON: name an ``output_schema`` where the state holds more than that. Each node that ends is a
    step of the run, unless it tells of its work itself: by `report`, or with LangGraph's stream writer. A node
    learns the user by `user_of`, and may ask a person with LangGraph's ``interrupt``: the run then waits.

    Args:
        name: What users call the workflow by.
        description: One sentence for the list of workflows.
        input_schema: JSON Schema of the input, an object.
        graph: The graph, not compiled.
        checkpointer: Lends the savers of runs.
        begin: Returns the graph's input for a run's input, or raises InvalidInputError; in place of the schema,
            which then is for forms alone.
        result: The key of the output that is the run's result; None: all of the output.

    Raises:
        ValueError: ``input_schema`` is no JSON Schema of an object.
    """

    def __init__(
        self,
        name: str,
        description: str,
        input_schema: JsonObject,
        graph: Graph,
        checkpointer: Checkpointer,
        *,
        begin: Callable[[JsonObject], Mapping[str, Any]] | None = None,  # Any: the state is the graph's affair
        result: str | None = None,
    ) -> None:
        fault = schema_fault(input_schema)
        if fault or input_schema.get("type") != "object":
            raise ValueError(f"workflow {name!r}: {fault[1] if fault else 'the input must be of type object'}")
        self.name = name
        self.description = description
        self.input_schema = input_schema
        self._graph = graph
        self._checkpointer = checkpointer
        self._begin = begin or self._by_schema
        self._result = result

    def check(self, input_data: JsonObject) -> None:
        """Raise InvalidInputError, with every fault, unless a run could begin with the input."""
        self._begin(input_data)

    async def run(self, context: RunContext) -> JsonObject:
        """
        Run the nodes that are not done yet, and return the result.

        A run that is finished returns its result again. One that has begun goes on as it began: its input is
        looked at no more.

        Raises:
            InvalidInputError: The input is not what `check` accepts.
            WaitingError: Nodes wait for answers of a person; another attempt goes on with those in
                ``context.answers``.
            WorkflowError: The result cannot be made JSON.
            StoreUnavailableError: The database did not answer; another attempt goes on.
            ClaimLostError: The attempt holds the run no longer.
            DrainedError: It was asked to end between two steps, and has.
            Exception: Whatever a node raises.

        Cancellation: cancels the nodes that are under way, waits for their clean-up, then re-raises.
        """
        telling = _Telling(context.report)
        config: RunnableConfig = {
            "configurable": {"thread_id": str(context.run_id), _TELLING: telling, _USER: context.user_id}
        }
        async with self._checkpointer(context.run_id, context.attempt) as saver:
            graph = self._graph.compile(checkpointer=saver)
            kept = await graph.aget_state(config)
            start: Any = _going_on(kept, context.answers)
            if kept.created_at is None:
                start = self._begin(context.input_data)
            control = RunControl()
            context.drain.on_request(control.request_drain)
            try:
                output = await _streamed(graph, start, config, control, telling)
            except GraphDrained as drained:
                raise DrainedError("ended between two steps") from drained
        return await asyncio.to_thread(_as_json, output if self._result is None else output[self._result])

    async def forget(self, run_id: UUID) -> None:
        """Remove the run's checkpoints; a run that has none is fine. Raises StoreUnavailableError."""
        async with self._checkpointer(run_id, None) as saver:
            await saver.adelete_thread(str(run_id))

    def _by_schema(self, input_data: JsonObject) -> Mapping[str, Any]:
        check_input(self.input_schema, input_data)
        return cast("Mapping[str, Any]", with_defaults(self.input_schema, input_data))


async def report(config: RunnableConfig, step: str, percent: int, description: str) -> None:
    """Tell, from a node, that a step is done; returns when it is persisted. ``percent`` is 0 to 100."""
    configurable = config.get("configurable", {})
    telling: _Telling = configurable[_TELLING]
    await telling.of_node(_path(configurable.get("checkpoint_ns", "").split("|")), step, percent, description)


def user_of(config: RunnableConfig) -> str:
    """Return, in a node, the id of the user whose run it is: services and documents are asked for that user."""
    user_id: str = config.get("configurable", {})[_USER]
    return user_id


class _Telling:
    """What one attempt has told of its nodes: those that tell by themselves are not told of once more."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._tell_themselves: set[str] = set()
        self._percent = 0

    async def of_node(self, node: str, step: str, percent: int, description: str) -> None:
        """Tell what the node at that path says of its work."""
        self._tell_themselves.add(node)
        await self._tell(step, percent, description)

    async def of_ended(self, node: str) -> None:
        """Tell that a node has ended."""
        if node not in self._tell_themselves:
            await self._tell(node, self._percent, "ended")

    async def of_stream(self, data: object) -> None:
        """Tell what a node has written to the stream, if it is a step; all else is the graph's affair."""
        match data:
            case {"step": str(step), "percent": int(percent), "description": str(description)}:
                await self._tell(step, percent, description)

    async def _tell(self, step: str, percent: int, description: str) -> None:
        self._percent = max(self._percent, percent)
        await self._report(step, percent, description)


async def _streamed(
    graph: _Compiled, start: Any, config: RunnableConfig, control: RunControl, telling: _Telling
) -> Mapping[str, Any]:
    """Run a graph to its end, tell of its nodes, and return its output. Raises WaitingError."""
    output: Mapping[str, Any] = {}
    waiting: list[Interrupt] = []
    stream = graph.astream(
        start,
        config,
        stream_mode=["updates", "custom", "values"],
        output_keys=graph.output_channels,
        subgraphs=True,
        durability="sync",
        control=control,
    )
    async with aclosing(cast("Any", stream)) as chunks:  # an async generator, which its annotation does not say
        async for namespace, mode, data in chunks:
            if mode == "custom":
                await telling.of_stream(data)
            elif mode == "values":
                output = output if namespace else data
            elif _INTERRUPTS in data:
                waiting += () if namespace else data[_INTERRUPTS]
            elif _CACHED not in data:
                for node in data:
                    await telling.of_ended(_path([*namespace, node]))
    if waiting:
        raise WaitingError([Question(each.id, _as_json(each.value)) for each in waiting])
    return output


def _going_on(kept: StateSnapshot, answers: JsonObject) -> Command[Any] | None:
    """
    Return what a graph goes on with: the answers to what it waits for now; None, where it stands.

    Only those: LangGraph takes an answer to a node's first question for one to its second, if it is given both.
    """
    given = {each.id: answers[each.id] for each in kept.interrupts if each.id in answers}
    return Command(resume=given) if given else None


def _path(places: list[str]) -> str:
    """Return how a node is called: ``node``, in a subgraph ``subgraph/node``. A place is ``node:task``."""
    return "/".join(place.partition(":")[0] for place in places)


def _as_json(value: Any) -> Any:
    try:
        return to_jsonable_python(value)
    except ValueError as error:  # the serialiser's own, and that of bytes that are no text
        raise WorkflowError(f"what the graph gives is no JSON: {error}") from error
