"""Measures requests, and gives each a name that log lines about it carry."""

import re
import time
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workflow_service.api.paths import METHODS, path_of
from workflow_service.api.routes import PREFIX
from workflow_service.gateways.metrics import HTTP_IN_PROGRESS, HTTP_SECONDS
from workflow_service.logs import bound

_HEADER = "x-request-id"
_SOUND = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_NO_ROUTE = "none"


class HttpMetrics:
    """Stands outermost: what it measures is what the client waits for."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand around ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(_HEADER, "")
        request_id = given if _SOUND.fullmatch(given) else uuid4().hex
        status, begun = 500, time.perf_counter()

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[_HEADER] = request_id
            await send(message)

        with bound(request_id=request_id), HTTP_IN_PROGRESS.track_inprogress():
            try:
                await self._app(scope, receive, note)
            finally:
                seconds = time.perf_counter() - begun
                HTTP_SECONDS.labels(*_labels(scope), status).observe(seconds)


def _labels(scope: Scope) -> tuple[str, str]:
    """Return method and route, each of a bounded number: whoever asks for nonsense makes no new time series."""
    route = getattr(scope.get("route"), "path", _NO_ROUTE)
    if path_of(scope).startswith(PREFIX) and route.startswith("/") and not route.startswith(PREFIX):
        route = PREFIX + route  # a router tells its routes' paths without its own prefix
    return scope["method"] if scope["method"] in METHODS else "other", route
