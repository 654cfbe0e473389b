"""Runs a definition as a worker does, says when its last step is under way, and waits there to be killed.

Arguments: the database's URL, the run's id, the definition's file.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

from workflow_service.domain.external import ExternalServiceResponse, ServiceDescription
from workflow_service.ports import RunContext
from workflow_service.workflows.engine.loading import load_file
from workflow_service.workflows.engine.workflow import DefinedWorkflow


class Caller:
    """Answers, but for one operation."""

    async def call(
        self, operation: str, params: Mapping[str, Any], user_id: str, cache_ttl: float | None = None
    ) -> ExternalServiceResponse:
        if operation == "hang":
            print("hanging", flush=True)
            await asyncio.Event().wait()
        return ExternalServiceResponse(True, operation)


class Services:
    """One service."""

    def describe(self) -> Collection[ServiceDescription]:
        return []

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[Caller]:
        yield Caller()


async def main(url: str, run_id: str, path: str) -> None:
    @asynccontextmanager
    async def lend(_run_id: UUID, _attempt: int | None) -> AsyncIterator[AsyncPostgresSaver]:
        async with AsyncPostgresSaver.from_conn_string(url) as saver:
            yield saver

    async def report(step: str, percent: int, description: str) -> None: ...

    workflow = DefinedWorkflow(load_file(Path(path)), Services(), None, lend)
    await workflow.run(RunContext(UUID(run_id), "alice", {}, report))


asyncio.run(main(*sys.argv[1:]))
