"""The client: an event stream that breaks is followed on, and a refusal is told in the API's words."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from workflow_service.cli.client import ApiError, ServiceClient

HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

Answer = Callable[[str], str]


def chunk(text: str) -> str:
    return f"{len(text.encode()):x}\r\n{text}\r\n"


def event(seq: int, kind: str) -> str:
    return f"event: {kind}\nid: {seq}\ndata: {json.dumps({'seq': seq, 'kind': kind, 'data': {}})}\n\n"


def served(answer: Answer, use: Callable[[ServiceClient], Coroutine[Any, Any, Any]]) -> Any:
    """Run ``use`` against a server that answers each request with ``answer(request)`` and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.write(answer(request).encode())
        writer.close()
        await writer.wait_closed()

    async def main() -> Any:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, asyncio.timeout(30), ServiceClient(f"http://127.0.0.1:{port}/", "key") as client:
            return await use(client)

    return asyncio.run(main())


async def followed(client: ServiceClient) -> list[tuple[int, str]]:
    return [(event["seq"], event["kind"]) async for event in client.follow("run")]


def test_broken_stream_is_followed_on_after_the_last_event() -> None:
    """A connection that breaks within an event costs nothing: no event is missed, none comes twice."""
    answers = [
        HEAD + chunk(event(1, "queued")) + chunk(": heartbeat\n\n") + chunk(event(2, "started")[:-5]),
        HEAD + chunk(event(2, "started") + event(3, "succeeded")) + "0\r\n\r\n",
    ]
    requests: list[str] = []

    def answer(request: str) -> str:
        requests.append(request.lower())
        return answers[len(requests) - 1]

    assert served(answer, followed) == [(1, "queued"), (2, "started"), (3, "succeeded")]
    assert "last-event-id" not in requests[0]
    assert "last-event-id: 1" in requests[1]


def test_stream_that_never_says_anything_is_an_error() -> None:
    """A server that breaks every connection is not asked for ever."""
    with pytest.raises(ApiError, match="the events of run run broke off"):
        served(lambda _: "", followed)


def test_refusal_is_told_in_the_words_of_the_problem() -> None:
    """A problem document becomes one line: request, status, title and detail."""
    problem = json.dumps({"title": "Too large", "detail": "20 MB at most"})
    head = f"HTTP/1.1 413 X\r\nContent-Type: application/problem+json\r\nContent-Length: {len(problem)}\r\n\r\n"

    with pytest.raises(ApiError) as caught:
        served(lambda _: head + problem, lambda client: client.result("7"))

    assert str(caught.value) == "GET /api/v1/runs/7/result was answered 413 Too large: 20 MB at most"


def test_refusal_without_a_problem_document_is_told_too() -> None:
    """Whatever else listens on the port, its status is what is told."""
    with pytest.raises(ApiError, match="was answered 502 Bad Gateway"):
        served(lambda _: "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nno", lambda client: client.run("7"))
