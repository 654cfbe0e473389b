"""One chat model's client on one loop: calls bounded in time, number and rate, tried again where that can help."""

import asyncio
import email.utils
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import stamina

from workflow_service.domain.language_model import ModelPrices
from workflow_service.domain.run import JsonObject
from workflow_service.ports import ModelUnavailableError, WorkflowError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.rate_limiters import BaseRateLimiter

Method = Literal["json_schema", "function_calling", "json_mode"]
"""How a provider is made to answer in a schema: by its own means, by a tool's arguments, or as any JSON."""

METHODS: tuple[Method, ...] = ("json_schema", "function_calling", "json_mode")

_LONGEST_WAIT = 60.0  # seconds; a provider that asks for more is given up, for a run's lease is not to idle
_LONGEST_QUOTE = 300  # characters of what a provider says
_RETRIED = frozenset({408, 409, 425, 429})  # and everything from 500 on
_REFUSED_FORMATS = frozenset({400, 404, 422})  # how providers answer a way of structured output they do not have
_CONNECTION_ERRORS = frozenset({"APIConnectionError", "APITimeoutError", "TransportError", "ConnectError"})
# Providers whose clients are OpenAI's. Without one of its own, LangChain gives all loops the same connections.
_OPENAI_CLIENTS = frozenset({"openai", "azure_openai", "deepseek", "xai", "openrouter"})


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which model is asked, and how; ``repr`` shows no key.

    ``timeout`` and ``first_wait`` are in seconds: for one call, and before the first call that follows a failure.
    ``options`` go to the provider's LangChain class as they are and win over the rest.
    """

    name: str  # provider:model
    key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    temperature: float | None = 0.0
    max_tokens: int = 4096
    timeout: float = 60.0
    attempts: int = 4
    first_wait: float = 0.5
    concurrency: int = 4
    requests_per_minute: float | None = None
    prices: ModelPrices | None = None
    method: Method | None = None
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


class FormatRefusedError(Exception):
    """The provider does not take structured output in the way it was asked for."""


@asynccontextmanager
async def open_chat_client(
    choice: ModelChoice, limiter: "BaseRateLimiter | None" = None
) -> AsyncGenerator["ChatClient", None]:
    """Open a client on the running loop; its connections are closed on that loop when the body ends.

    ``limiter`` bounds the rate of all clients that share it.

    Raises:
        WorkflowError: The model cannot be set up: unknown provider, missing package or key.
    """
    model, connections = await asyncio.to_thread(_set_up, choice)  # imports the provider's package: a second
    try:
        yield ChatClient(choice, model, limiter)
    finally:
        if connections is not None:
            await connections.aclose()


def rate_limiter(choice: ModelChoice) -> "BaseRateLimiter | None":
    """Return what bounds a process to the requests a minute that are chosen; None without such a bound."""
    if choice.requests_per_minute is None:
        return None
    from langchain_core.rate_limiters import InMemoryRateLimiter

    return InMemoryRateLimiter(requests_per_second=choice.requests_per_minute / 60, check_every_n_seconds=0.05)


class ChatClient:
    """Asks one model. Belongs to the loop it was opened on."""

    def __init__(self, choice: ModelChoice, model: "BaseChatModel", limiter: "BaseRateLimiter | None") -> None:
        self._choice = choice
        self._model = model
        self._limiter = limiter
        self._slots = asyncio.Semaphore(choice.concurrency)

    async def ask(self, messages: "Sequence[BaseMessage]") -> "AIMessage":
        """Return the model's answer.

        Raises:
            WorkflowError: The provider refused the request, or the key.
            ModelUnavailableError: The provider did not answer after the retries.
        """
        answer: AIMessage = await self._with_retries(self._model, messages)
        return answer

    async def ask_for_json(
        self, messages: "Sequence[BaseMessage]", schema: JsonObject, method: Method
    ) -> "tuple[AIMessage, Any]":
        """Return the model's answer and the JSON in it, None where it holds none; nothing is validated.

        Raises:
            FormatRefusedError: The provider does not take requests of this method.
            WorkflowError, ModelUnavailableError: As `ask` does.
        """
        named = {"title": "answer", "description": "The answer.", **schema}
        try:
            runnable = self._model.with_structured_output(named, method=method, include_raw=True)
        except (NotImplementedError, TypeError, ValueError) as error:
            raise FormatRefusedError(str(error)) from error
        found = await self._with_retries(runnable, messages, may_refuse_format=True)
        parsed = found["parsed"]
        return found["raw"], parsed if parsed is not None else _json_in(str(found["raw"].text))

    async def _with_retries(
        self, runnable: Any, messages: "Sequence[BaseMessage]", may_refuse_format: bool = False
    ) -> Any:  # Any: LangChain's runnables are generic in what they return, and these two differ
        try:
            async for attempt in stamina.retry_context(
                on=_when_to_try_again,
                attempts=self._choice.attempts,
                timeout=None,
                wait_initial=self._choice.first_wait,
                wait_max=_LONGEST_WAIT,
                wait_jitter=self._choice.first_wait,
            ):
                with attempt:
                    return await self._once(runnable, messages)
        except Exception as error:
            if may_refuse_format and _status(error) in _REFUSED_FORMATS and not _is_too_long(error):
                raise FormatRefusedError(self._words_of(error)) from error
            raise self._translated(error) from error
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _once(self, runnable: Any, messages: "Sequence[BaseMessage]") -> Any:
        async with self._slots:
            if self._limiter is not None:
                await self._limiter.aacquire()
            # The provider's own time-out counts from byte to byte; this one bounds the whole call.
            async with asyncio.timeout(self._choice.timeout):
                return await runnable.ainvoke(messages)

    def _translated(self, error: Exception) -> WorkflowError:
        """Return what the user is told. What a provider says about keys is not repeated: it quotes them."""
        name, status = self._choice.name, _status(error)
        if status in (401, 403):
            return WorkflowError(f"the provider of {name} refused the key; check WORKFLOW_MODEL_KEY")
        if _may_pass(error):
            why = f"status {status}" if status else _kind(error, self._choice.timeout)
            wait = _retry_after(error)
            later = f"; it asks to wait {wait:.0f} seconds" if wait and wait > _LONGEST_WAIT else ""
            return ModelUnavailableError(
                f"the language model {name} did not answer ({why}){later}; try again later"
            )
        if _is_cut(error):
            return WorkflowError(cut_message(self._choice))
        return WorkflowError(f"the language model {name} refused the request: {self._words_of(error)}")

    def _words_of(self, error: Exception) -> str:
        return _without_key(" ".join(str(error).split())[:_LONGEST_QUOTE], self._choice)


def cut_message(choice: ModelChoice) -> str:
    """Return what is said of an answer that did not fit into its bound."""
    return (
        f"the answer of {choice.name} was cut at {choice.max_tokens:,} tokens; "
        "raise WORKFLOW_MODEL_MAX_TOKENS or ask for less at a time"
    )


def _set_up(choice: ModelChoice) -> tuple["BaseChatModel", Any]:
    """Return the model, and the connections that are to be closed, which are None where its library keeps them."""
    arguments = _arguments(choice)
    try:
        connections = _own_connections(choice)
        if connections is not None:
            arguments["http_async_client"] = connections
        from langchain.chat_models import init_chat_model

        return init_chat_model(choice.name, **{**arguments, **choice.options}), connections
    except Exception as error:  # each provider's package has its own ways to say what it lacks
        words = _without_key(" ".join(str(error).split())[:_LONGEST_QUOTE], choice)
        raise WorkflowError(
            f"the language model {choice.name!r} cannot be set up ({type(error).__name__}: {words}); "
            "check WORKFLOW_MODEL, WORKFLOW_MODEL_KEY, WORKFLOW_MODEL_OPTIONS and the provider's package"
        ) from error


def _arguments(choice: ModelChoice) -> dict[str, Any]:
    wanted = {
        "temperature": choice.temperature,
        "max_tokens": choice.max_tokens,
        "timeout": choice.timeout,
        "api_key": choice.key,
        "base_url": choice.base_url,
        "max_retries": 0,  # we retry: the provider's library would hide how often and how long
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _own_connections(choice: ModelChoice) -> Any:  # Any: an AsyncClient of httpx or of its successor
    if choice.name.partition(":")[0] not in _OPENAI_CLIENTS:
        return None
    from openai import DefaultAsyncHttpxClient

    return DefaultAsyncHttpxClient(timeout=choice.timeout)


def _when_to_try_again(error: Exception) -> bool | float:
    """Tell stamina whether to try again: as soon as the provider allows, else after its own growing waits."""
    if not isinstance(error, Exception) or not _may_pass(error):  # a cancellation comes here too
        return False
    wait = _retry_after(error)
    if wait is None:
        return True
    return wait if wait <= _LONGEST_WAIT else False


def _may_pass(error: Exception) -> bool:
    status = _status(error)
    if status is not None:
        is_out_of_credit = getattr(error, "code", None) == "insufficient_quota"
        return (status in _RETRIED or status >= 500) and not is_out_of_credit
    # By name: providers bring HTTP libraries of their own.
    names = {cls.__name__ for cls in type(error).__mro__}
    return isinstance(error, OSError) or bool(names & _CONNECTION_ERRORS)  # TimeoutError is an OSError


def _kind(error: Exception, timeout: float) -> str:
    names = {cls.__name__ for cls in type(error).__mro__}
    if isinstance(error, TimeoutError) or "APITimeoutError" in names:
        return f"nothing within {timeout:g} seconds"
    return "no connection"


def _status(error: Exception) -> int | None:
    for name in ("status_code", "code"):
        status = getattr(error, name, None)
        if isinstance(status, int):
            return status
    return None


def _retry_after(error: Exception) -> float | None:
    """Return the seconds a provider asks to wait; a date is told from now."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    said = headers.get("retry-after")
    if not said:
        return None
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    except ValueError:
        return None


def _is_too_long(error: Exception) -> bool:
    return getattr(error, "code", None) == "context_length_exceeded" or "ContextOverflow" in type(error).__name__


def _is_cut(error: Exception) -> bool:
    return type(error).__name__ == "LengthFinishReasonError"


def _json_in(text: str) -> Any:  # Any: JSON, not yet checked
    """Return the JSON object in an answer, also between a model's words or in a code block; None if none is."""
    begin, end = text.find("{"), text.rfind("}")
    try:
        return json.loads(text[begin : end + 1])
    except ValueError:
        return None


def _without_key(text: str, choice: ModelChoice) -> str:
    return text.replace(choice.key, "***") if choice.key else text
