"""Services, a model and a checkpoint store whose doings tests decide."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from steps import Steps, WorkerDiedError

from workflow_service.domain.external import ExternalServiceResponse, ServiceDescription
from workflow_service.domain.language_model import ModelAnswer, ModelUsage
from workflow_service.ports import InvalidInputError, RunContext
from workflow_service.workflows.engine.reading import read_definition
from workflow_service.workflows.engine.workflow import DefinedWorkflow

Answer = Callable[[Mapping[str, Any]], Awaitable[ExternalServiceResponse]]
Checkpointer = Callable[[UUID], AbstractAsyncContextManager[BaseCheckpointSaver[Any]]]


class ScriptedServices:
    """Fits ServiceCatalog; `answers` has what «service.operation» does with its parameters."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.described: list[ServiceDescription] = []
        self.calls: list[tuple[str, Mapping[str, Any], str, float | None]] = []
        self.open_now = 0
        self.opened = 0

    def says(self, what: str, data: Any, **more: Any) -> None:
        """Let an operation answer with ``data``."""

        async def answer(_params: Mapping[str, Any]) -> ExternalServiceResponse:
            return ExternalServiceResponse(True, data, **more)

        self.answers[what] = answer

    def refuses(self, what: str, error: str) -> None:
        """Let an operation be refused."""

        async def answer(_params: Mapping[str, Any]) -> ExternalServiceResponse:
            return ExternalServiceResponse(False, error=error)

        self.answers[what] = answer

    def describe(self) -> Collection[ServiceDescription]:
        return self.described

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator["ScriptedCaller"]:
        if not any(what.startswith(f"{name}.") for what in self.answers):
            raise InvalidInputError(f"{name} is not configured; set WORKFLOW_SERVICES__{name.upper()}__API_KEY")
        self.open_now += 1
        self.opened += 1
        try:
            yield ScriptedCaller(self, name)
        finally:
            self.open_now -= 1

    def asked(self) -> list[str]:
        """Return what was asked, in order."""
        return [what for what, *_ in self.calls]


class ScriptedCaller:
    """Fits ServiceCaller."""

    def __init__(self, services: ScriptedServices, name: str) -> None:
        self._services = services
        self._name = name

    async def call(
        self, operation: str, params: Mapping[str, Any], user_id: str, cache_ttl: float | None = None
    ) -> ExternalServiceResponse:
        what = f"{self._name}.{operation}"
        self._services.calls.append((what, params, user_id, cache_ttl))
        return await self._services.answers[what](params)


class ScriptedModel:
    """Fits LanguageModel; answers with what it was told, or what `answer` makes of it."""

    name = "scripted"

    def __init__(self) -> None:
        self.prompts: list[tuple[str, str | None, Mapping[str, Any] | None, str]] = []
        self.answer: Callable[[str], Any] = lambda prompt: prompt

    async def complete(
        self,
        prompt: str,
        *,
        user_id: str,
        run_id: UUID | None = None,
        system: str | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> ModelAnswer:
        self.prompts.append((prompt, system, schema, user_id))
        answer = self.answer(prompt)
        data = answer if schema is not None else None
        return ModelAnswer(str(answer), data, ModelUsage("scripted", 3, 5))


class Bench:
    """Makes workflows of definitions and runs them."""

    def __init__(self, services: ScriptedServices, model: ScriptedModel, checkpointer: Checkpointer) -> None:
        self.services = services
        self.model: ScriptedModel | None = model
        self.checkpointer = checkpointer
        self.steps = Steps()

    def workflow(self, text: str) -> DefinedWorkflow:
        """Return the workflow of a definition; `head` and an output are added where it has none."""
        if "name:" not in text.partition("steps:")[0]:
            text = f"name: tried\ndescription: Tried.\n{text}"
        if "\noutput:" not in text:
            text += "\noutput: {}\n"
        definition = read_definition(text, "tried.yaml")
        return DefinedWorkflow(definition, self.services, self.model, self.checkpointer)

    async def run(self, text: str, input_data: Mapping[str, Any] | None = None, run_id: UUID | None = None) -> Any:
        """Run a definition to its end and return its output."""
        context = RunContext(run_id or uuid4(), "alice", input_data or {}, self.steps)
        async with asyncio.timeout(60):
            return await self.workflow(text).run(context)


@pytest.fixture
def services() -> ScriptedServices:
    """Services that answer as the test says."""
    return ScriptedServices()


@pytest.fixture
def model() -> ScriptedModel:
    """A language model that says what it was told."""
    return ScriptedModel()


@pytest.fixture
def told() -> Callable[..., Steps]:
    """Makes a report that writes down what it is told."""
    return Steps


@pytest.fixture
def worker_died() -> type[BaseException]:
    """What a report raises that dies."""
    return WorkerDiedError


@pytest.fixture
def in_memory() -> Checkpointer:
    """One checkpoint store in memory for all runs of the test."""
    saver: BaseCheckpointSaver[Any] = InMemorySaver()

    @asynccontextmanager
    async def lend(_run_id: UUID, _attempt: int | None) -> AsyncIterator[BaseCheckpointSaver[Any]]:
        yield saver

    return lend


@pytest.fixture
def in_postgres(empty_database: str) -> Checkpointer:
    """Opens a saver of its own on one database for each use, as a new worker would."""

    async def set_up() -> None:
        async with AsyncPostgresSaver.from_conn_string(empty_database) as saver:
            await saver.setup()

    @asynccontextmanager
    async def lend(_run_id: UUID, _attempt: int | None) -> AsyncIterator[BaseCheckpointSaver[Any]]:
        async with AsyncPostgresSaver.from_conn_string(empty_database) as saver:
            yield saver

    asyncio.run(set_up())
    return lend


@pytest.fixture
def bench(services: ScriptedServices, model: ScriptedModel, in_memory: Checkpointer) -> Bench:
    """Runs definitions with the store in memory."""
    return Bench(services, model, in_memory)


@pytest.fixture
def postgres_bench(services: ScriptedServices, model: ScriptedModel, in_postgres: Checkpointer) -> Bench:
    """Runs definitions with the store in PostgreSQL."""
    return Bench(services, model, in_postgres)


@pytest.fixture
def run() -> Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]:
    """Run an async function on a loop of its own, for a minute at the most."""

    async def bounded(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        async with asyncio.timeout(60):
            return await main()

    return lambda main: asyncio.run(bounded(main))
