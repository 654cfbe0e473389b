"""Perform a run's workflow in the tier that the run's options name."""

import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from uuid import UUID

from workflow_service.domain.run import CancelMode, Isolation, JsonObject, Run, RunOptions
from workflow_service.ports import (
    ClaimLostError,
    Drain,
    Performance,
    ProcessLostError,
    Report,
    RunContext,
    RunStore,
    Workflow,
    WorkflowError,
)

T = TypeVar("T")

_PROCESS = "\0process"  # the first report from a process of its own: not a step, but which process it is


class RunApart(Protocol):
    """Runs an async function in a tier."""

    async def __call__(
        self,
        fn: Callable[..., Awaitable[T]],
        *args: Any,  # Any: the function's own
        isolation: Isolation,
        timeout: float | None,
        name: str,
        on_progress: Callable[..., Awaitable[None]] | None = None,
    ) -> T:
        """Return what ``fn(*args)`` returns; raises as `Performance.run` and what ``fn`` raises."""
        ...


@dataclass(frozen=True, slots=True)
class Performer:
    """Fits the Perform port.

    Args:
        workflows: What can be run in this process.
        run_apart: Runs a function in a tier.
        report_through: Makes a callback of the running loop callable from any loop.
        elsewhere: The function that a process of its own runs: `perform_elsewhere` with that process's workflows.
    """

    workflows: Mapping[str, Workflow]
    run_apart: RunApart
    report_through: Callable[[Report], Report]
    elsewhere: Callable[..., Awaitable[JsonObject]]

    def __call__(self, run: Run, report: Report) -> Performance:
        """Prepare an attempt at ``run``. Nothing begins before it is awaited."""
        return _Attempt(self, run, report)


class _Attempt:
    """Fits the Performance port."""

    def __init__(self, performer: Performer, run: Run, report: Report) -> None:
        self._performer = performer
        self._run = run
        self._report = report
        self._drain = Drain()
        self._process: int | None = None
        self._lost: ClaimLostError | None = None

    async def run(self) -> JsonObject:
        run, options = self._run, RunOptions.of(self._run.options)
        try:
            return await self._work(run, options)
        except ProcessLostError:
            if self._lost is not None:  # the process was killed for that
                raise self._lost from None
            raise
        finally:
            self._process = None

    async def _work(self, run: Run, options: RunOptions) -> JsonObject:
        run_apart, name = self._performer.run_apart, f"run {run.id}"
        hear = self._performer.report_through(self._hear)
        if options.isolation is Isolation.PROCESS:
            elsewhere = self._performer.elsewhere
            asked = (run.id, run.attempt, run.user_id, run.workflow_name, dict(run.input_data))
            return await run_apart(
                elsewhere,
                *asked,
                isolation=options.isolation,
                timeout=options.timeout,
                name=name,
                on_progress=hear,
            )
        workflow = find_workflow(run.workflow_name, self._performer.workflows)

        async def report(step: str, percent: int, description: str) -> None:
            await hear(step, percent, description)
            if self._lost is not None:
                raise self._lost

        context = RunContext(run.id, run.user_id, run.input_data, report, self._drain, run.attempt)
        result = await run_apart(
            _run_until_lost, workflow, context, isolation=options.isolation, timeout=options.timeout, name=name
        )
        if isinstance(result, ClaimLostError):
            raise result
        return result

    def drain(self) -> None:
        self._drain.request()

    def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):  # it has ended by itself, and this loop was not told yet
                os.kill(self._process, signal.SIGKILL)

    async def _hear(self, step: str, percent: int, description: str) -> None:
        """Record a step; the first report of another process says which one it is.

        The loss of the claim is kept for who reported, or ends the process of its own. Raised from here it would
        be told as the failure of a callback, and it is none: it is how an attempt ends that came too late.
        """
        if step == _PROCESS:
            self._process = percent
            return
        try:
            await self._report(step, percent, description)
        except ClaimLostError as lost:
            self._lost = lost
            self.kill()


async def _run_until_lost(workflow: Workflow, context: RunContext) -> JsonObject | ClaimLostError:
    """Return a lost claim instead of raising it.

    A run that is cancelled because its claim is lost often finds that out by itself while it cleans up. Raised,
    that would be told as the failure of a clean-up.
    """
    try:
        return await workflow.run(context)
    except ClaimLostError as lost:
        return lost


async def perform_elsewhere(
    run_id: UUID,
    attempt: int,
    user_id: str,
    workflow_name: str,
    input_data: JsonObject,
    report: Report,
    *,
    workflows: Mapping[str, Workflow],
    runs: RunStore,
) -> JsonObject:
    """Run a workflow in the running process, for an attempt in another one that hears what is reported.

    Whether the run is to drain is asked of the database after each step: no word comes from the other process.

    Raises:
        WorkflowError: There is no such workflow.
        Exception: What the workflow raises.
    """
    drain = Drain()

    async def tell(step: str, percent: int, description: str) -> None:
        await report(step, percent, description)
        run = await runs.get(user_id, run_id)
        if run is not None and run.cancel_mode is CancelMode.DRAIN:
            drain.request()

    await report(_PROCESS, os.getpid(), "")
    workflow = find_workflow(workflow_name, workflows)
    return await workflow.run(RunContext(run_id, user_id, input_data, tell, drain, attempt))


def find_workflow(name: str, workflows: Mapping[str, Workflow]) -> Workflow:
    """Return the workflow of this name. Raises WorkflowError."""
    workflow = workflows.get(name)
    if workflow is None:
        raise WorkflowError(
            f"this worker has no workflow {name!r}; is it older than the API, or without its WORKFLOW_DEFINITIONS?"
        )
    return workflow
