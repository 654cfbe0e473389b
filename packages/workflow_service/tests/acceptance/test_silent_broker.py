"""A worker whose broker takes bytes and never answers: what a machine does that hangs, or is no longer there."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from production import Production, wait_until
from relay import Relay, relay

pytestmark = [pytest.mark.needs("postgres", "redis"), pytest.mark.timeout(300)]


@pytest.fixture
def between(production: Production) -> Iterator[Relay]:
    """What stands between the service and Redis."""
    parts = urlsplit(production.environment["BROKER_URL"])
    with relay(parts.hostname or "127.0.0.1", parts.port or 6379) as stand_in:
        netloc = f"127.0.0.1:{stand_in.port}"
        production.environment["BROKER_URL"] = parts._replace(netloc=netloc).geturl()
        yield stand_in


def test_a_worker_notices_a_broker_that_has_fallen_silent(
    production: Production, between: Relay, tmp_path: Path
) -> None:
    """It connects again and again, and has a pulse: it waits for its broker. When that speaks again, it works."""
    pulse = tmp_path / "pulse"
    production.environment["WORKFLOW_WORKER_PULSE"] = str(pulse)
    production.start_api()
    worker = production.start_worker("--pool", "threads")
    wait_until(pulse.exists)

    between.fall_silent()
    worker.wait_for("Cannot connect to redis")
    beat = pulse.stat().st_mtime_ns
    wait_until(lambda: pulse.stat().st_mtime_ns != beat)

    between.speak_again()
    document_id = production.upload("contract.txt", b"1. LAW\nThe laws of Delaware govern this Agreement.\n")
    run_id = production.execute("contract_analysis", {"document_id": document_id})
    assert production.wait_for_end(run_id)["status"] == "succeeded"
    assert worker.stop() == 0
