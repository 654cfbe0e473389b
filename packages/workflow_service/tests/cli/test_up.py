"""``workflow-service up``: one command serves, and nothing of it outlives it."""

import asyncio
import json
import os
import signal
import socket
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx
import pytest

from .conftest import Run, connection, eventually, lives, pids

PARTS = {"PostgreSQL", "the worker", "the API"}


def test_serves_the_page_until_ctrl_c(home: Path, command_line: Run) -> None:
    """Prints an address with the key, serves page and API there, and ends with 0, leaving nothing running.

    A home serves once: a second ``up`` is refused, and names the process that has it.
    """
    up = command_line("up", "--home", str(home), "--port", "0", "--analyse-sample")
    up.wait_for("Analysed mutual-nda.pdf: ")
    facts = connection(home)
    key = facts["api_keys"]["local"]
    started = pids(home)

    assert f"{facts['address']}#key={key}\n" in up.text
    assert set(started) == PARTS
    assert httpx.get(facts["address"], trust_env=False, follow_redirects=True).status_code == 200
    runs = httpx.get(f"{facts['address']}api/v1/runs", headers={"Authorization": f"Bearer {key}"}, trust_env=False)
    assert runs.status_code == 200
    second = command_line("up", "--home", str(home), "--port", "0")
    assert second.wait() == 1
    assert f"already on {home} (process {up.process.pid})" in second.text
    up.interrupt()
    assert up.wait() == 0
    assert not any(lives(pid) for pid in started.values())
    assert not (home / "connection.json").exists()


def test_killed_up_leaves_nothing_after_the_next(home: Path, command_line: Run) -> None:
    """kill -9: the next start ends what was left, keeps key and runs, and serves."""
    first = command_line("up", "--home", str(home), "--port", "0", "--analyse-sample")
    first.wait_for("Analysed mutual-nda.pdf: ")
    left, key = pids(home), connection(home)["api_keys"]
    first.process.kill()
    first.wait()
    assert all(lives(pid) for pid in left.values())

    second = command_line("up", "--home", str(home), "--port", "0")
    second.wait_for("Ctrl-C stops")

    assert not any(lives(pid) for pid in left.values())
    facts = connection(home)
    assert facts["api_keys"] == key
    headers = {"Authorization": f"Bearer {key['local']}"}
    runs = httpx.get(f"{facts['address']}api/v1/runs", headers=headers, trust_env=False).json()
    assert "contract_analysis" in json.dumps(runs)


def test_killed_worker_is_reported_and_started_again_by_hand(home: Path, command_line: Run) -> None:
    """Without its worker the service stays and names the command; a worker started so does the waiting run."""
    up = command_line("up", "--home", str(home), "--port", "0")
    up.wait_for("Ctrl-C stops")
    facts = connection(home)
    os.kill(pids(home)["the worker"], signal.SIGKILL)
    up.wait_for(f"workflow-service worker --home {home}")
    with httpx.Client(
        base_url=facts["address"],
        headers={"Authorization": f"Bearer {facts['api_keys']['local']}"},
        trust_env=False,
    ) as client:
        files = {"file": ("contract.txt", b"This Agreement is governed by the laws of Delaware.", "text/plain")}
        document_id = client.post("/api/v1/documents", files=files).json()["document_id"]
        body = {"workflow_name": "contract_analysis", "input_data": {"document_id": document_id}}
        run_id = client.post("/api/v1/workflows/execute", json=body).json()["run_id"]

        worker = command_line("worker", "--home", str(home))

        def is_done() -> bool:
            return bool(client.get(f"/api/v1/runs/{run_id}").json()["status"] == "succeeded")

        eventually(is_done, "the run has succeeded")
    up.process.terminate()
    assert up.wait() == 0
    assert worker.wait() == 0, "it is stopped with the service"


# Loaded by each interpreter before its program: lets the first worker fail.
FIRST_WORKER_FAILS = """
import os, sys
if "celery" in sys.orig_argv:
    try:
        os.close(os.open(os.environ["FAILED_ONCE"], os.O_CREAT | os.O_EXCL))
        os._exit(3)
    except FileExistsError:
        pass
"""


