"""Shorthands for runs in the database."""

import socket
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest


@pytest.fixture
def expire() -> Callable[[Any, UUID], Awaitable[None]]:
    """Let a run's lease be over, without waiting for it."""

    async def end_lease(pool: Any, run_id: UUID) -> None:
        await pool.execute(
            "UPDATE workflow.runs SET lease_until = clock_timestamp() - interval '1 second' WHERE id = $1", run_id
        )

    return end_lease


@pytest.fixture
def unused_tcp_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
