"""Headers that tell browsers and caches what they may do with an answer."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workflow_service.api.paths import path_of

_FOR_ALL = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_ANSWERS_ABOUT_USERS = ("/api/", "/health/")


class SecurityHeaders:
    """Adds the headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand around ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_FOR_ALL)
                # The page itself may be kept, but must be asked for: a new release brings new files.
                headers["Cache-Control"] = (
                    "no-store" if path_of(scope).startswith(_ANSWERS_ABOUT_USERS) else "no-cache"
                )
            await send(message)

        await self._app(scope, receive, send_with_headers)
