"""Who asks: the user whose key or token the request carries."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from workflow_service.api.paths import path_of
from workflow_service.api.problems import ProblemResponse, unavailable
from workflow_service.logs import bound
from workflow_service.ports import StoreUnavailableError
from workflow_service.usecases.services import ApiServices

_CHALLENGE = 'Bearer realm="workflow_service"'
INVALID = f'{_CHALLENGE}, error="invalid_token"'
"""What ``WWW-Authenticate`` says of a key or token that opens nothing, or does no longer."""

_PROTECTED = ("/api/", "/health/loops", "/metrics")


class Authentication:
    """Lets a request to the interface pass only with a known key or token, before anything of its body is read."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand around ``app``; who is known, the services of its lifespan tell."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or not path_of(scope).startswith(_PROTECTED):
            await self._app(scope, receive, send)
            return
        presented = Headers(scope=scope).getlist("authorization")
        if len(presented) > 1:  # whoever stands before us may have checked the other one
            await _TWO_HEADERS(scope, receive, send)
            return
        authorization = presented[0] if presented else ""
        try:
            user_id = await _user_of(authorization, scope["state"]["services"])
        except StoreUnavailableError as error:
            await unavailable(error)(scope, receive, send)
            return
        if user_id is None:
            await _refusal(authorization)(scope, receive, send)
            return
        scope["state"]["user_id"] = user_id
        scope["state"]["is_known"] = partial(_is_still, user_id, authorization, scope["state"]["services"])
        with bound(user_id=user_id):
            await self._app(scope, receive, send)


async def _user_of(authorization: str, services: ApiServices) -> str | None:
    scheme, _, credentials = authorization.partition(" ")
    credentials = credentials.strip()
    if scheme.lower() != "bearer" or not credentials:
        return None
    return await services.identification.user_of(credentials.encode("latin-1"))  # back to the bytes that were sent


async def _is_still(user_id: str, authorization: str, services: ApiServices) -> bool:
    return await _user_of(authorization, services) == user_id


_TWO_HEADERS = ProblemResponse(400, "Bad Request", "Send one Authorization header, these are several.")


def _refusal(authorization: str) -> ProblemResponse:
    challenge = INVALID if authorization else _CHALLENGE
    return ProblemResponse(
        401,
        "Unauthorized",
        "Send a known key or token: Authorization: Bearer <key>",
        kind="unauthorized",
        headers={"WWW-Authenticate": challenge},
    )


# Here for the OpenAPI document only: Authentication has decided by now.
_bearer = HTTPBearer(auto_error=False, description="The user's API key, or a token")


async def _current_user(
    request: Request, _credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> str:
    user_id: str = request.state.user_id
    return user_id


async def _is_known(request: Request) -> Callable[[], Awaitable[bool]]:
    is_known: Callable[[], Awaitable[bool]] = request.state.is_known
    return is_known


User = Annotated[str, Depends(_current_user)]
"""The name of the user who asks."""

IsKnown = Annotated[Callable[[], Awaitable[bool]], Depends(_is_known)]
"""Asks whether what the request carried still opens the interface, for answers that take long.

Raises StoreUnavailableError: nobody knows."""
