"""How large a request may be and how long it may take, counted while it comes in.

Starlette's own limiter answers in plain text when the length is announced; ours raises where the body is read, so
that the answer is a problem document like every other.
"""

import asyncio

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workflow_service.api.paths import path_of
from workflow_service.domain.document import told_size

MAX_JSON_BYTES = 1024 * 1024
GRACE = 30.0
"""Seconds that any body may take."""
SLOWEST = 16 * 1024
"""Bytes a second that a body which takes longer must come with, on the whole."""
_MULTIPART_EXTRA = 64 * 1024  # bytes for boundaries and part headers around a file of the largest size


class BodyLimit:
    """Refuses bodies above the limit of their path with 413, and those that come too slowly with 408."""

    def __init__(self, app: ASGIApp, upload_path: str, max_upload_bytes: int) -> None:
        """Stand around ``app``; ``upload_path`` takes files, all other paths take `MAX_JSON_BYTES`."""
        self._app = app
        self._upload_path = upload_path
        self._max_upload = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if path_of(scope) == self._upload_path:
            limit = self._max_upload + _MULTIPART_EXTRA
            refusal = HTTPException(413, f"The file is too large: a file may have {told_size(self._max_upload)}.")
        else:
            limit = MAX_JSON_BYTES
            refusal = HTTPException(413, f"The body is too large: it may have {told_size(limit)}.")
        announced = Headers(scope=scope).get("content-length", "")
        is_announced_too_large = announced.isdecimal() and int(announced) > limit
        loop = asyncio.get_running_loop()
        began, received, is_whole = loop.time(), 0, False

        async def receive_up_to_limit() -> Message:
            nonlocal received, is_whole
            if is_announced_too_large:
                raise refusal
            if is_whole:  # what is waited for now is that the client goes away
                return await receive()
            try:
                async with asyncio.timeout_at(began + GRACE + received / SLOWEST):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "The request came too slowly.", {"Connection": "close"}) from None
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                is_whole = not message.get("more_body", False)
                if received > limit:
                    raise refusal
            return message

        await self._app(scope, receive_up_to_limit, send)
