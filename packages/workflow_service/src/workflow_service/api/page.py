"""The page for people: the files of ``api/static``, served at the root."""

from pathlib import Path

from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from workflow_service.api.paths import path_of

_INTERFACE = ("/api/", "/health/")


class PageMount(Mount):
    """Serves the page's files, and leaves the interface's paths alone.

    A plain mount at the root would take every path that no route takes with this method, and answer 404
    where the router knows better: 405 and what is allowed.
    """

    def __init__(self) -> None:
        """Serve the files that ship with the service."""
        super().__init__("/", app=StaticFiles(directory=Path(__file__).parent / "static", html=True), name="page")

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return no match for paths of the interface, and a partial one for methods that files do not have."""
        if path_of(scope).startswith(_INTERFACE):
            return Match.NONE, {}
        match, child_scope = super().matches(scope)
        if match is Match.FULL and scope.get("method") not in ("GET", "HEAD"):
            match = Match.PARTIAL
        return match, child_scope