def test_worker_that_ends_with_an_error_is_started_again(home: Path, command_line: Run, tmp_path: Path) -> None:
    """A worker's own failure is told, and another comes by itself; Ctrl-C ends that one too."""
    (tmp_path / "sitecustomize.py").write_text(FIRST_WORKER_FAILS)
    failed = tmp_path / "failed"
    up = command_line("up", "--home", str(home), "--port", "0", PYTHONPATH=str(tmp_path), FAILED_ONCE=str(failed))
    up.wait_for("exited with 3: runs wait; it is started again in 1 s.")
    up.wait_for("Ctrl-C stops")

    log = home / "logs" / "worker.log"
    eventually(lambda: " ready." in log.read_text(), "another worker is ready")

    second = pids(home)["the worker"]
    up.interrupt()
    assert up.wait() == 0
    assert not lives(second)
    assert up.text.count("exited with") == 1


def test_frozen_worker_is_replaced_and_its_run_ends_once(home: Path, command_line: Run) -> None:
    """A worker that is stopped while it works: another one takes its place, and the run, which succeeds."""
    environment = {"WORKFLOW_WORKER_SILENCE": "6", "WORKFLOW_RUN_LEASE": "3"}
    up = command_line("up", "--home", str(home), "--port", "0", **environment)
    up.wait_for("Ctrl-C stops")
    facts, frozen = connection(home), pids(home)["the worker"]
    with httpx.Client(
        base_url=facts["address"],
        headers={"Authorization": f"Bearer {facts['api_keys']['local']}"},
        trust_env=False,
    ) as client:
        text = b"1. LAW\nThis Agreement is governed by the laws of the State of Delaware.\n\n" * 20_000
        files = {"file": ("contract.txt", text, "text/plain")}
        document_id = client.post("/api/v1/documents", files=files).json()["document_id"]
        body = {"workflow_name": "contract_analysis", "input_data": {"document_id": document_id}}
        run_id = client.post("/api/v1/workflows/execute", json=body).json()["run_id"]

        def status() -> str:
            return str(client.get(f"/api/v1/runs/{run_id}").json()["status"])

        eventually(lambda: status() == "running", "it is running")
        os.kill(frozen, signal.SIGSTOP)
        up.wait_for(f"the worker (process {frozen}) was frozen for 6 s and was killed: runs wait; it is started")
        assert not lives(frozen)
        eventually(lambda: status() == "succeeded", "the run has succeeded")
        with client.stream("GET", f"/api/v1/runs/{run_id}/events") as events:
            kinds = [line for line in events.iter_lines() if line.startswith("event: ")]
    assert kinds.count("event: succeeded") == 1
    assert pids(home)["the worker"] != frozen


# Loaded by each interpreter before its program: in a worker, keeps the interpreter's lock for so many seconds.
KEEPS_THE_LOCK = """
import ctypes, os, sys, threading, time
from pathlib import Path

def keeps_the_lock():
    file = Path(os.environ["KEEP_THE_LOCK"])
    while True:
        try:
            seconds = int(file.read_text())
            file.unlink()
        except (FileNotFoundError, ValueError):
            time.sleep(0.05)
            continue
        ctypes.PyDLL(None).sleep(seconds)
        file.with_suffix(".over").touch()

if "celery" in sys.orig_argv:
    threading.Thread(target=keeps_the_lock, daemon=True).start()
"""


def test_worker_is_replaced_when_it_is_frozen_or_crashes_not_when_it_is_busy(
    home: Path, command_line: Run, tmp_path: Path
) -> None:
    """A lock that is kept for half of the time does nothing; what keeps it for ever is named in the worker's log.

    A crash, too, is nobody's wish: its stacks are in the log, and another worker comes.
    """
    (tmp_path / "sitecustomize.py").write_text(KEEPS_THE_LOCK)
    file, log = tmp_path / "keep", home / "logs" / "worker.log"
    environment = {"PYTHONPATH": str(tmp_path), "KEEP_THE_LOCK": str(file), "WORKFLOW_WORKER_SILENCE": "6"}
    up = command_line("up", "--home", str(home), "--port", "0", **environment)
    up.wait_for("Ctrl-C stops")
    first = pids(home)["the worker"]
    eventually(lambda: " ready." in log.read_text(), "the worker is ready")

    file.write_text("3")
    eventually(file.with_suffix(".over").exists, "the lock is free again")
    assert pids(home)["the worker"] == first

    file.write_text("100000")
    up.wait_for(f"the worker (process {first}) was frozen for 6 s and was killed: runs wait; it is started again")
    told = log.read_text()
    assert "Fatal Python error: Aborted" in told
    assert "in keeps_the_lock" in told
    eventually(lambda: log.read_text().count(" ready.") == 2, "another worker is ready")

    second = pids(home)["the worker"]
    os.kill(second, signal.SIGSEGV)
    up.wait_for(f"the worker (process {second}) was ended by SIGSEGV: runs wait; it is started again in ")
    assert "Fatal Python error: Segmentation fault" in log.read_text()
    eventually(lambda: log.read_text().count(" ready.") == 3, "a third worker is ready")
    assert lives(pids(home)["the worker"])


