"""Does what one step says, once, and as often as its ``retry`` allows."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any
from uuid import UUID

import stamina

from workflow_service.domain.run import JsonObject
from workflow_service.ports import (
    ClaimLostError,
    InvalidInputError,
    LanguageModel,
    ServiceCatalog,
    StoreUnavailableError,
    WorkflowError,
)
from workflow_service.workflows.engine.definition import ModelCall, ServiceCall, Step
from workflow_service.workflows.engine.expressions import Template
from workflow_service.workflows.engine.interpreter import ExpressionError, check_size, is_truth
from workflow_service.workflows.engine.outcome import Outcome, StepStatus
from workflow_service.workflows.engine.source import Json

Names = Mapping[str, Json]
"""What expressions read: ``input``, ``constants`` and ``steps``."""

_logger = logging.getLogger(__name__)


class StepFailedError(Exception):
    """A step has failed; the message says why, in words for the user."""


@dataclass(frozen=True, slots=True)
class Asking:
    """What steps ask, and for whom. ``model`` is None where none is configured."""

    services: ServiceCatalog
    model: LanguageModel | None
    user_id: str
    run_id: UUID

    async def outcome(self, step: Step, names: Names, run: str) -> Outcome:
        """
        Do a step and return how it ended; ``run`` names the run in the log.

        Raises:
            StepFailedError: It failed, and its failure ends the run; the cause says what it was.
            StoreUnavailableError, ClaimLostError: The run cannot go on here; that is no failure of the step.

        Cancellation: closes what the step has opened.
        """
        try:
            if step.when is not None and not is_truth(await _render(step.when, names)):
                return Outcome(StepStatus.SKIPPED)
            return await self._done(step, names)
        except (StoreUnavailableError, ClaimLostError):
            raise
        except (StepFailedError, ExpressionError, InvalidInputError, WorkflowError) as error:
            return await self._failed(step, names, str(error), error)
        except Exception as error:
            # What it says is for the log: it may name hosts or keys.
            _logger.exception("%s: step %r failed", run, step.name)
            reason = f"it failed unexpectedly ({type(error).__name__}); look for {run} in the worker's log"
            return await self._failed(step, names, reason, error)

    async def _failed(self, step: Step, names: Names, reason: str, error: Exception) -> Outcome:
        if step.is_fatal:
            raise StepFailedError(f"the step {step.name!r} failed: {reason}") from error
        try:
            return Outcome(StepStatus.FAILED, data=await _render(step.default, names), error=reason)
        except ExpressionError as wrong:
            message = f"the step {step.name!r} failed: {reason}; and its default: {wrong}"
            raise StepFailedError(message) from wrong

    async def _done(self, step: Step, names: Names) -> Outcome:
        match step.body:
            case ServiceCall() as call:
                params = {
                    name: value for name, value in (await _render(call.params, names)).items() if value is not None
                }
                return await _tried(step, partial(self._call, call, params))
            case ModelCall() as call:
                prompt = _text("prompt", await _render(call.prompt, names))
                system = None if call.system is None else _text("system", await _render(call.system, names))
                return await _tried(step, partial(self._complete, prompt, system, call.schema))
            case transform:
                return Outcome(StepStatus.SUCCEEDED, data=await _render(transform.value, names))

    async def _call(self, call: ServiceCall, params: JsonObject) -> Outcome:
        async with self.services.open(call.service) as caller:
            answer = await caller.call(call.operation, params, self.user_id, call.cache_ttl)
        if not answer.success:
            raise StepFailedError(answer.error or f"{call.service} refused {call.operation} without a reason")
        return Outcome(
            StepStatus.SUCCEEDED,
            data=_json(answer.data, call.service),
            cached=answer.cached,
            metadata=_json(answer.metadata, call.service),
        )

    async def _complete(self, prompt: str, system: str | None, schema: JsonObject | None) -> Outcome:
        if self.model is None:
            raise InvalidInputError("no language model is configured; set WORKFLOW_MODEL")
        answer = await self.model.complete(
            prompt, user_id=self.user_id, run_id=self.run_id, system=system, schema=schema
        )
        data = answer.text if schema is None else answer.data
        return Outcome(
            StepStatus.SUCCEEDED, data=_json(data, "the model"), metadata={"usage": asdict(answer.usage)}
        )


async def _render(template: Template, names: Names) -> Json:
    # On a thread: what an expression takes depends on the data, and other runs share the loop.
    return await asyncio.to_thread(template.value, names)


async def _tried(step: Step, ask: Callable[[], Awaitable[Outcome]]) -> Outcome:
    """Ask until it succeeds, within the step's bounds of time and attempts; raise what the last attempt did."""
    retry = step.retry
    attempts = stamina.retry_context(
        on=_may_succeed_later,
        attempts=retry.attempts,
        timeout=None,
        wait_initial=retry.wait,
        wait_max=retry.max_wait,
        wait_jitter=min(1.0, retry.wait),
    )
    async for attempt in attempts:
        with attempt:
            return await _in_time(step.timeout, ask)
    raise AssertionError("unreachable: the last attempt raises")


async def _in_time(seconds: float, ask: Callable[[], Awaitable[Outcome]]) -> Outcome:
    bound = asyncio.timeout(seconds)
    try:
        async with bound:
            return await ask()
    except TimeoutError:
        if bound.expired():
            raise StepFailedError(f"it took longer than {seconds:g} s") from None
        raise


def _may_succeed_later(error: BaseException) -> bool:
    # stamina asks about a cancellation, too, whatever it says of the type: that must pass.
    return isinstance(error, Exception) and not isinstance(
        error, InvalidInputError | StoreUnavailableError | ClaimLostError
    )


def _text(what: str, value: Json) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise StepFailedError(f"the {what} must come out as a text that is not empty, is {json.dumps(value)[:80]}")


def _json(value: Any, source: str) -> Json:  # Any: what a plug-in answered
    """Return a value as it will be read back, so that a run that is resumed sees what an undisturbed one sees."""
    try:
        text = json.dumps(value, allow_nan=False)
        read = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise StepFailedError(f"{source} answered what is no JSON: {error}") from None
    check_size(read)
    return _storable(read) if "\\u0000" in text or "\\ud" in text else read


def _storable(value: Json) -> Json:
    """Return a value with U+FFFD in place of what no database keeps: NUL, and halves of characters."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return [_storable(item) for item in value] if isinstance(value, list) else value
