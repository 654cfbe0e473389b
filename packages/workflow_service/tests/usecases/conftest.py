"""A workflow and a broker whose doings tests decide."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

import pytest

from workflow_service.ports import (
    InvalidInputError,
    QueueUnavailableError,
    Report,
    RunContext,
    StoreUnavailableError,
)


class ScriptedWorkflow:
    """Fits the Workflow port; its body is the test's."""

    name = "scripted"
    description = "Does what the test says."
    input_schema: Mapping[str, Any] = {"type": "object"}

    def __init__(self, body: Callable[[Report], Awaitable[Any]]) -> None:
        self._body = body
        self.forgotten: list[UUID] = []
        self.can_forget = True

    def check(self, input_data: Mapping[str, Any]) -> None:
        if input_data.get("bad"):
            raise InvalidInputError("input_data.bad must not be set")

    async def run(self, context: RunContext) -> Any:
        return await self._body(context.report)

    async def forget(self, run_id: UUID) -> None:
        if not self.can_forget:
            raise StoreUnavailableError("away")
        self.forgotten.append(run_id)


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
