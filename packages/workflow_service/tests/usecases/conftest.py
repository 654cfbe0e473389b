"""A workflow and a broker whose doings tests decide."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from workflow_service.domain.run import Isolation, Run
from workflow_service.ports import (
    InvalidInputError,
    QueueUnavailableError,
    Report,
    RunContext,
    StoreUnavailableError,
)
from workflow_service.usecases.execution import execute_run
from workflow_service.usecases.performing import Performer


class ScriptedWorkflow:
    """Fits the Workflow port; its body is the test's."""

    name = "scripted"
    description = "Does what the test says."
    input_schema: Mapping[str, Any] = {"type": "object"}

    def __init__(self, body: Callable[[Report], Awaitable[Any]]) -> None:
        self._body = body
        self.forgotten: list[UUID] = []
        self.can_forget = True
        self.context: RunContext | None = None

    def check(self, input_data: Mapping[str, Any]) -> None:
        if input_data.get("bad"):
            raise InvalidInputError("input_data.bad must not be set")

    async def run(self, context: RunContext) -> Any:
        self.context = context
        return await self._body(context.report)

    async def forget(self, run_id: UUID) -> None:
        if not self.can_forget:
            raise StoreUnavailableError("away")
        self.forgotten.append(run_id)


class QuietFeed:
    """Fits the RunFeed port; wakes nobody unless the test does."""

    def __init__(self) -> None:
        self.rung = asyncio.Event()

    @asynccontextmanager
    async def watch(self, _run_id: UUID) -> AsyncIterator[Callable[[float], Awaitable[bool]]]:
        async def wait(timeout: float) -> bool:
            try:
                async with asyncio.timeout(timeout):
                    await self.rung.wait()
            except TimeoutError:
                return False
            self.rung.clear()
            return True

        yield wait


class ListQueue:
    """Fits the JobQueue port; keeps what it is given, or refuses after ``capacity`` messages."""

    def __init__(self) -> None:
        self.sent: list[UUID] = []
        self.capacity = float("inf")

    async def enqueue(self, run_id: UUID) -> None:
        if len(self.sent) >= self.capacity:
            raise QueueUnavailableError("the broker is away")
        self.sent.append(run_id)


@pytest.fixture
def scripted() -> Callable[[Callable[[Report], Awaitable[Any]]], Mapping[str, ScriptedWorkflow]]:
    """Make the workflows of a process: one, called «scripted», with this body."""
    return lambda body: {"scripted": ScriptedWorkflow(body)}


@pytest.fixture
def queue() -> ListQueue:
    """A broker in a list."""
    return ListQueue()


@pytest.fixture
def execute() -> Callable[..., Awaitable[None]]:
    """Execute a run as a worker does, in the tier «none»; a test may bring a feed of its own."""

    async def run_apart(fn: Any, *args: Any, isolation: Isolation, timeout: Any, name: str) -> Any:
        assert isolation is Isolation.NONE, name
        return await fn(*args)

    async def execute(store: Any, run: Run, workflows: Any, lease: float = 60.0, feed: Any = None) -> None:
        perform = Performer(workflows, run_apart, lambda report: report, elsewhere=None)  # type: ignore[arg-type]
        await execute_run(
            run.id, runs=store, feed=feed or QuietFeed(), perform=perform, worker_id="worker", lease=lease
        )

    return execute


@pytest.fixture
def quiet_feed() -> Callable[[], QuietFeed]:
    """Make a feed that wakes a worker when the test rings."""
    return QuietFeed
