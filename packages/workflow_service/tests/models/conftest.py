"""A model server, and models that ask it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from workflow_service.domain.language_model import ModelPrices, ModelUsage
from workflow_service.gateways.chat_client import ChatClient, ModelChoice, open_chat_client, rate_limiter
from workflow_service.gateways.language_model import ChatLanguageModel
from workflow_service.testing.model_server import ModelServer, running_model_server

KEY = "sk-a-key-that-nobody-may-see"


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """A model server that takes one key only."""
    with running_model_server(ModelServer(key=KEY)) as running:
        yield running


@pytest.fixture
def choice(server: ModelServer) -> ModelChoice:
    """The server's model, with waits that are short and prices that are easy to count with."""
    return ModelChoice(
        "openai:reader",
        key=KEY,
        base_url=server.url,
        timeout=10,
        attempts=3,
        first_wait=0.01,
        prices=ModelPrices(input=1.0, output=10.0),
    )


class Ledger:
    """Writes down what calls took."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, UUID | None, ModelUsage]] = []

    async def __call__(self, user_id: str, run_id: UUID | None, usage: ModelUsage) -> None:
        self.entries.append((user_id, run_id, usage))


@pytest.fixture
def ledger() -> Ledger:
    """An empty ledger."""
    return Ledger()


@pytest.fixture
def ask(choice: ModelChoice, ledger: Ledger) -> Callable[..., Any]:
    """Run ``scenario(model)`` on a loop of its own, with a model of this choice but for ``changes``."""

    def run(scenario: Callable[[ChatLanguageModel], Awaitable[Any]], **changes: Any) -> Any:
        chosen = replace(choice, **changes)

        async def main() -> Any:
            async with asyncio.timeout(60), open_chat_client(chosen, rate_limiter(chosen)) as client:
                return await scenario(ChatLanguageModel(chosen, partial(_lent, client), ledger))

        return asyncio.run(main())

    return run


class _Lent(AbstractAsyncContextManager[ChatClient]):
    def __init__(self, client: ChatClient) -> None:
        self._client = client

    async def __aenter__(self) -> ChatClient:
        return self._client

    async def __aexit__(self, *_error: object) -> None:
        pass


def _lent(client: ChatClient) -> _Lent:
    return _Lent(client)
