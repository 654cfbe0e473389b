"""The last line: an exception nobody expected becomes a 500 with a number to find it by in the log."""

import logging
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workflow_service.api.problems import ProblemResponse

_logger = logging.getLogger(__name__)


class Failures:
    """Answers unexpected exceptions; a response already begun is broken off, so that it cannot look whole."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand around ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
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
