"""Seed 002's acceptance in miniature: on every pool of Celery, a fresh worker, concurrent jobs, jobs in a row."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from celery import Celery

from workflow_service.testing.providers import Fault, ProviderServer

PROGRAMS = Path(__file__).parent / "programs"
WHOLE = os.environ.get("CELERY_POOLS") == "all"
POOLS = ("prefork", "threads", "gevent", "eventlet", "asyncio") if WHOLE else ("eventlet", "asyncio")
"""In the quick selection the seed's own pool and ours."""
STARTS = 2 if WHOLE else 1
BOUND = 60.0  # seconds for a result
LOOP_ERRORS = (
    "Event loop is closed",
    "another loop is running",
    "loop is already running",
    "different loop",
    "Task was destroyed",
    "never retrieved",
    "was never awaited",
    "Unclosed",
    "Traceback",
)


@contextmanager
def worker(pool: str, environment: dict[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a worker; afterwards it has ended by a warm shutdown."""
    command = [sys.executable, "-m", "celery", "--app", "service_tasks", "worker", "--loglevel", "INFO"]
    name = "custom" if pool == "asyncio" else pool
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--pool", name, "--concurrency", "2" if pool == "prefork" else "10", "--without-mingle"],
            cwd=PROGRAMS,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(BOUND) == 0, log.read_text()[-3000:]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.needs("redis")
@pytest.mark.parametrize("pool", POOLS)
def test_jobs_that_ask_services(pool: str, redis_url: str, providers: ProviderServer, tmp_path: Path) -> None:
    """The first job after a restart, 3 at once, 10 in a row: all succeed, the log is clean, no socket is left."""
    queue = f"services-{uuid.uuid4().hex}"
    port = urlsplit(providers.address).port
    environment = {
        **os.environ,
        **providers.environment,
        # A name: its address is looked up on the loop of the worker.
        "WORKFLOW_SERVICES__GOOGLE_PLACES__BASE_URL": f"http://localhost:{port}/google/v1",
        "WORKFLOW_PRIVATE_HOSTS": '["127.0.0.1", "localhost"]',
        "WORKFLOW_SERVICES__GOOGLE_PLACES__RATE_LIMIT": "1000",
        "BROKER_URL": redis_url,
        "QUEUE": queue,
        "CELERY_CUSTOM_WORKER_POOL": "homeloop.adapters.celery.pool:TaskPool",
        "PYTHONWARNINGS": "default::ResourceWarning",
    }
    sender = Celery("sender", broker=redis_url, backend=redis_url, set_as_current=False)
    cities = ["Berlin", "London", "Tokyo", "Miami", "Nairobi"]

    def send(number: int) -> Any:
        city = cities[number % len(cities)]
        return sender.send_task("emergency_contacts", (city, "alice"), queue=queue)

    log = tmp_path / "worker.log"
    try:
        for start in range(STARTS):
            providers.script.faults = [Fault("weatherapi.current", status=503), Fault(code=9999)]
            with worker(pool, environment, log) as process:
                first = send(0).get(timeout=BOUND)
                assert first == {
                    "degrees": 3.5,
                    "hospitals": ["+49 30 23125 002", "+49 30 23125 001"],
                    "errors": [],
                }
                at_once = [send(number) for number in range(3)]
                assert [job.get(timeout=BOUND)["errors"] for job in at_once] == [[], [], []]
                if start == STARTS - 1:
                    for number in range(10):
                        assert len(send(number).get(timeout=BOUND)["hospitals"]) == 2
                    wait_for_sockets(process.pid, port)
            output = log.read_text()
            assert not [words for words in LOOP_ERRORS if words in output], output[-5000:]
            assert "test-key" not in output
    finally:
        with sender.connection_for_write() as connection:
            connection.default_channel.queue_delete(queue)
        sender.close()


def wait_for_sockets(pid: int, port: int | None) -> None:
    """Wait until neither the worker nor its children have a connection to the providers."""
    deadline = time.monotonic() + BOUND
    while True:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        left = [
            each
            for process in processes
            for each in process.net_connections("tcp")
            if each.raddr and each.raddr.port == port and each.status == psutil.CONN_ESTABLISHED
        ]
        if not left:
            return
        assert time.monotonic() < deadline, left
        time.sleep(0.02)
