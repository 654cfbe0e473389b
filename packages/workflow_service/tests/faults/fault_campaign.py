"""Run a ledger many times while parts of the service are killed, and count what became of the runs."""

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import fault_ledger
import fault_servers
import httpx

VICTIMS = ("worker", "API", "broker", "PostgreSQL")
OUTAGE = 1.0  # seconds until what was killed is started again
FOLLOWERS = 5
_BOUND = 900.0  # seconds for a campaign on a busy machine; then what has not ended counts as lost
_KEY = "a key of the fault matrix"
_SETTINGS = {"WORKFLOW_RUN_LEASE": "3", "WORKFLOW_REAP_INTERVAL": "0.5"}
_TIERS = ("none", "context", "thread")
_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

RUNS = "SELECT count(*) FILTER (WHERE finished_at IS NOT NULL) FROM workflow.runs"
HELD = "SELECT count(*) FROM workflow.runs WHERE lease_until IS NOT NULL"
VERDICT = """
WITH history AS (
    SELECT run_id,
           count(*) FILTER (WHERE kind IN ('succeeded', 'failed', 'cancelled', 'dead')) AS ends,
           max(seq) - count(*) AS missing,
           count(*) FILTER (WHERE kind = 'progress') AS steps
    FROM workflow.run_events GROUP BY run_id
), moves AS (
    SELECT run_id, (data->>'percent')::int < lag((data->>'percent')::int) OVER (PARTITION BY run_id ORDER BY seq)
           AS is_back
    FROM workflow.run_events WHERE kind = 'progress'
)
SELECT count(*) AS runs,
       count(*) FILTER (WHERE status = 'succeeded') AS succeeded,
       count(*) FILTER (WHERE ends = 1) AS ended_once,
       count(*) FILTER (WHERE missing <> 0) AS gaps,
       count(*) FILTER (WHERE status = 'succeeded' AND (steps <> $1 OR percent <> 100)) AS wrong_steps,
       (SELECT count(*) FROM moves WHERE is_back) AS backwards,
       sum(attempt) - count(*) AS extra_attempts,
       (SELECT count(*) FROM public.effects) AS effects,
       (SELECT count(*) FROM public.executions) AS executions
FROM workflow.runs LEFT JOIN history ON history.run_id = runs.id
"""

UNLIKE = """
SELECT string_agg(format('%s is %s: %s', id, status, error), '; ') FROM workflow.runs WHERE status <> 'succeeded'
"""


@dataclass
class Outcome:
    """What a campaign came to."""

    broker: str
    victims: Sequence[str]
    asked: int
    held_at_kills: list[int] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    faults_of_streams: list[str] = field(default_factory=list)
    unlike: str = ""  # the runs that did not succeed, each with its error
    seconds: float = 0.0

    def complaints(self) -> list[str]:
        """Return what is not as it must be."""
        counts, asked = self.counts, self.asked
        expected = {
            "runs": asked,
            "succeeded": asked,
            "ended_once": asked,
            "gaps": 0,
            "wrong_steps": 0,
            "backwards": 0,
            "effects": asked * fault_ledger.STEPS,
        }
        wrong = [
            f"{name}: {counts[name]} instead of {count}"
            for name, count in expected.items()
            if counts[name] != count
        ]
        return wrong + self.faults_of_streams


class Service:
    """The whole service in processes of its own."""

    def __init__(self, folder: Path, broker: str, workers: int) -> None:
        here = str(Path(__file__).parent)
        self.folder = folder
        self.database = fault_servers.PostgreSQL(folder)
        self.broker: Any = fault_servers.BROKERS[broker](folder)
        port = fault_servers.free_port()
        self.address = f"http://127.0.0.1:{port}"
        env = {
            **os.environ,
            **_SETTINGS,
            "PYTHONPATH": os.pathsep.join((here, f"{here}/plugin", *filter(None, [os.environ.get("PYTHONPATH")]))),
            "DATABASE_URL": self.database.url,
            "BROKER_URL": self.broker.url,
            "WORKFLOW_API_KEYS": json.dumps({"alice": _KEY}),
        }
        celery = ["-m", "celery", "--app", "workflow_service.worker.app", "worker", "--queues", "workflow_service"]
        options = ["--pool", "threads", "--concurrency", "8", "--without-gossip", "--without-mingle", "-l", "INFO"]
        self.workers = [
            fault_servers.Process(
                f"worker{number}", [sys.executable, *celery, *options, "-n", f"w{number}@faults"], env, folder
            )
            for number in range(workers)
        ]
        self.api = _Api(
            self.address,
            [sys.executable, "-m", "workflow_service", "api", "--host", "127.0.0.1", "--port", str(port)],
            env,
            folder,
        )

    def start(self) -> None:
        """Start everything."""
        for part in (self.database, self.broker, self.api, *self.workers):
            part.start()

    def stop(self) -> None:
        """Stop everything, whatever stands."""
        for part in (*self.workers, self.api, self.broker, self.database):
            part.stop()

    def parts(self, victim: str) -> Sequence[Any]:
        """Return what is killed: of workers, all."""
        named: dict[str, Sequence[Any]] = {
            "worker": self.workers,
            "API": [self.api],
            "broker": [self.broker],
            "PostgreSQL": [self.database],
        }
        return named[victim]


class _Api(fault_servers.Process):
    def __init__(self, address: str, argv: Sequence[str], env: dict[str, str], folder: Path) -> None:
        super().__init__("api", argv, env, folder)
        self._address = address

    def answers(self) -> bool:
        """Whether it is ready."""
        return fault_servers.is_ready(self._address)


