"""A database that takes connections and never answers: requests get their 503 all the same, and soon."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from relay import Relay, relay

from workflow_service import bootstrap
from workflow_service.gateways.postgres import pool
from workflow_service.settings import Settings

pytestmark = pytest.mark.needs("postgres")


@pytest.fixture
def between(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """What stands between the API and its database; the bounds are a fraction of the usual ones."""
    monkeypatch.setattr(bootstrap, "_CHECK_TIMEOUT", 0.2)
    for name in ("_ACQUIRE_TIMEOUT", "_COMMAND_TIMEOUT", "_SESSION_TIMEOUT", "_RELEASE_TIMEOUT"):
        monkeypatch.setattr(pool, name, getattr(pool, name) / 20)
    parts = urlsplit(settings.database_url)
    with relay(parts.hostname or "127.0.0.1", parts.port or 5432) as stand_in:
        netloc = f"{parts.username}:{parts.password or ''}@127.0.0.1:{stand_in.port}"
        settings.database_url = parts._replace(netloc=netloc).geturl()
        yield stand_in


def test_every_request_is_answered_while_the_database_is_silent(between, serve, wait_until):
    """Readiness names the database; reads, uploads and runs are 503; all is well when it speaks again."""
    server = serve()
    body = {"workflow_name": "idle", "input_data": {}}
    with server.client() as client:
        assert client.get("/health/ready").status_code == 200
        between.fall_silent()

        wait_until(lambda: client.get("/health/ready").status_code == 503)
        assert client.get("/health/ready").json()["checks"]["database"] is False
        assert client.get("/api/v1/runs").status_code == 503
        assert client.post("/api/v1/documents", files={"file": ("a.txt", b"text")}).status_code == 503
        assert client.post("/api/v1/workflows/execute", json=body).status_code == 503

        between.speak_again()
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        assert client.get("/api/v1/runs").status_code == 200
