"""Runs a workflow by name here and now, from sync and async code: without a queue, a worker or a row of a run."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TypeAlias
from uuid import UUID, uuid4

from workflow_service.domain.run import JsonObject
from workflow_service.ports import InvalidInputError, Report, RunContext, Workflow

Blocking: TypeAlias = Callable[[Callable[[], Awaitable[JsonObject]]], JsonObject]
"""Runs an async function on a loop that stays, and blocks until it has ended."""


class WorkflowEngine:
    """
    Runs workflows by name.

    Args:
        workflows: What can be run.
        run_blocking: Runs an async function for a caller without a loop of its own.
    """

    def __init__(self, workflows: Mapping[str, Workflow], run_blocking: Blocking) -> None:
        self._workflows = workflows
        self._run_blocking = run_blocking

    def execute(
        self,
        workflow_name: str,
        input_data: JsonObject,
        *,
        user_id: str,
        run_id: UUID | None = None,
        answers: JsonObject | None = None,
        report: Report | None = None,
        timeout: float | None = None,
    ) -> JsonObject:
        """
        Run a workflow to its end and return its result, from code that is not async: a Celery task, a script.

        Args and what it raises are those of `aexecute`.

        Thread: any without a running loop.
        Cancellation: an exception raised in the waiting thread (Ctrl-C, a soft time limit) cancels the workflow
            and is raised once its clean-up has run.
        """
        return self._run_blocking(
            partial(
                self.aexecute,
                workflow_name,
                input_data,
                user_id=user_id,
                run_id=run_id,
                answers=answers,
                report=report,
                timeout=timeout,
            )
        )

    async def aexecute(
        self,
        workflow_name: str,
        input_data: JsonObject,
        *,
        user_id: str,
        run_id: UUID | None = None,
        answers: JsonObject | None = None,
        report: Report | None = None,
        timeout: float | None = None,
    ) -> JsonObject:
        """
        Run a workflow to its end on the running loop and return its result.

        Args:
            workflow_name: Which.
            input_data: Its input.
            user_id: For whom: services, documents and caches are this user's.
            run_id: With one, what was kept under it is not done again, and what is kept stays, so that a call
                after a failure goes on; `forget` removes it. Without, nothing is kept beyond the call.
            answers: All that were given to questions of the run so far, by the question's id.
            report: ``await report(step, percent, description)`` is called after each step.
            timeout: Seconds it may take; None for ever.

        Raises:
            InvalidInputError: No such workflow, or it cannot take this input. Nothing was done.
            TimeoutError: It took longer, and was cancelled.
            WorkflowError: It cannot do its work; the message says why.
            WaitingError: It asks a person; a call with the same ``run_id`` and the answers goes on.
            StoreUnavailableError, ModelUnavailableError: What it needs did not answer; another attempt may do.

        Cancellation: cancels the workflow, waits for its clean-up, then is raised.
        """
        workflow = self._workflow(workflow_name)
        workflow.check(input_data)
        context = RunContext(run_id or uuid4(), user_id, input_data, report or _say_nothing, answers=answers or {})
        try:
            async with asyncio.timeout(timeout):
                return await workflow.run(context)
        finally:
            if run_id is None:
                await workflow.forget(context.run_id)

    async def forget(self, workflow_name: str, run_id: UUID) -> None:
        """Remove what is kept under a run id. Raises InvalidInputError for a workflow that there is not."""
        await self._workflow(workflow_name).forget(run_id)

    def _workflow(self, name: str) -> Workflow:
        workflow = self._workflows.get(name)
        if workflow is None:
            known = ", ".join(sorted(self._workflows)) or "none"
            raise InvalidInputError(f"there is no workflow {name!r}; known: {known}")
        return workflow


async def _say_nothing(_step: str, _percent: int, _description: str) -> None:
    """Take a step's report and do nothing with it."""