@contextmanager
def _served(broker: str, workers: int) -> Iterator[Service]:
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    folder.chmod(0o711)  # the database's own user passes through
    service = Service(folder, broker, workers)
    try:
        service.start()
        yield service
    except BaseException:
        for log in folder.glob("*.log"):
            print(f"---- {log.name}\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)
        raise
    finally:
        service.stop()
        shutil.rmtree(folder, ignore_errors=True)


class Watcher:
    """Asks the database, also when it has been killed meanwhile."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def ask(self, query: str, *values: object) -> asyncpg.Record:
        """Return the first row."""
        while True:
            try:
                connection = await asyncpg.connect(self._url, timeout=5)
            except _AWAY:
                await asyncio.sleep(0.1)
                continue
            try:
                row = await connection.fetchrow(query, *values, timeout=10)
                assert row is not None
                return row
            except _AWAY:
                await asyncio.sleep(0.1)
            finally:
                connection.terminate()

    async def until_ended(self, count: int) -> None:
        """Wait until so many runs have ended."""
        while (await self.ask(RUNS))[0] < count:  # noqa: ASYNC110 - the database decides
            await asyncio.sleep(0.05)


def campaign(broker: str, victims: Sequence[str], runs: int, workers: int) -> Outcome:
    """Do ``runs`` runs on so many workers, and kill each of ``victims`` in turn, evenly spread over them."""
    outcome = Outcome(broker, victims, runs)
    with _served(broker, workers) as service:
        started = time.monotonic()
        asyncio.run(_disturb(service, outcome))
        outcome.seconds = time.monotonic() - started
        if outcome.complaints():
            kept = Path(tempfile.mkdtemp(prefix="faults-logs-"))
            for log in service.folder.glob("*.log"):
                shutil.copy(log, kept)
            print(f"{', '.join(outcome.complaints())}: logs in {kept}; {outcome.unlike}", file=sys.stderr)
    return outcome


async def _disturb(service: Service, outcome: Outcome) -> None:
    connection = await asyncpg.connect(service.database.url)
    await connection.execute(fault_ledger.TABLES)
    await connection.close()
    watcher = Watcher(service.database.url)
    async with _client(service.address) as client:
        with suppress(TimeoutError):  # what has not ended by then shows in the counts
            async with asyncio.timeout(_BOUND), asyncio.TaskGroup() as group:
                group.create_task(_submit_all(client, group, outcome))
                group.create_task(_kill_all(service, watcher, outcome))
                group.create_task(watcher.until_ended(outcome.asked))
    outcome.counts = dict(await watcher.ask(VERDICT, fault_ledger.STEPS))
    outcome.unlike = (await watcher.ask(UNLIKE))[0] or ""


def _client(address: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {_KEY}"}
    return httpx.AsyncClient(base_url=address, headers=headers, trust_env=False, timeout=20)


async def _kill_all(service: Service, watcher: Watcher, outcome: Outcome) -> None:
    for number, victim in enumerate(outcome.victims, start=1):
        await watcher.until_ended(outcome.asked * number // (len(outcome.victims) + 1))
        outcome.held_at_kills.append((await watcher.ask(HELD))[0])
        parts = service.parts(victim)
        for part in parts:
            await asyncio.to_thread(part.kill)
        await asyncio.sleep(OUTAGE)
        for part in parts:
            await asyncio.to_thread(part.start)


async def _submit_all(client: httpx.AsyncClient, group: asyncio.TaskGroup, outcome: Outcome) -> None:
    places = asyncio.Semaphore(4)

    async def submit(number: int) -> None:
        async with places:
            run_id = await _submit(client, number)
        if number < FOLLOWERS:
            group.create_task(_follow(client, run_id, outcome))

    await asyncio.gather(*(submit(number) for number in range(outcome.asked)))


async def _submit(client: httpx.AsyncClient, number: int) -> str:
    """Ask until the run is committed; the key makes one run of however many requests."""
    body = {"workflow_name": "ledger", "input_data": {}, "options": {"isolation": _TIERS[number % len(_TIERS)]}}
    while True:
        with suppress(httpx.TransportError):
            answer = await client.post(
                "/api/v1/workflows/execute", json=body, headers={"Idempotency-Key": f"run-{number}"}
            )
            if answer.status_code == 202:
                return str(answer.json()["run_id"])
            assert answer.status_code >= 500, answer.text
        await asyncio.sleep(0.2)


async def _follow(client: httpx.AsyncClient, run_id: str, outcome: Outcome) -> None:
    """Read a run's events, over as many connections as it takes, and see that they are what they must be."""
    last, percent, ends = 0, 0, 0
    while not ends:
        with suppress(httpx.TransportError):
            headers = {"Last-Event-ID": str(last)} if last else {}
            async with client.stream("GET", f"/api/v1/runs/{run_id}/events", headers=headers) as stream:
                async for line in stream.aiter_lines():
                    if not line.startswith("data:"):
                        continue
                    event = json.loads(line.removeprefix("data:"))
                    if event["seq"] != last + 1:
                        outcome.faults_of_streams.append(f"run {run_id}: event {event['seq']} after {last}")
                    last = event["seq"]
                    now = event["data"].get("percent", percent)
                    if now < percent:
                        outcome.faults_of_streams.append(f"run {run_id}: {now} % after {percent} %")
                    percent = now
                    ends += event["kind"] in ("succeeded", "failed", "cancelled", "dead")
        await asyncio.sleep(0.1)
