"""A language model's server, local and in the format of OpenAI's chat completions, which others copy.

Answers are computed from the prompt (`testing.reading_model`). Faults come on demand: from the program that
started it, or over HTTP with ``POST /faults`` and a `Fault` as JSON.

``python -m workflow_service.testing.model_server --port 8089``, then
``WORKFLOW_MODEL=openai:reader WORKFLOW_MODEL_KEY=any WORKFLOW_MODEL_BASE_URL=http://127.0.0.1:8089/v1``.
"""

import argparse
import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from workflow_service.testing.reading_model import reply, schema_in, tokens

Json = Any  # what a request or an answer holds: JSON has no narrower type

FaultKind = Literal[
    "rate_limit",  # 429, with Retry-After if `retry_after` is set
    "out_of_credit",  # 429 that no waiting helps against
    "server_error",  # 500
    "overloaded",  # 503
    "slow",  # the answer comes after `seconds`
    "hang_up",  # the connection is closed in the middle of the answer
    "malformed",  # 200 with half an answer
    "not_json",  # words where JSON was asked for
    "off_schema",  # JSON that lacks what the schema requires
    "refusal",  # the model will not answer
    "cut",  # the answer is cut at max_tokens
]
Format = Literal["json_schema", "function_calling", "json_mode"]
FORMATS: frozenset[Format] = frozenset({"json_schema", "function_calling", "json_mode"})

_START_TIMEOUT = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with the next ``times`` requests."""

    kind: FaultKind
    times: int = 1
    retry_after: str | None = None  # as the header holds it: seconds, or a date
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Call:
    """A request that came: what was asked, in which format, and with which key."""

    body: Mapping[str, Json]
    format: Format | None
    authorization: str | None


@dataclass(slots=True)
class ModelServer:
    """The server's state, and its ASGI application as ``app``.

    ``formats`` are the ways of structured output it takes; ``key``, if set, is the only one it takes. It adds
    ``inventions`` findings that stand nowhere to each answer that lists findings. ``calls`` is what came so far,
    refused requests included; ``at_once`` is how many it worked on at the same time, at most; ``given_up`` is set
    when a client has gone before a slow answer.
    """

    formats: frozenset[Format] = FORMATS
    key: str | None = None
    inventions: int = 0
    url: str = ""
    calls: list[Call] = field(default_factory=list)
    at_once: int = 0
    given_up: threading.Event = field(default_factory=threading.Event)
    _faults: list[Fault] = field(default_factory=list)
    _working: int = 0

    @property
    def app(self) -> Starlette:
        """The application."""
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self._complete, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/faults", self._take_fault, methods=["POST"]),
            ]
        )

    def add_fault(
        self, kind: FaultKind, times: int = 1, *, retry_after: str | None = None, seconds: float = 0.0
    ) -> None:
        """Let the next ``times`` requests that no fault waits for go wrong."""
        self._faults += [Fault(kind, 1, retry_after, seconds)] * times

    def end_faults(self) -> None:
        """Let nothing more go wrong."""
        self._faults.clear()

    async def _take_fault(self, request: Request) -> Response:
        fault = Fault(**await request.json())
        self.add_fault(fault.kind, fault.times, retry_after=fault.retry_after, seconds=fault.seconds)
        return Response(status_code=204)

    async def _models(self, _request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "reader", "object": "model", "owned_by": "local"}]})

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        call = Call(body, _format(body), request.headers.get("authorization"))
        self.calls.append(call)
        self._working += 1
        self.at_once = max(self.at_once, self._working)
        try:
            return await self._answer(request, call)
        finally:
            self._working -= 1

    async def _answer(self, request: Request, call: Call) -> Response:
        if self.key is not None and call.authorization != f"Bearer {self.key}":
            said = (call.authorization or "").removeprefix("Bearer ")
            return _error(401, f"Incorrect API key provided: {said}.", "invalid_api_key")
        fault = self._faults.pop(0) if self._faults else None
        if fault is not None and fault.kind == "slow":
            await self._dawdle(request, fault.seconds)
        failed = _failure(fault)
        if failed is not None:
            return failed
        if call.format is not None and call.format not in self.formats:
            return _error(400, f"This model does not support {call.format}.", "unsupported_value")
        schema = _schema(call)
        text = reply(call.body["messages"], schema, self.inventions)
        if fault is not None:
            text = _spoiled(fault, text)
        answer = _completion(call, text, None if fault is None else fault.kind)
        if fault is not None and fault.kind == "malformed":
            whole = json.dumps(answer)
            return Response(whole[: len(whole) // 2], media_type="application/json")
        return JSONResponse(answer)

    async def _dawdle(self, request: Request, seconds: float) -> None:
        """Wait, but not for a client that has gone."""
        try:
            async with asyncio.timeout(seconds):
                while (await request.receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            return
        self.given_up.set()


@contextmanager
def running_model_server(server: ModelServer | None = None, port: int = 0) -> Iterator[ModelServer]:
    """Serve on 127.0.0.1 from a thread of its own until the body ends; ``port`` 0 takes a free one.

    Raises:
        RuntimeError: It did not start within 10 s.
    """
    served = ModelServer() if server is None else server
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        host, bound_port = listener.getsockname()
        config = uvicorn.Config(served.app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
        runner = _Server(config)
        thread = threading.Thread(target=runner.run, args=([listener],), name="model server", daemon=True)
        thread.start()
        try:
            if not runner.has_started.wait(_START_TIMEOUT):
                raise RuntimeError(f"the model server did not start within {_START_TIMEOUT:g} seconds")
            served.url = f"http://{host}:{bound_port}/v1"
            yield served
        finally:
            runner.should_exit = True
            thread.join()


class _Server(uvicorn.Server):
    """Tells when it has started."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.has_started.set()


