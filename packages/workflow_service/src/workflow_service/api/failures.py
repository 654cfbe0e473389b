"""The last line: an exception nobody expected becomes a 500 with a number to find it by in the log.

What a server that stops no longer waits for becomes a 503.
"""

import asyncio
import logging
import sys
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workflow_service.api.problems import ProblemResponse
from workflow_service.ports import ServiceError

_RETRY_AFTER = "1"  # seconds

_logger = logging.getLogger(__name__)


class Failures:
    """Answers unexpected exceptions; a response already begun is broken off, so that it cannot look whole.

    Cancellation: the server cancels a request only when it stops and has waited as long as it was told to. The
    request is answered with 503, or broken off, and ends; raised further, it would be logged as a fault.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Stand around ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, _in_own_words(send))
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def note_begin(message: Message) -> None:
            nonlocal has_begun
            has_begun = has_begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, note_begin)
        except asyncio.CancelledError:
            _logger.info("cut off by the shutdown: %s %s", scope["method"], scope["path"])
            if has_begun:
                return  # the server closes the connection of an answer that is not whole
            response = ProblemResponse(
                503,
                "The service is stopping",
                "It stopped before this request was done. Try again in a moment.",
                kind="unavailable",
                headers={"Retry-After": _RETRY_AFTER, "Connection": "close"},
            )
            await response(scope, receive, send)
        except Exception:
            if has_begun:
                raise  # the server logs it and closes the connection
            failure_id = uuid4()
            _logger.exception("failure %s: %s %s", failure_id, scope["method"], scope["path"])
            response = ProblemResponse(
                500,
                "The service failed",
                f"This is a fault of the service. Its log has more under {failure_id}.",
                kind="failure",
                instance=failure_id.urn,
            )
            await response(scope, receive, send)


def _in_own_words(send: Send) -> Send:
    """Let the server log an error of ours that keeps the application from starting as its message alone.

    What it says is for whoever runs the service: a setting, a schema, a role. Any other keeps its traceback.
    """

    async def send_start(message: Message) -> None:
        error = sys.exception()  # that which the router is about to raise again
        if message["type"] == "lifespan.startup.failed" and isinstance(error, ServiceError):
            message = {**message, "message": f"the API cannot start: {error}"}
        await send(message)

    return send_start
