"""How large a request may be, counted while it comes in.

Starlette's own limiter answers in plain text when the length is announced; ours raises where the body is read, so
that the answer is a problem document like every other.
"""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_JSON_BYTES = 1024 * 1024
_MULTIPART_EXTRA = 64 * 1024  # bytes for boundaries and part headers around a file of the largest size


class BodyLimit:
    """Refuses bodies above the limit of their path with 413."""

    def __init__(self, app: ASGIApp, upload_path: str, max_upload_bytes: int) -> None:
        """Stand around ``app``; ``upload_path`` takes files, all other paths take `MAX_JSON_BYTES`."""
        self._app = app
        self._upload_path = upload_path
        self._max_upload = max_upload_bytes + _MULTIPART_EXTRA

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._max_upload if scope["path"] == self._upload_path else MAX_JSON_BYTES
        announced = Headers(scope=scope).get("content-length", "")
        is_announced_too_large = announced.isdecimal() and int(announced) > limit
        received = 0

        async def receive_up_to_limit() -> Message:
            nonlocal received
            if is_announced_too_large:
                raise _too_large(limit)
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    raise _too_large(limit)
            return message

        await self._app(scope, receive_up_to_limit, send)


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"The request has more than {limit} bytes.")
