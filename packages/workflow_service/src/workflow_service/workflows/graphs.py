"""A LangGraph graph behind the Workflow port: what a graph of one's own needs to be run and resumed by name."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphDrained
from langgraph.graph import StateGraph
from langgraph.runtime import RunControl

from workflow_service.domain.run import JsonObject
from workflow_service.ports import DrainedError, Report, RunContext, WorkflowError
from workflow_service.workflows.engine.kept import Checkpointer
from workflow_service.workflows.engine.schemas import check_input, schema_fault, with_defaults

Graph = StateGraph[Any, Any, Any, Any]  # Any: the states of other people's graphs

_REPORT, _USER = "report", "user_id"  # keys of a run's configuration; they never enter the state


class GraphWorkflow:
    """
    Runs a graph whose state is JSON; each step is kept before the next begins.

    The graph begins with the run's input, defaults filled in, and what it gives as its output is the run's
    result: name an ``output_schema`` where the state holds more than that. Nodes tell of their work by `report`
    and learn the user by `user_of`.

    Args:
        name: What users call the workflow by.
        description: One sentence for the list of workflows.
        input_schema: JSON Schema of the input, an object.
        graph: The graph, not compiled.
        checkpointer: Lends the savers of runs.

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
    ) -> None:
        fault = schema_fault(input_schema)
        if fault or input_schema.get("type") != "object":
            raise ValueError(f"workflow {name!r}: {fault[1] if fault else 'the input must be of type object'}")
        self.name = name
        self.description = description
        self.input_schema = input_schema
        self._graph = graph
        self._checkpointer = checkpointer

    def check(self, input_data: JsonObject) -> None:
        """Raise InvalidInputError, with every fault, unless the input fits the schema."""
        check_input(self.input_schema, input_data)

    async def run(self, context: RunContext) -> JsonObject:
        """
        Run the nodes that are not done yet, and return the graph's output.

        Raises:
            InvalidInputError: The input does not fit the schema.
            WorkflowError: The graph waits for an answer of a person, which runs cannot give.
            StoreUnavailableError: The database did not answer; another attempt goes on.
            ClaimLostError: The attempt holds the run no longer.
            DrainedError: It was asked to end between two steps, and has.
            Exception: Whatever a node raises.
        """
        self.check(context.input_data)
        config: RunnableConfig = {
            "configurable": {
                "thread_id": str(context.run_id),
                _REPORT: context.report,
                _USER: context.user_id,
            }
        }
        async with self._checkpointer(context.run_id, context.attempt) as saver:
            graph = self._graph.compile(checkpointer=saver)
            kept = await graph.aget_state(config)
            start: Any = None  # go on where the checkpoint is; any input would begin anew
            if kept.created_at is None:
                start = with_defaults(self.input_schema, context.input_data)
            control = RunControl()
            context.drain.on_request(control.request_drain)
            try:
                output: Mapping[str, Any] = await graph.ainvoke(start, config, durability="sync", control=control)
            except GraphDrained as drained:
                raise DrainedError("ended between two steps") from drained
        if "__interrupt__" in output:
            raise WorkflowError("the graph waits for the answer of a person, which a run cannot give")
        return output

    async def forget(self, run_id: UUID) -> None:
        """Remove the run's checkpoints; a run that has none is fine. Raises StoreUnavailableError."""
        async with self._checkpointer(run_id, None) as saver:
            await saver.adelete_thread(str(run_id))


async def report(config: RunnableConfig, step: str, percent: int, description: str) -> None:
    """Tell, from a node, that a step is done; returns when it is persisted. ``percent`` is 0 to 100."""
    tell: Report = config.get("configurable", {})[_REPORT]
    await tell(step, percent, description)


def user_of(config: RunnableConfig) -> str:
    """Return, in a node, the id of the user whose run it is: services and documents are asked for that user."""
    user_id: str = config.get("configurable", {})[_USER]
    return user_id
