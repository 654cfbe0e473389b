"""A service in production's shape, on a database and a broker of the test's own."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from production import Production
from production import production as serve_production


@pytest.fixture
def production(tmp_path: Path, empty_database: str, redis_url: str) -> Iterator[Production]:
    """PostgreSQL and Redis, and no process yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with serve_production(tmp_path, empty_database, redis_url, port) as service:
        yield service
