"""The interface does what its OpenAPI document says, whatever comes in: schemathesis, with all its checks.

`FUZZ_EXAMPLES` says how many requests an operation gets in each phase; ``make fuzz-api`` sends many.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("postgres")

HERE = Path(__file__).parent
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "10"))
BOUND = 240 + 8 * EXAMPLES  # seconds


def present(client):
    """Make runs that have ended and documents, and return their ids."""
    runs, documents = [], []
    for _ in range(3):
        document = client.post("/api/v1/samples/mutual-nda.pdf/documents").json()["document_id"]
        body = {"workflow_name": "contract_analysis", "input_data": {"document_id": document}}
        run_id = client.post("/api/v1/workflows/execute", json=body).json()["run_id"]
        with client.stream("GET", f"/api/v1/runs/{run_id}/events") as stream:
            assert "succeeded" in "".join(stream.iter_text())
        runs.append(run_id)
        documents.append(document)
    return {"FUZZ_run_id": ",".join(runs), "FUZZ_document_id": ",".join(documents)}


@pytest.mark.timeout(BOUND + 60)
def test_the_interface_is_what_it_says(running):
    """No failure, and no status, header or shape of an answer that is not documented."""
    logged = len(running.logs())
    with running.client("alice") as alice:
        ids = present(alice)
    command = (
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"{running.address}/openapi.json", "--checks", "all", "--max-examples", str(EXAMPLES)),
        *(
            "--header",
            f"Authorization: Bearer {running.secrets['alice']}",
            "--request-timeout",
            "60",
            "--no-color",
        ),
    )
    ended = subprocess.run(
        command,
        env=os.environ | ids | {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE)},
        cwd=running.folder,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Traceback" not in running.logs()[logged:]
