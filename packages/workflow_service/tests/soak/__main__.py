"""
Use the service for a long time as people do, restart its parts meanwhile, and look for what should not be.

Runs of all workflows are kept in flight by several clients; some are cancelled. Workers are stopped and killed, an
API process is killed, the embedded service is restarted as a whole. Each run must end as it should, exactly once.
Memory, descriptors, sockets and connections are sampled once a second, and the logs searched for what asyncio says
when loops are mixed up, and for tracebacks.

Two installations, one after the other, with half of the time each: PostgreSQL and Redis (TEST_DATABASE_URL,
TEST_REDIS_URL, or the standard local ports), and ``workflow-service up`` with nothing but itself.

Usage: python packages/workflow_service/tests/soak [--seconds S] [--on servers embedded] [--write FOLDER]
"""

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import asyncpg

sys.path.insert(0, str(Path(__file__).parents[1]))  # for production.py and installation.py, which tests share

from installations import Embedded, Servers
from load import Load
from report import Outcome, report
from samples import Sampler

from workflow_service.testing.providers import ProviderServer
from workflow_service.testing.providers import environment as provider_settings

LOOP_ERRORS = re.compile(
    "Event loop is closed|different loop|was never awaited|Task was destroyed|never retrieved|WrongLoopError|"
    "another loop is running|cannot be called from a running event loop|another operation is in progress|"
    "non-thread-safe operation|Unrecoverable error|Fatal Python error|was frozen for"
)
CLIENTS = 6


@contextmanager
def own_database() -> Iterator[str]:
    """Yield a database of this run's own."""
    server = os.environ.get("TEST_DATABASE_URL") or "postgresql://postgres@127.0.0.1:5432/postgres"
    name = f"workflow_service_soak_{uuid4().hex}"

    async def execute(statement: str) -> None:
        connection = await asyncpg.connect(server)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(execute(f"CREATE DATABASE {name}"))
    try:
        yield f"{server.rpartition('/')[0]}/{name}"
    finally:
        asyncio.run(execute(f"DROP DATABASE {name} WITH (FORCE)"))


def soak(name: str, seconds: float, folder: Path) -> Outcome:
    """Run one installation for so long and return what there was to see."""
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        address = stack.enter_context(ProviderServer()).address
        environment = provider_settings(address)
        if name == "servers":
            database = stack.enter_context(own_database())
            redis = os.environ.get("TEST_REDIS_URL") or "redis://127.0.0.1:6379/14"
            installation = stack.enter_context(Servers.running(folder, database, redis, environment))
        else:
            installation = stack.enter_context(Embedded.running(folder, environment))
        load = Load(installation, CLIENTS)
        sampler = Sampler(installation, load)
        begun = time.monotonic()
        with sampler.sampling(), load.running():
            try:
                while (past := time.monotonic() - begun) < seconds:
                    time.sleep(min(1.0, seconds - past))
                    installation.disturb(past / seconds)
            except (AssertionError, subprocess.TimeoutExpired) as error:  # what was seen till then is told
                load.wrong.append(f"a part did not stop or start as it should: {error}")
        asyncio.run(load.finish())
    lines = [line for log in folder.rglob("*.log*") for line in log.read_text(errors="replace").splitlines()]
    return Outcome(
        name=name,
        seconds=seconds,
        ended=load.ended,
        wrong=load.wrong,
        disturbances=installation.disturbances,
        samples=sampler.samples,
        loop_errors=[line for line in lines if LOOP_ERRORS.search(line)],
        tracebacks=[line for line in lines if "Traceback (most recent" in line],
    )


def main() -> int:
    """Run the installations; return 1 if anything was not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="for all installations together")
    parser.add_argument("--on", nargs="+", choices=("servers", "embedded"), default=["servers", "embedded"])
    parser.add_argument("--write", type=Path, help="folder to write soak.md and soak.svg to")
    parser.add_argument("--keep", type=Path, help="folder to keep logs in")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        kept = options.keep or Path(temporary)
        outcomes = [soak(name, options.seconds / len(options.on), kept / name) for name in options.on]
    text = report(outcomes, datetime.now(UTC), options.write)
    print(text)
    for outcome in outcomes:
        for each in [*outcome.wrong[:10], *outcome.loop_errors[:10], *outcome.tracebacks[:10]]:
            print(f"{outcome.name}: {each}", file=sys.stderr)
    return 0 if all(outcome.is_well for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
