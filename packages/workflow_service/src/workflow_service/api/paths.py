"""Which path of the application a request is for, and the methods it may have."""

from starlette.types import Scope

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
"""Those that a route may have."""


def path_of(scope: Scope) -> str:
    """Return the path as the routes know it: without ``root_path``, which uvicorn puts before it.

    Whoever decides anything by a path asks here, so that all decide by the one that is routed by.
    """
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
