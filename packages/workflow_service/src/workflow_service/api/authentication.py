"""Who asks: the user whose key the request carries."""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from workflow_service.api.problems import ProblemResponse

_PROTECTED = ("/api/", "/health/loops", "/metrics")


class Authentication:
    """Lets a request to the interface pass only with a known key, before anything of its body is read."""

    def __init__(self, app: ASGIApp, api_keys: Mapping[str, SecretStr]) -> None:
        """Stand around ``app``; ``api_keys`` maps user names to keys. An empty key opens nothing."""
        self._app = app
        self._digests = {
            user_id: _digest(key.get_secret_value().encode())
            for user_id, key in api_keys.items()
            if key.get_secret_value()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or not scope["path"].startswith(_PROTECTED):
            await self._app(scope, receive, send)
            return
        authorization = Headers(scope=scope).get("authorization", "")
        user_id = self._user_of(authorization)
        if user_id is None:
            await _refusal(authorization)(scope, receive, send)
            return
        scope.setdefault("state", {})["user_id"] = user_id
        await self._app(scope, receive, send)

    def _user_of(self, authorization: str) -> str | None:
        scheme, _, credentials = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        candidate = _digest(credentials.strip().encode("latin-1"))  # back to the bytes that were sent
        found = None
        # Every key is compared, each in constant time and as a digest, for compare_digest tells lengths apart:
        # how long it takes tells nothing about any key.
        for user_id, digest in self._digests.items():
            if hmac.compare_digest(candidate, digest):
                found = user_id
        return found


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _refusal(authorization: str) -> ProblemResponse:
    challenge = 'Bearer realm="workflow_service"'
    if authorization:
        challenge += ', error="invalid_token"'
    return ProblemResponse(
        401,
        "Unauthorized",
        "Send a known key: Authorization: Bearer <key>",
        kind="unauthorized",
        headers={"WWW-Authenticate": challenge},
    )


# Here for the OpenAPI document only: Authentication has decided by now.
_bearer = HTTPBearer(auto_error=False, description="The user's API key")


async def _current_user(
    request: Request, _credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> str:
    user_id: str = request.state.user_id
    return user_id


User = Annotated[str, Depends(_current_user)]
"""The name of the user who asks."""
