"""Fits the LanguageModel port: asks the configured model, makes answers fit a schema, and accounts for them."""

import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jsonschema import Draft202012Validator
from referencing.jsonschema import EMPTY_REGISTRY

from workflow_service.domain.language_model import ModelAnswer, ModelUsage
from workflow_service.domain.run import JsonObject
from workflow_service.gateways.chat_client import (
    METHODS,
    ChatClient,
    FormatRefusedError,
    Method,
    ModelChoice,
    cut_message,
)
from workflow_service.ports import WorkflowError

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage, BaseMessage

Account = Callable[[str, UUID | None, ModelUsage], Awaitable[None]]
"""``await account(user_id, run_id, usage)``: keeps what a call took; called after each, before it is judged."""

_REPAIRS = 2  # further calls for an answer that does not fit its schema
_MOST_FAULTS = 5  # of an answer, told to the model and to the user


class ChatLanguageModel:
    """A chat model of any provider that LangChain knows.

    Args:
        choice: Which model, and how it is asked.
        clients: Lends the running loop's client.
        account: Keeps what each call took.
    """

    def __init__(
        self,
        choice: ModelChoice,
        clients: Callable[[], AbstractAsyncContextManager[ChatClient]],
        account: Account,
    ) -> None:
        self._choice = choice
        self._clients = clients
        self._account = account
        # The first is known to work, once one does.
        self._methods: tuple[Method, ...] = METHODS if choice.method is None else (choice.method,)

    @property
    def name(self) -> str:
        """The model as it was configured: ``provider:model``."""
        return self._choice.name

    async def complete(
        self,
        prompt: str,
        *,
        user_id: str,
        run_id: UUID | None = None,
        system: str | None = None,
        schema: JsonObject | None = None,
    ) -> ModelAnswer:
        """Return the model's answer; with ``schema`` (JSON Schema of an object) one that fits it, as ``data``.

        An answer that does not fit is sent back with its faults, twice at most.

        Raises:
            WorkflowError: The model refused, was cut short, cannot be set up, or gave no answer that fits.
            ModelUnavailableError: The provider did not answer after the retries; another attempt may.
            StoreUnavailableError: What a call took could not be kept. The call was made.

        Cancellation: ends the call to the provider; what it had begun to answer may be charged and is not kept.
        """
        from langchain_core.messages import HumanMessage, SystemMessage

        messages: list[BaseMessage] = [HumanMessage(prompt)]
        if system is not None:
            messages.insert(0, SystemMessage(system))
        bill = _Bill(self._choice, self._account, user_id, run_id)
        async with self._clients() as client:
            if schema is not None:
                return await self._fitting(client, messages, schema, bill)
            answer = await client.ask(messages)
            await bill.add(answer)
            _refuse_what_is_no_answer(answer, self._choice)
            return ModelAnswer(str(answer.text), None, bill.total)

    async def _fitting(
        self, client: ChatClient, messages: "list[BaseMessage]", schema: JsonObject, bill: "_Bill"
    ) -> ModelAnswer:
        from langchain_core.messages import AIMessage, HumanMessage

        # A registry of our own: without one jsonschema fetches what a $ref names, from any address.
        validator = Draft202012Validator(schema, registry=EMPTY_REGISTRY)
        messages = [*messages, HumanMessage(_schema_words(schema))]
        faults: list[str] = []
        for _ in range(1 + _REPAIRS):
            answer, data = await self._json(client, messages, schema)
            await bill.add(answer)
            _refuse_what_is_no_answer(answer, self._choice)
            faults = _faults(validator, data)
            if not faults:
                return ModelAnswer(str(answer.text), data, bill.total)
            said = str(answer.text) or str(data)
            # Not the message itself: a tool call in it would ask for the tool's result first.
            messages = [*messages, AIMessage(said), HumanMessage(_repair_words(faults))]
        raise WorkflowError(
            f"the language model {self._choice.name} gave no answer that fits after {1 + _REPAIRS} calls: "
            + "; ".join(faults)
        )

    async def _json(
        self, client: ChatClient, messages: "list[BaseMessage]", schema: JsonObject
    ) -> "tuple[AIMessage, Any]":
        """Ask by the best method that the provider takes, which is remembered."""
        refusals: list[str] = []
        for method in self._methods:
            try:
                found = await client.ask_for_json(messages, schema, method)
            except FormatRefusedError as refusal:
                refusals.append(f"{method}: {refusal}")
            else:
                self._remember(method)
                return found
        raise WorkflowError(
            f"the language model {self._choice.name} takes no request for structured output "
            f"({'; '.join(refusals)}); choose another model"
        )

    def _remember(self, method: Method) -> None:
        self._methods = (method, *(other for other in self._methods if other != method))


class _Bill:
    """What the calls for one answer took."""

    def __init__(self, choice: ModelChoice, account: Account, user_id: str, run_id: UUID | None) -> None:
        self._choice = choice
        self._account = account
        self._whose = user_id, run_id
        self._total: ModelUsage | None = None

    @property
    def total(self) -> ModelUsage:
        assert self._total is not None
        return self._total

    async def add(self, answer: "AIMessage") -> None:
        """Keep what a call took; nothing is charged where a provider does not count its tokens."""
        used = answer.usage_metadata
        tokens = (used["input_tokens"], used["output_tokens"]) if used else (0, 0)
        cost = self._choice.prices.cost(*tokens) if self._choice.prices else None
        usage = ModelUsage(self._choice.name, *tokens, cost)
        self._total = usage if self._total is None else self._total.plus(usage)
        await self._account(*self._whose, usage)


def _refuse_what_is_no_answer(answer: "AIMessage", choice: ModelChoice) -> None:
    refusal = answer.additional_kwargs.get("refusal")
    if refusal:
        raise WorkflowError(f"the language model {choice.name} refused to answer: {str(refusal)[:300]}")
    reason = answer.response_metadata.get("finish_reason") or answer.response_metadata.get("stop_reason")
    if reason in ("length", "max_tokens"):
        raise WorkflowError(cut_message(choice))
    if reason == "content_filter":
        raise WorkflowError(f"the provider of {choice.name} held the answer back by its content filter")


def _schema_words(schema: JsonObject) -> str:
    # Said in words too: JSON mode knows no schema, and it helps models that are given one.
    return f"Answer with one JSON object that fits this JSON Schema, and with nothing else:\n{_compact(schema)}"


def _repair_words(faults: list[str]) -> str:
    listed = "\n".join(f"- {fault}" for fault in faults)
    return f"That does not fit the JSON Schema:\n{listed}\nAnswer again with the whole corrected JSON object."


def _compact(schema: JsonObject) -> str:
    return json.dumps(schema, separators=(",", ":"), ensure_ascii=False)


def _faults(validator: Draft202012Validator, data: Any) -> list[str]:  # Any: JSON, not yet checked
    if not isinstance(data, dict):
        return ["the answer is no JSON object"]
    errors = sorted(validator.iter_errors(data), key=lambda error: error.json_path)
    return [f"{error.json_path}: {error.message[:200]}" for error in errors[:_MOST_FAULTS]]