@pytest.mark.needs("postgres")
def test_long_run_goes_back_to_the_queue_at_the_end(home: Path, command_line: Run, postgres_url: str) -> None:
    """A run that outlasts the stop waits for the next start; it is not left to its lease."""
    name = f"up_{uuid4().hex}"
    asyncio.run(_execute(postgres_url, f"CREATE DATABASE {name}"))
    url = postgres_url.rpartition("/")[0] + f"/{name}"
    try:
        up = command_line("up", "--home", str(home), "--port", "0", DATABASE_URL=url)
        up.wait_for("Ctrl-C stops")
        facts = connection(home)
        with httpx.Client(
            base_url=facts["address"],
            headers={"Authorization": f"Bearer {facts['api_keys']['local']}"},
            trust_env=False,
        ) as client:
            text = b"1. LAW\nThis Agreement is governed by the laws of the State of Delaware.\n\n" * 60_000
            files = {"file": ("contract.txt", text, "text/plain")}
            document_id = client.post("/api/v1/documents", files=files).json()["document_id"]
            body = {"workflow_name": "contract_analysis", "input_data": {"document_id": document_id}}
            runs = [client.post("/api/v1/workflows/execute", json=body).json()["run_id"] for _ in range(2)]

            def statuses() -> list[str]:
                return [client.get(f"/api/v1/runs/{run}").json()["status"] for run in runs]

            eventually(lambda: statuses() == ["running", "running"], "both are running")
        up.interrupt()
        assert up.wait() == 0
        assert asyncio.run(_fetch(url, "SELECT DISTINCT status FROM workflow.runs")) == ["queued"]
    finally:
        asyncio.run(_execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


def test_dying_api_stops_everything(home: Path, command_line: Run) -> None:
    """Without its API the service is none: everything stops, with 1, what ended and the end of its log."""
    up = command_line("up", "--home", str(home), "--port", "0")
    up.wait_for("Ctrl-C stops")
    started = pids(home)

    os.kill(started["the API"], signal.SIGKILL)

    assert up.wait() == 1
    assert f"the API (process {started['the API']}) was ended by SIGKILL (by somebody, or by the kernel" in up.text
    assert "no run is lost: start the service again" in up.text
    assert "Uvicorn running on socket" in up.text
    assert not any(lives(pid) for pid in started.values())


def test_taken_port_is_an_error_that_says_so(home: Path, command_line: Run) -> None:
    """A port that somebody else uses is named before anything is started."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        up = command_line("up", "--home", str(home), "--port", str(port))

        assert up.wait() == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in up.text
    assert "--port" in up.text
    assert not (home / "postgresql.json").exists()


def test_folder_with_other_things_is_no_home(tmp_path: Path, command_line: Run) -> None:
    """A folder that holds something else is refused, and its permissions stay."""
    folder = tmp_path / "documents"
    folder.mkdir(mode=0o755)
    (folder / "letter.txt").touch()

    up = command_line("up", "--home", str(folder))

    assert up.wait() == 1
    assert "holds other files" in up.text
    assert folder.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ("not json", "WORKFLOW_API_KEYS is no JSON"),
        ("[]", "WORKFLOW_API_KEYS must be an object"),
        ("{}", "WORKFLOW_API_KEYS must be a JSON object of user name to key"),
        ('{"alice": ""}', "WORKFLOW_API_KEYS must be a JSON object of user name to key"),
        ('{"alice": 1}', "WORKFLOW_API_KEYS.alice must be a text"),
    ],
)
def test_unusable_keys_are_refused_without_showing_them(
    home: Path, command_line: Run, keys: str, fault: str
) -> None:
    """WORKFLOW_API_KEYS that are no keys are an error that shows the form, not the value."""
    up = command_line("up", "--home", str(home), WORKFLOW_API_KEYS=keys)

    assert up.wait() == 1
    assert fault in up.text
    assert '{"alice": "a long random string"}' in up.text
    assert keys not in up.text or keys in ("[]", "{}")


# Loaded by the interpreter before its program: presses Ctrl-C while the command line is being loaded.
INTERRUPTED_IMPORT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""


def test_ctrl_c_in_the_first_moment_is_quiet(home: Path, command_line: Run, tmp_path: Path) -> None:
    """Nothing has been started and nothing is to be said, least of all a traceback."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED_IMPORT)

    up = command_line("up", "--home", str(home), PYTHONPATH=str(tmp_path))

    assert up.wait() == -signal.SIGINT
    assert up.text == ""
    assert not home.exists()


@pytest.mark.parametrize(("setting", "scheme"), [("DATABASE_URL", "postgresql"), ("BROKER_URL", "redis")])
def test_server_that_is_not_there_is_one_line_before_anything_starts(
    home: Path, command_line: Run, setting: str, scheme: str
) -> None:
    """The setting, the reason and the way out; no password, no traceback, and nothing was started."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"{scheme}://user:sesame@127.0.0.1:{nobody.getsockname()[1]}/0"
        up = command_line("up", "--home", str(home), "--port", "0", **{setting: url})
        assert up.wait() == 1
    *kept, starting, error = up.text.splitlines()
    assert len(kept) <= 1, "one line for all databases whose homes are gone"
    assert all(line.startswith("Of homes that are gone: ") for line in kept)
    assert starting == f"Starting on {home}"
    assert error.startswith(f"error: {setting}={scheme}://user:***@127.0.0.1:")
    assert "sesame" not in error
    assert not (home / "processes").exists()
    assert not (home / "postgresql.json").exists()


def test_address_of_another_machine_is_an_error_that_says_so(home: Path, command_line: Run) -> None:
    """Another port would not help."""
    up = command_line("up", "--home", str(home), "--host", "192.0.2.1")

    assert up.wait() == 1
    assert "no address of this machine" in up.text
    assert "--host" in up.text
    assert "--port" not in up.text


def test_worker_by_hand_ends_well_with_ctrl_c(home: Path, command_line: Run) -> None:
    """Ctrl-C is how its help says to end it: the exit code is 0, and the service goes on."""
    up = command_line("up", "--home", str(home), "--port", "0")
    up.wait_for("Ctrl-C stops")
    worker = command_line("worker", "--home", str(home))
    worker.wait_for(" ready.")

    worker.interrupt()

    assert worker.wait() == 0
    assert up.process.poll() is None


def test_worker_without_a_service_is_refused(home: Path, command_line: Run) -> None:
    """There is nothing to work for; the message says what to start."""
    worker = command_line("worker", "--home", str(home))

    assert worker.wait() == 1
    assert f"workflow-service up --home {home}" in worker.text


@pytest.mark.needs("postgres")
def test_database_url_and_keys_of_the_environment_are_used(
    home: Path, command_line: Run, postgres_url: str
) -> None:
    """With DATABASE_URL no PostgreSQL is started; keys of the environment let in, and none is made."""
    name = f"up_{uuid4().hex}"
    asyncio.run(_execute(postgres_url, f"CREATE DATABASE {name}"))
    url = postgres_url.rpartition("/")[0] + f"/{name}"
    try:
        keys = json.dumps({"alice": "the-key-of-alice"})
        up = command_line("up", "--home", str(home), "--port", "0", DATABASE_URL=url, WORKFLOW_API_KEYS=keys)
        up.wait_for("Ctrl-C stops")
        assert set(pids(home)) == PARTS - {"PostgreSQL"}
        assert "#key=the-key-of-alice\n" in up.text
        assert not (home / "api-keys.json").exists()
        up.interrupt()
        assert up.wait() == 0
    finally:
        asyncio.run(_execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


async def _execute(url: str, statement: str) -> None:
    connected = await asyncpg.connect(url)
    try:
        await connected.execute(statement)
    finally:
        await connected.close()


async def _fetch(url: str, query: str) -> list[str]:
    connected = await asyncpg.connect(url)
    try:
        return [str(row[0]) for row in await connected.fetch(query)]
    finally:
        await connected.close()
