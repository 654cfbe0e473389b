"""A body of JSON, read strictly: what it is not is said in words, and no key is lost without a word."""

import json
import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

_JSON = re.compile(r"application/(?:[\w.+-]+\+)?json\s*(?:;|$)", re.IGNORECASE | re.ASCII)
_HOW = "Send JSON, and say so: curl -H 'Content-Type: application/json' -d '{…}'"
_SHOWN = 100  # characters of what the client sent


class JsonRoute(APIRoute):
    """A route whose body, where it takes one, is JSON: see `JsonRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, given requests that read strictly."""
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            return await handle(JsonRequest(request.scope, request.receive))

        return handle_json


class JsonRequest(Request):
    """A request whose body is JSON, or refused with what is wrong with it before its shape is looked at."""

    async def body(self) -> bytes:
        """Return the body. Raises HTTPException, 415, when there is one that is not said to be JSON."""
        content = await super().body()
        said = self.headers.get("content-type", "")
        if content and not _JSON.match(said):
            what = f"is said to be {said[:_SHOWN]!r}" if said else "has no Content-Type"
            raise HTTPException(415, f"The body {what}. {_HOW}")
        return content

    async def json(self) -> Any:  # Any: parsed JSON
        """Return what the body says. Raises HTTPException, 400, when it is no JSON, or says one thing twice.

        NaN and infinities, which Python's parser takes, are left to those who know their place in the request.
        """
        content = await self.body()
        try:
            return json.loads(content, object_pairs_hook=_object)
        except json.JSONDecodeError as error:
            reason = f"The body is no JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        except UnicodeDecodeError as error:
            reason = f"The body is not {error.encoding.upper()}: byte {error.start} begins no character."
        except RecursionError:
            reason = "The body is nested too deeply to be read."
        except ValueError as error:  # what json has no error of its own for
            is_repeated = isinstance(error, _RepeatedKeyError)
            reason = str(error) if is_repeated else "The body has a number of too many digits."
        raise HTTPException(400, reason)


class _RepeatedKeyError(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(f"The body has the key {key[:_SHOWN]!r} twice in one object; send it once.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _RepeatedKeyError(key)
        found[key] = value
    return found