def _format(body: Mapping[str, Json]) -> Format | None:
    kind = body.get("response_format", {}).get("type")
    if kind == "json_schema":
        return "json_schema"
    if body.get("tools"):
        return "function_calling"
    return "json_mode" if kind == "json_object" else None


def _schema(call: Call) -> Json | None:
    match call.format:
        case "json_schema":
            return call.body["response_format"]["json_schema"]["schema"]
        case "function_calling":
            return call.body["tools"][0]["function"]["parameters"]
        case "json_mode":
            messages: Sequence[Mapping[str, Json]] = call.body["messages"]
            return schema_in(messages)
        case None:
            return None


def _failure(fault: Fault | None) -> Response | None:
    """Return the response of a fault that takes the place of an answer; None for others."""
    if fault is None:
        return None
    match fault.kind:
        case "rate_limit":
            headers = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
            return _error(429, "Rate limit reached.", "rate_limit_exceeded", headers)
        case "out_of_credit":
            return _error(429, "You exceeded your current quota.", "insufficient_quota")
        case "server_error":
            return _error(500, "The server had an error.", "server_error")
        case "overloaded":
            return _error(503, "The engine is overloaded.", "overloaded")
        case "hang_up":
            return _HangUp()
        case _:
            return None


class _HangUp(Response):
    """Promises more than it sends: the server then closes the connection."""

    def __init__(self) -> None:
        super().__init__(b"{", media_type="application/json", headers={"Content-Length": "1000"})


def _spoiled(fault: Fault, text: str) -> str:
    match fault.kind:
        case "not_json":
            return "I would rather say it in words."
        case "off_schema":
            return json.dumps({"unasked": text[:20]})
        case "cut":
            return text[: len(text) // 2]
        case _:
            return text


def _completion(call: Call, text: str, fault: FaultKind | None) -> Json:
    message: dict[str, Json] = {"role": "assistant", "content": text, "refusal": None}
    finish = "stop"
    if call.format == "function_calling":
        function = {"name": call.body["tools"][0]["function"]["name"], "arguments": text}
        message |= {"content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}
        finish = "tool_calls"
    if fault == "refusal":
        message = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
    prompt = "".join(str(each.get("content") or "") for each in call.body["messages"])
    asked, answered = tokens(prompt), tokens(text)
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": call.body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "length" if fault == "cut" else finish}],
        "usage": {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered},
    }


def _error(status: int, message: str, code: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(
        {"error": {"message": message, "type": code, "code": code, "param": None}}, status, headers=headers
    )


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8089)
    uvicorn.run(ModelServer().app, host="127.0.0.1", port=parser.parse_args().port, lifespan="off")


if __name__ == "__main__":
    main()
