"""
Clients of three services that keep a connection pool of their own from the first use on, one for the process.

Usage: python sdks.py NAME URL
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import homeloop
from homeloop import LoopLocal
from homeloop.serving import AsyncExecutor

CALLS = 200


@dataclass(frozen=True)
class Sdk:
    """How a client is made, asked for a completion, and closed. Any: each product has a class of its own."""

    make: Callable[[str], Any]
    ask: Callable[[Any, str], Awaitable[str]]
    close: Callable[[Any], Awaitable[None]]


def _make_openai(url: str) -> Any:
    import openai

    return openai.AsyncOpenAI(api_key="none", base_url=f"{url}/v1", max_retries=0)


async def _ask_openai(client: Any, text: str) -> str:
    messages = [{"role": "user", "content": text}]
    answer = await client.chat.completions.create(model="m", messages=messages)
    return str(answer.choices[0].message.content)


def _make_anthropic(url: str) -> Any:
    import anthropic

    return anthropic.AsyncAnthropic(api_key="none", base_url=url, max_retries=0)


async def _ask_anthropic(client: Any, text: str) -> str:
    messages = [{"role": "user", "content": text}]
    answer = await client.messages.create(model="m", max_tokens=9, messages=messages)
    return str(answer.content[0].text)


def _make_genai(url: str) -> Any:
    from google import genai

    return genai.Client(api_key="none", http_options={"base_url": url})


async def _ask_genai(client: Any, text: str) -> str:
    return str((await client.aio.models.generate_content(model="m", contents=text)).text)


SDKS = {
    "openai": Sdk(_make_openai, _ask_openai, lambda client: client.close()),
    "anthropic": Sdk(_make_anthropic, _ask_anthropic, lambda client: client.close()),
    "google-genai": Sdk(_make_genai, _ask_genai, lambda client: client.aio.aclose()),
}


def main(name: str, url: str) -> None:
    """Call from threads, from ``asyncio.run`` in turn, and in a batch; print how often it went well."""
    sdk = SDKS[name]
    kept = sdk.make(url)  # in a module, as everybody does
    own = LoopLocal(lambda: sdk.make(url), close=sdk.close)

    async def ask(number: int) -> bool:
        return await sdk.ask(kept, f"question {number}") == f"answer to question {number}"

    async def ask_own(number: int) -> bool:
        async with own() as client:
            return await sdk.ask(client, f"question {number}") == f"answer to question {number}"

    async def hop(number: int) -> bool:
        return await homeloop.arun(ask, number)

    with ThreadPoolExecutor(20) as pool:
        from_threads = list(pool.map(lambda number: AsyncExecutor.run_async(ask, number), range(CALLS)))
    print("threads", sum(from_threads))
    print("asyncio.run in turn", sum(asyncio.run(hop(number)) for number in range(CALLS)))
    print("a client per loop", sum(asyncio.run(ask_own(number)) for number in range(10)))
    print("batch", sum(AsyncExecutor.map_async(ask, range(CALLS), concurrency=20)))
    AsyncExecutor.run_async(sdk.close, kept)


if __name__ == "__main__":
    main(*sys.argv[1:])
