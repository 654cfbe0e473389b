"""A workflow from a definition, behind the Workflow port."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from uuid import UUID

from workflow_service.domain.run import JsonObject
from workflow_service.ports import (
    ClaimLostError,
    DrainedError,
    LanguageModel,
    ModelUnavailableError,
    RunContext,
    ServiceCatalog,
    StoreUnavailableError,
    WorkflowError,
)
from workflow_service.workflows.engine.asking import Asking, StepFailedError
from workflow_service.workflows.engine.definition import Definition, ModelCall, ServiceCall, Step
from workflow_service.workflows.engine.interpreter import ExpressionError
from workflow_service.workflows.engine.kept import Checkpointer, KeptOutcomes
from workflow_service.workflows.engine.outcome import Outcome, StepStatus
from workflow_service.workflows.engine.schemas import check_input, with_defaults

_SHOWN = 160  # characters of a reason in a line of progress


class DefinedWorkflow:
    """
    Runs a definition: each step as soon as what it needs has ended, and none a second time once it is kept.

    Args:
        definition: What to run.
        services: Where ``external_service`` steps find their services.
        model: What ``language_model`` steps ask; None where none is configured.
        checkpointer: Lends the savers of runs.
    """

    def __init__(
        self,
        definition: Definition,
        services: ServiceCatalog,
        model: LanguageModel | None,
        checkpointer: Checkpointer,
    ) -> None:
        self._definition = definition
        self._services = services
        self._model = model
        self._checkpointer = checkpointer

    @property
    def name(self) -> str:
        """The definition's name."""
        return self._definition.name

    @property
    def description(self) -> str:
        """The definition's description."""
        return self._definition.description

    @property
    def input_schema(self) -> JsonObject:
        """The definition's JSON Schema of the input."""
        return self._definition.input_schema

    def check(self, input_data: JsonObject) -> None:
        """Raise InvalidInputError, with every fault, unless the input fits the schema."""
        check_input(self.input_schema, input_data)

    async def run(self, context: RunContext) -> JsonObject:
        """
        Do the steps that are not kept yet, and return the output.

        Raises:
            InvalidInputError: The input does not fit the schema.
            WorkflowError: A step failed whose failure ends the run, or the output cannot be made.
            StoreUnavailableError, ModelUnavailableError: What it needs did not answer; another attempt goes on.
            ClaimLostError: The attempt holds the run no longer.
            DrainedError: It was asked to end: steps under way have ended and are kept, no other has begun.

        Cancellation: ends all steps, closes what they have opened, then re-raises.
        """
        self.check(context.input_data)
        async with self._checkpointer(context.run_id, context.attempt) as saver:
            kept = KeptOutcomes(saver, context.run_id)
            asking = Asking(self._services, self._model, context.user_id, context.run_id)
            return await _Execution(self._definition, asking, kept, context).run()

    async def forget(self, run_id: UUID) -> None:
        """Remove what is kept of the run's steps; a run of which nothing is kept is fine."""
        async with self._checkpointer(run_id, None) as saver:
            await saver.adelete_thread(str(run_id))


class _Execution:
    """One run of a definition, on one loop."""

    def __init__(self, definition: Definition, asking: Asking, kept: KeptOutcomes, context: RunContext) -> None:
        self._definition = definition
        self._asking = asking
        self._kept = kept
        self._report = context.report
        self._drain = context.drain
        self._run = f"run {context.run_id}"
        self._input = with_defaults(definition.input_schema, context.input_data)
        self._outcomes: dict[str, Outcome] = {}
        self._sorter = definition.sorter()
        self._slots = asyncio.Semaphore(definition.max_parallel)
        self._ending = asyncio.Lock()  # so that progress is told in the order of its percentages

    async def run(self) -> JsonObject:
        kept = await self._kept.read()
        for step in self._definition.steps.values():
            if step.fingerprint in kept:
                self._outcomes[step.name] = kept[step.fingerprint]
        try:
            async with asyncio.TaskGroup() as group:
                self._begin(group)
        except ExceptionGroup as failures:
            raise _cause(failures) from None
        if len(self._outcomes) < len(self._definition.steps):
            raise DrainedError("ended between two steps")
        return await self._output()

    def _begin(self, group: asyncio.TaskGroup) -> None:
        """Begin every step that needs nothing more; kept ones have ended already."""
        while ready := self._sorter.get_ready():
            for name in ready:
                if name in self._outcomes:
                    self._sorter.done(name)
                else:
                    task = self._do(self._definition.steps[name], group)
                    group.create_task(task, name=f"step {name} of {self._run}")

    async def _do(self, step: Step, group: asyncio.TaskGroup) -> None:
        async with self._slots:
            if self._drain.is_requested:
                return
            outcome = await self._asking.outcome(step, self._names(step.needs), self._run)
        async with self._ending:
            percent = 100 * (len(self._outcomes) + 1) // len(self._definition.steps)
            await self._report(step.name, percent, _told(step, outcome))
            await self._kept.keep(step.name, step.fingerprint, outcome)
            self._outcomes[step.name] = outcome
        self._sorter.done(step.name)
        self._begin(group)

    def _names(self, steps: Iterable[str]) -> JsonObject:
        return {
            "input": self._input,
            "constants": self._definition.constants,
            "steps": {name: self._outcomes[name].to_json() for name in steps},
        }

    async def _output(self) -> JsonObject:
        names = self._names(self._definition.steps)
        try:
            output = await asyncio.to_thread(self._definition.output.value, names)
        except ExpressionError as error:
            raise WorkflowError(f"the output cannot be made: {error}") from error
        if not isinstance(output, Mapping):
            raise WorkflowError(f"the output must come out as an object, is of type {type(output).__name__}")
        return output


def _cause(failures: ExceptionGroup[Exception]) -> Exception:
    """Return the one error to tell: the loss of the run or of the database explains whatever else went wrong."""
    flat = list(_flattened(failures))
    for kind in (ClaimLostError, StoreUnavailableError):
        for error in flat:
            if isinstance(error, kind):
                return error
    first = flat[0]
    if not isinstance(first, StepFailedError):
        return first
    is_away = isinstance(first.__cause__, ModelUnavailableError)  # then another attempt at the run may succeed
    return ModelUnavailableError(str(first)) if is_away else WorkflowError(str(first))


def _flattened(failures: ExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in failures.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _flattened(error)
        else:
            yield error


def _told(step: Step, outcome: Outcome) -> str:
    """Say in a line of progress how a step ended."""
    match outcome.status:
        case StepStatus.SKIPPED:
            return "skipped: its condition did not hold"
        case StepStatus.FAILED:
            reason = " ".join(str(outcome.error).split())
            shown = reason if len(reason) <= _SHOWN else f"{reason[: _SHOWN - 1]}…"
            return f"failed, and the run goes on: {shown}"
    if isinstance(step.body, ServiceCall):
        kept = ", from the cache" if outcome.cached else ""
        return f"asked {step.body.service} for {step.body.operation}{kept}"
    return "asked the language model" if isinstance(step.body, ModelCall) else "worked out"
